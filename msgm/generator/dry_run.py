"""``msgm compare --dry-run`` of generators: what each row would take, from a few training steps on random items.

Every row is built as its run builds it (network, objective, preparation, optimisers), on random items of the data's
shape in a temporary folder. Counted are the floating-point operations of a step with and one without forget items, the
bytes that are held whatever the batch (all weights; of the trained ones two moments of Adam for each optimiser, and the
average), and the most bytes that a step allocates at a time: what it saves for the backward pass, or computes anew
there, and gradients. Not counted are fine-tuning of a frozen teacher, replays beyond a few, copies of the base model,
and edits and guidance, which make no step.
"""

import copy
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from msgm.config import BASE_ROW, Config
from msgm.data import Dataset
from msgm.devices import finish
from msgm.diffusion import ScoreModel
from msgm.generator.allocated import Allocated
from msgm.objectives import OBJECTIVES
from msgm.rows import Row
from msgm.runs import Run
from msgm.splits import Part
from msgm.starts import STEPLESS
from msgm.tables import Table
from msgm.training.prompts import prompted
from msgm.training.run import check_conditions, new_model
from msgm.training.trainer import Trainer

HELD = 1
"""Numbers held for each trained weight beside two moments for each optimiser: its average."""
BANK = 16384
"""Random items to retain, at most: as many as an objective may keep at hand."""
REPLAYS = 8
WITHOUT_STEPS = {"edit": "edits make", "guide": "rows with guidance leave the weights as they are, make"}
"""How a note on rows without steps begins, by their start."""
HEAD = [
    *("row", "start", "objective", "steps", "weights", "trained", "GFLOP a step", "TFLOP in all"),
    *("MiB held", "MiB a step", "seconds a step"),
]


@dataclass(frozen=True)
class Step:
    """What one training step takes.

    Attributes:
        flop: floating-point operations, of the backward pass too.
        allocated: most bytes at a time, beside what is held.
        seconds: on this machine.
    """

    flop: int
    allocated: int
    seconds: float


@dataclass(frozen=True)
class Taken:
    """What the training of a row takes.

    Attributes:
        weights: numbers that the network has.
        trained: numbers that training changes: some of them, or those of an adapter.
        held: numbers held whatever the batch.
        steps: how many steps are made, with forget items (True) and without.
        each: what a step of either kind takes.
    """

    weights: int
    trained: int
    held: int
    steps: dict[bool, int]
    each: dict[bool, Step]

    @property
    def flop(self) -> int:
        """Operations of all steps."""
        return sum(count * self.each[kind].flop for kind, count in self.steps.items() if count)

    @property
    def largest(self) -> Step:
        """The step that allocates most."""
        return max(self.each.values(), key=lambda step: step.allocated)


def dry_run(config: Config, names: Sequence[str], dataset: Dataset, device: str = "auto") -> Table:
    """Return a table of what the rows of ``names`` would take, the base model first.

    Args:
        config: the experiment.
        names: of its rows.
        dataset: of which the shape, levels and classes are used.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        UserError: a row that cannot be built.
    """
    check_conditions(prompted(new_model(config, dataset), dataset), dataset, config.request)
    lines: list[list[str]] = []
    without: dict[str, list[str]] = {}
    for name in [BASE_ROW, *(name for name in names if name != BASE_ROW)]:
        row = config.rows[name]
        if row.start in STEPLESS and not row.objective:
            without.setdefault(row.start, []).append(name)
        elif name == BASE_ROW or row.start in ("scratch", "finetune", "edit", "shards"):
            lines.append(_line(name, row, taken(config.for_row(row), dataset, device)))
    sampling = f"{config.evaluation.samples} samples a row, {config.sampling.sampler} in {config.sampling.steps} steps"
    notes = [
        f"seeds: {config.seeds}; retrained models: {config.retrains}; measuring is not counted: {sampling}",
        "GFLOP, MiB and seconds a step: of a step with forget items where the row has such",
        "MiB held: weights, and moments and average of those that are trained",
        "MiB a step: the most that a process allocates beside",
    ]
    notes += [f"{WITHOUT_STEPS[start]} no step and are left out: {', '.join(rows)}" for start, rows in without.items()]
    return Table(f"{config.name}: a dry run on random items, nothing was written", HEAD, lines, notes)


