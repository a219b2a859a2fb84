"""Runs without steps: an edit changes a trained model's weights at once."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Literal

import torch

from msgm.config import TrainingSettings
from msgm.data import Dataset, Feed
from msgm.diffusion import ScoreModel
from msgm.errors import RunError
from msgm.objectives import Drawn, Unseen
from msgm.objectives.edits import Edit, EditSetup
from msgm.reading import read_json
from msgm.requests import Means
from msgm.runs import Run
from msgm.seeding import generator
from msgm.splits import Part
from msgm.training.batches import clean, drop_of, forget_drop
from msgm.training.checkpoints import State, checkpoints
from msgm.training.trainer import Trainer

Source = Literal["retain", "forget"]
READ = 64
"""Items of an edit that are read at a time; they come in another order, and have other draws, with another number."""


class Editor(Trainer):
    """Edits a model's weights, and keeps the run as a trainer of no steps does.

    Args:
        model: the model to start from; it stays as it is.
        edit: what is done to it.
        dataset: where the items come from.
        part: the training items, retain and forget.
        settings: how a copy of the model is fine-tuned, for edits that need one; its ``trainable`` is of runs with
            steps, and not read.
        seed: of every random choice.
        run: folder of the run.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        label: name shown meanwhile.
        means: what is to be forgotten of a class-conditional model, see ``ForgetRequest``.
    """

    def __init__(
        self,
        model: ScoreModel,
        edit: Edit,
        dataset: Dataset,
        part: Part,
        settings: TrainingSettings,
        seed: int,
        run: Run,
        device: str = "auto",
        label: str = "editing",
        means: Means | None = None,
    ) -> None:
        settings = replace(settings, trainable=None)
        super().__init__(model, Unseen(), dataset, part, settings, seed, run, device, label, means)
        if settings.gradient_checkpointing:
            self._checkpoint_gradients(False)  # of the copy that is fine-tuned alone
        self.edit, self.means = edit, means

    def train(self) -> None:
        """Edit the weights.

        Raises:
            RunError: a weight became NaN or infinite.
            UserError: the edit cannot be made in this network.
        """
        began, spent = time.perf_counter(), _spent(Run(self.run.path / "teacher"))
        self.run.create()
        self.model = self.edit.apply(self.model, self._edit_setup())
        if not all(bool(weights.isfinite().all()) for weights in self.model.network.parameters()):
            raise RunError(f"{self.label}: {self.edit.name} gave weights that are not finite; nothing was saved.")
        self.state.seconds = time.perf_counter() - began + spent

    def _edit_setup(self) -> EditSetup:
        return EditSetup(**vars(self._setup()), items=self._items, seed=self.seed)

    def _items(self, part: Source, count: int) -> Drawn:
        """Return clean items of a part as training sees them; every process draws all of them."""
        self.feeds.tally.add(part, count)
        batches = list(self._batches(part, count))
        labels = [batch.labels for batch in batches if batch.labels is not None]
        return Drawn(
            torch.cat([batch.items for batch in batches])[:count], torch.cat(labels)[:count] if labels else None
        )

    def _batches(self, part: Source, count: int) -> Iterator[Drawn]:
        chosen = self.part.retain if part == "retain" else self.part.forget
        size, drop = min(count, READ), drop_of(self.model, self.settings)
        drop = drop if part == "retain" else forget_drop(drop, self.means)
        where = self.accelerator.device
        feed = Feed(self.dataset, chosen, size, self.seed, f"edit-{part}", device=where, drop=drop)
        for number, raw in zip(range(-(-count // size)), feed.batches(0), strict=False):
            yield Drawn(clean(feed, raw.items, generator(self.seed, feed.stream, number, device=where)), raw.labels)

    def _chosen_weights(self) -> AbstractContextManager[None]:
        return nullcontext()


def _spent(teacher: Run) -> float:
    """Return the seconds that an earlier call, which was stopped, tuned the teacher for."""
    found = checkpoints(teacher.checkpoints)
    state: State | None = read_json(found[-1] / "state.json", State) if found else None
    return state["seconds"] if state else 0.0
