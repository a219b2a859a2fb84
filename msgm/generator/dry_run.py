"""``msgm compare --dry-run`` of generators: what each row would take, from two training steps on random items.

Every row is built as its run builds it (network, objective, preparation, optimiser), on random items of the data's
shape in a temporary folder. Counted are the floating-point operations of a step, the bytes that are held whatever the
batch (weights, gradients, the two moments of Adam, the average), and the bytes that a step saves for its backward pass.
Fine-tuning of a frozen teacher, which some objectives ask for, is left out.
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
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from msgm.config import BASE_ROW, Config, Row
from msgm.data import Dataset
from msgm.devices import finish
from msgm.diffusion import ScoreModel
from msgm.objectives import OBJECTIVES
from msgm.runs import Run
from msgm.splits import Part
from msgm.tables import Table
from msgm.training.run import new_model
from msgm.training.trainer import Trainer

HELD = 5
"""Numbers held for each weight: itself, its gradient, two moments and its average."""
HEAD = [
    *("row", "start", "objective", "steps", "weights", "GFLOP a step", "TFLOP in all"),
    *("MiB held", "MiB a step", "seconds a step"),
]


@dataclass(frozen=True)
class Step:
    """What one training step takes.

    Attributes:
        weights: numbers that the network has.
        flop: floating-point operations, of the backward pass too.
        saved: bytes that are kept for the backward pass.
        seconds: on this machine.
    """

    weights: int
    flop: int
    saved: int
    seconds: float


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
    lines = []
    for name in [BASE_ROW, *(name for name in names if name != BASE_ROW)]:
        row = config.rows[name]
        if not row.objective:
            continue
        if name != BASE_ROW and row.start not in ("scratch", "finetune"):
            continue
        lines.append(_line(name, row, config, measured_step(config.for_row(row), dataset, device)))
    sampling = f"{config.evaluation.samples} samples a row, {config.sampling.sampler} in {config.sampling.steps} steps"
    notes = [
        f"seeds: {config.seeds}; retrained models: {config.retrains}; measuring is not counted: {sampling}",
        "MiB held: weights, gradients, moments and average; MiB a step: what one process saves for the backward pass",
    ]
    return Table(f"{config.name}: a dry run on random items, nothing was written", HEAD, lines, notes)


def _line(name: str, row: Row, config: Config, step: Step) -> list[str]:
    settings = config.row_training(row)
    return [
        *(name, row.start, str(row.objective["name"]), str(settings.steps), f"{step.weights:,}"),
        *(f"{step.flop / 1e9:.3g}", f"{step.flop * settings.steps / 1e12:.3g}"),
        *(f"{HELD * 4 * step.weights / 2**20:.1f}", f"{step.saved / 2**20:.1f}", f"{step.seconds:.3g}"),
    ]


def measured_step(config: Config, dataset: Dataset, device: str) -> Step:
    """Make two steps of a row's config on random items and return what the second takes."""
    size = max(config.training.batch_size, config.training.forget_batch_size or 0, 16)
    items = random_items(dataset, 2 * size)
    part = Part(np.arange(size), np.arange(size, 2 * size))
    settings = replace(config.training, steps=2, log_every=2, checkpoint_every=0, sample_every=0)
    settings = replace(settings, keep_every=0, trackers=[])
    model = new_model(config, items)
    with tempfile.TemporaryDirectory() as folder:
        run, objective = Run(Path(folder) / "row"), OBJECTIVES.build(config.objective)
        trainer = Watched(model, objective, items, part, settings, config.seed, run, device, "dry run")
        trainer.train()
    return replace(trainer.last, weights=model.parameter_count())


def random_items(dataset: Dataset, count: int) -> Dataset:
    """Return ``count`` random items of the shape, levels and classes of a data set."""
    draws, shape = torch.Generator().manual_seed(0), (count, *dataset.shape)
    if dataset.levels is None:
        items = torch.randn(shape, generator=draws)
    else:
        items = torch.randint(0, dataset.levels, shape, generator=draws, dtype=torch.uint8)
    labels = None if dataset.labels is None else np.arange(count) % max(len(dataset.classes), 1)
    return Dataset(dataset.name, items, dataset.shape, dataset.levels, labels, dataset.classes, flip=dataset.flip)


class Watched(Trainer):
    """A trainer that records what its last step takes and does not fine-tune a teacher."""

    last = Step(0, 0, 0, 0.0)

    def _tune_on_forget(self, steps: int) -> ScoreModel:
        return copy.deepcopy(self.model)

    def _step(self, *of_step: Any) -> None:
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        counter = FlopCounterMode(display=False)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), counter:
            super()._step(*of_step)
        saved = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        kept.clear()
        began = time.perf_counter()
        super()._step(*of_step)
        finish(self.accelerator.device)
        self.last = Step(0, counter.get_total_flops(), saved, time.perf_counter() - began)
