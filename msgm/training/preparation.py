"""What an objective is given before the first step: draws of items, replays, a teacher and passes over gradients.

What takes long is kept in the run folder, so that a resumed run finds it: ``teacher/``, ``replay/`` and ``moments/``.
All of it is of the model that training starts from.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import save
from torch import Tensor

from msgm import processes, traces
from msgm.config import TrainingSettings
from msgm.data import Dataset, dequantise
from msgm.diffusion import Condition, SamplingSettings, ScoreModel, sample
from msgm.diffusion.conditions import NULL
from msgm.errors import UserError
from msgm.folders import write_bytes
from msgm.objectives import Drawn, Moments, Objective, Setup, moments
from msgm.reading import read_tensors
from msgm.requests import Concept
from msgm.runs import Run
from msgm.seeding import derive_seed, generator
from msgm.splits import Part
from msgm.training.feeds import Tally


class Preparation:
    """Makes the ``Setup`` of a run.

    Args:
        model: before its first step.
        objective: that is prepared.
        dataset: of the run.
        part: its training items.
        seed: of all draws.
        run: its folder.
        accelerator: of the run.
        tally: counts the items that are drawn.
        tuned: fine-tunes a copy of the model on the forget set alone, for some steps.
        drops: how often labels are left out of retain and of forget batches; None for an unconditional model.
        concept: whose prompts forget items are asked for; None asks for them as for all others.
    """

    def __init__(
        self,
        model: ScoreModel,
        objective: Objective,
        dataset: Dataset,
        part: Part,
        seed: int,
        run: Run,
        accelerator: Accelerator,
        tally: Tally,
        tuned: Callable[[int], ScoreModel],
        drops: tuple[float | None, float | None],
        concept: Concept | None = None,
    ) -> None:
        self.model, self.objective, self.dataset, self.part = model, objective, dataset, part
        self.seed, self.run, self.accelerator, self.tally, self.tuned = seed, run, accelerator, tally, tuned
        self.drops, self.concept = drops, concept
        self.asked = {"retain": dataset, "forget": dataset.asked_by(concept)}

    def setup(self, settings: TrainingSettings) -> Setup:
        """Return what the objective is given before a training with these settings."""
        return Setup(
            lambda: copy.deepcopy(self.model),
            lambda count: self.retain(count).items,
            self.tuned,
            self.forget,
            self.sample,
            self.moments,
            settings.steps,
            len(self.part.forget) / max(1, len(self.part.all)),
            len(set(self.drops)) == 1,
            self.drops[1] != 0,
            settings.forget_batch_size in (None, settings.batch_size),
            self._labels("retain"),
            self._labels("forget"),
            self.concept,
        )

    def retain(self, count: int) -> Drawn:
        """Draw retain items, or replays in their place.

        Raises:
            UserError: the objective reads forget items alone and has no replays.
        """
        if self.objective.replay:
            drawn = self.sample(self.objective.replay)
            return Drawn(*(None if part is None else part[:count] for part in drawn))  # type: ignore[arg-type]
        if self.objective.needs == "forget":
            raise UserError(
                f"objective: {self.objective.name} reads forget items alone, and what it prepares needs retain items; "
                "set objective.replay, or take anchor: identity or mask: saliency, which need none."
            )
        return self._drawn("retain", "bank", count)

    def forget(self, count: int) -> Drawn:
        """Draw forget items."""
        return self._drawn("forget", "forget bank", count)

    def _drawn(self, part: Literal["retain", "forget"], stream: str, count: int) -> Drawn:
        chosen = getattr(self.part, part)
        if count < len(chosen):
            chosen = chosen[torch.randperm(len(chosen), generator=generator(self.seed, stream))[:count].numpy()]
        self.tally.add(part, len(chosen))
        items, levels, device = self.dataset.take(chosen), self.dataset.levels, self.accelerator.device
        draws = torch.rand(len(chosen), generator=generator(self.seed, stream, "caption"))
        asked = self.asked[part].asked(chosen, draws.numpy())
        labels = None if asked is None else torch.from_numpy(asked)
        if self.dataset.flip:
            items = torch.cat([items, items.flip(-1)])
            labels = None if labels is None else labels.repeat(2)
        items = items.float() if levels is None else dequantise(items, levels)
        return Drawn(items.to(device), None if labels is None else labels.to(device))

    def sample(self, count: int) -> Drawn:
        """Draw samples of the model, kept in ``replay/``; a conditional one is asked for every retained class."""
        path, seed = self.run.path / "replay" / f"{count}.safetensors", derive_seed(self.seed, "replay")
        labels = self._retained_labels(count)

        def made() -> dict[str, Tensor]:
            with processes.alone():
                items = sample(self.model, count, SamplingSettings(), seed, condition=labels)
            return {"items": items.clamp(-1, 1) if self.dataset.is_image else items}

        self._once(path, made)
        device = self.accelerator.device
        return Drawn(read_tensors(path)["items"].to(device), None if labels is None else labels.to(device))

    def _labels(self, part: Literal["retain", "forget"]) -> tuple[int, ...]:
        """Return the labels of a part's items, or the numbers of their prompts, each once and in order."""
        labels = self.asked[part].asks
        found = [] if labels is None else np.unique(labels[getattr(self.part, part)]).tolist()
        return tuple(label for label in found if label != NULL)

    def _retained_labels(self, count: int) -> Tensor | None:
        known = torch.tensor(self._labels("retain"))
        if not self.model.classes or not len(known):
            return None
        return known[torch.arange(count) % len(known)]

    def moments(self, part: Literal["retain", "forget"], items: int, levels: int = 10, batch: int = 1) -> Moments:
        """Take the moments at a part's items, kept in ``moments/``; labels are left out as often as in training."""
        replayed = self.objective.replay and part == "retain"
        name = f"{'replay' if replayed else part}-{items}x{levels}-by-{batch}"
        path = self.run.path / "moments" / f"{name}.safetensors"
        drawn = self.retain(items) if part == "retain" else self.forget(items)

        def made() -> dict[str, Tensor]:
            condition = self._asked(part, drawn.labels)
            found = moments(self.model, drawn.items, levels, batch, derive_seed(self.seed, "moments"), condition)
            tensors = {f"{kind}/{key}": v for kind in ("mean", "square") for key, v in getattr(found, kind).items()}
            return tensors | {"count": torch.tensor(found.count)}

        self._once(path, made)
        found = {name: tensor.to(self.accelerator.device) for name, tensor in read_tensors(path).items()}
        kinds = {
            kind: {name.removeprefix(f"{kind}/"): t for name, t in found.items() if name.startswith(f"{kind}/")}
            for kind in ("mean", "square")
        }
        return Moments(kinds["mean"], kinds["square"], int(found["count"]))

    def _asked(self, part: Literal["retain", "forget"], labels: Tensor | None) -> Condition | None:
        """Return what a part's items are asked for: their labels, of which some are left out as in its batches."""
        drop = self.drops[0 if part == "retain" else 1]
        if drop is None or labels is None:
            return None
        draws = torch.rand(len(labels), generator=generator(self.seed, "moments", "drop", part))
        return Condition(labels).dropped((draws < drop).to(labels.device))

    def _once(self, path: Path, make: Callable[[], dict[str, Tensor]]) -> None:
        """Make a file of tensors by the first process, unless it is there."""
        if self.accelerator.is_main_process and not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            traces.register(self.run.path, path.parent, *traces.KNOWN[path.parent.name])
            write_bytes(path, save({name: tensor.cpu().contiguous() for name, tensor in make().items()}))
        self.accelerator.wait_for_everyone()