def _line(name: str, row: Row, found: Taken) -> list[str]:
    step = found.largest
    return [
        *(name, row.start, _method(row), str(sum(found.steps.values()))),
        *(f"{found.weights:,}", f"{found.trained:,}"),
        *(f"{step.flop / 1e9:.3g}", f"{found.flop / 1e12:.3g}"),
        *(f"{found.held * 4 / 2**20:.1f}", f"{step.allocated / 2**20:.1f}", f"{step.seconds:.3g}"),
    ]


def _method(row: Row) -> str:
    """Return what a row trains by: its objective; all shards together make the steps of one model."""
    return "sharded" if row.start == "shards" else str(row.objective["name"])


def taken(config: Config, dataset: Dataset, device: str) -> Taken:
    """Make a few steps of a row's config on random items, of each kind that it has, and return what all would take."""
    objective = OBJECTIVES.build(config.objective)
    objective.replay = min(objective.replay, REPLAYS)
    kinds = [objective.uses_forget(step) for step in range(config.training.steps)]
    # Of each kind a step after the first, in which the optimiser makes its moments.
    few = 1 + max(kinds.index(kind, 1) if kind in kinds[1:] else 1 for kind in set(kinds))
    size = max(config.training.batch_size, config.training.forget_batch_size or 0, 16)
    kept = max(size, min(len(dataset), BANK))
    items, part = random_items(dataset, kept + size), Part(np.arange(kept), np.arange(kept, kept + size))
    settings = replace(
        config.training, steps=few, log_every=few, checkpoint_every=0, sample_every=0, keep_every=0, trackers=[]
    )
    model = prompted(ScoreModel.new(config.network, config.process, items.shape, config.seed), items)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "row")
        given = (config.seed, run, device, "dry run", config.request.means)
        trainer = Watched(model, objective, items, part, settings, *given)
        trainer.train()
    trained = sum(weight.numel() for weight in trainer.update.weights.values())
    held = trainer.model.parameter_count() + (HELD + 2 * len(trainer.update.optimisers)) * trained
    steps = {kind: kinds.count(kind) for kind in (True, False)}
    return Taken(model.parameter_count(), trained, held, steps, trainer.each)


def random_items(dataset: Dataset, count: int) -> Dataset:
    """Return ``count`` random items of the shape, levels and classes of a data set, with captions of its own items."""
    draws, shape = torch.Generator().manual_seed(0), (count, *dataset.shape)
    if dataset.levels is None:
        items = torch.randn(shape, generator=draws)
    else:
        items = torch.randint(0, dataset.levels, shape, generator=draws, dtype=torch.uint8)
    labels = None if dataset.labels is None else np.arange(count) % max(len(dataset.classes), 1)
    captions = np.resize(dataset.captions, (count, dataset.captions.shape[1]))
    return Dataset(
        dataset.name,
        items,
        dataset.shape,
        dataset.levels,
        labels,
        dataset.classes,
        prompts=dataset.prompts,
        captions=captions,
        named=dataset.named,
        flip=dataset.flip,
    )


class Watched(Trainer):
    """A trainer that records what its last step of each kind takes and does not fine-tune a teacher."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.each: dict[bool, Step] = {}

    def _tune_on_forget(self, steps: int, name: str = "", drop: float | None = None) -> ScoreModel:
        return copy.deepcopy(self.base)

    def _step(self, *of_step: Any) -> None:
        with FlopCounterMode(display=False) as counter:
            super()._step(*of_step)
        with Allocated() as memory:  # apart, as the counter of operations holds what a checkpoint would free
            super()._step(*of_step)
        began = time.perf_counter()
        super()._step(*of_step)
        finish(self.accelerator.device)
        uses_forget = self.objective.uses_forget(of_step[0])
        self.each[uses_forget] = Step(counter.get_total_flops(), memory.peak, time.perf_counter() - began)
