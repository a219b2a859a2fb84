"""The batches of a run: of all, of retain or of replayed items, and of forget items, with a tally of what was drawn."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from msgm.config import TrainingSettings
from msgm.data import Batch, Dataset, Feed
from msgm.diffusion.conditions import NULL
from msgm.errors import UserError
from msgm.objectives import Drawn, Objective
from msgm.requests import Concept
from msgm.splits import Part


@dataclass
class Tally:
    """How many items were drawn, repetitions counted, by the part they are of.

    Attributes:
        drawn: items for preparation, by part.
        fed: batches' feeds, by part.
    """

    drawn: dict[str, int] = field(default_factory=dict)
    fed: dict[str, Feed] = field(default_factory=dict)

    def add(self, part: str, count: int) -> None:
        """Count items that were drawn for preparation."""
        self.drawn[part] = self.drawn.get(part, 0) + count

    def counts(self) -> Mapping[str, int]:
        """Return the items drawn of retain, forget and all training items, and of replays; 0 where none was."""
        found = {"retain": 0, "forget": 0} | self.drawn
        for part, feed in self.fed.items():
            found[part] = found.get(part, 0) + feed.global_size * feed.begun
        return found


class Feeds:
    """Where a run's batches come from.

    Args:
        dataset: of the run.
        part: its training items.
        objective: says which of them it needs.
        settings: sizes of the batches, and into how many parts they are cut.
        seed: of the order.
        accelerator: of the run.
        drops: how often labels are left out of the batches of each; None leaves out all.
        concept: whose prompts forget items are asked for; None asks for them as for all others.

    Attributes:
        kept: batches of retain items, of all or of replays; None for an objective of forget items alone.
        forget: batches of forget items.
        tally: of the items drawn.

    Raises:
        UserError: a batch size that processes and accumulated parts do not divide.
    """

    def __init__(
        self,
        dataset: Dataset,
        part: Part,
        objective: Objective,
        settings: TrainingSettings,
        seed: int,
        accelerator: Accelerator,
        drops: tuple[float | None, float | None] = (None, None),
        concept: Concept | None = None,
    ) -> None:
        self.settings, self.seed, self.accelerator, self.tally = settings, seed, accelerator, Tally()
        self.drops = drops
        self.kept: Feed | None = None
        source = objective.needs.partition("+")[0]
        if source != "forget":
            self.kept = self._feed(dataset, getattr(part, source), settings.batch_size, "retain", source, drops[0])
        size = settings.forget_batch_size or settings.batch_size
        self.forget = self._feed(dataset.asked_by(concept), part.forget, size, "forget", "forget", drops[1])

    def batches(self, kept: int, forget: int) -> tuple[Iterator[Batch | None], Iterator[Batch]]:
        """Yield batch ``kept`` and on, None without end where there are none; and forget batch ``forget`` and on."""
        self.forget.begun = forget  # those of the runs that this one resumes
        if self.kept is None:
            return itertools.repeat(None), self.forget.batches(forget)
        self.kept.begun = kept
        return self.kept.batches(kept), self.forget.batches(forget)

    def replay(self, drawn: Drawn) -> None:
        """Let replays take the place of the retain items."""
        self.tally.fed.pop("retain")
        items = drawn.items.cpu()
        labels = np.full(len(items), NULL) if drawn.labels is None else drawn.labels.cpu().numpy()
        replays = Dataset("replays", items, tuple(items.shape[1:]), levels=None, labels=labels)
        size, drop = self.settings.batch_size, self.drops[0]
        self.kept = self._feed(replays, np.arange(len(items)), size, "retain", "replay", drop)

    def _feed(
        self, dataset: Dataset, indices: NDArray[np.int64], size: int, stream: str, part: str, drop: float | None
    ) -> Feed:
        world, parts = self.accelerator.num_processes, self.settings.accumulate
        if size % (world * parts):
            raise UserError(
                f"training: the {stream} batch of {size} does not divide into {world} processes x {parts} parts."
            )
        rank, device = self.accelerator.process_index, self.accelerator.device
        feed = Feed(dataset, indices, size, self.seed, stream, rank, world, device, drop)
        self.tally.fed[part] = feed
        return feed
