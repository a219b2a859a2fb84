"""Whether samples repeat training items: distances to the nearest ones, beside those of held-out items.

A sample that lies nearer to the training items than held-out real items do may be memorised (compare the data-copying
test of Meehan et al., arXiv 2004.05675). The measure is that of ``reality``: Euclidean, in pixels, which sees copies
but neither shifted nor recoloured ones; a blurred average lies near many items too.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm import traces
from msgm.checks import at_least
from msgm.data import dequantise
from msgm.evaluation.attacks.base import Attack, sample_count
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, NOT_MEASURED, Column, Report, Row
from msgm.evaluation.metrics.unlearning_ratio import percent
from msgm.evaluation.rates import rate
from msgm.evaluation.reality import Reality
from msgm.folders import write_bytes
from msgm.pictures import to_png

SECTION = "evaluation.options.neighbours"
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95)
NEAR = (0.01, 0.05)
PICTURE = "neighbours.png"


def _nearer(part: str, row: Row, _: Report) -> str:
    share = row["neighbours"][part]["nearer"]
    if share is None:
        return NOT_MEASURED
    five = share["0.05"]
    return f"{percent(five['value'])} [{percent(five['low'])}, {percent(five['high'])}]"


@METRICS.register("neighbours")
@dataclass(frozen=True)
class Neighbours(Attack):
    """Nearest training items of samples, of the retain set (a redirect's bank too) and of the forget set.

    Example:
        >>> found = Neighbours(samples=10).measure(subject)["neighbours"]
        >>> found["n"], found["retain"]["samples"]["0.5"] > found["retain"]["control"]["0.5"]
        (10, True)

    Attributes:
        samples: samples whose distances are taken, at most ``evaluation.samples``.
        shown: samples in the picture, each above its nearest item to forget and to retain: the first ones.
    """

    key = "neighbours"
    table = "Memorisation"
    columns = [  # noqa: RUF012
        Column("nearer to retain items than 95% of held-out ones %", "lower", lambda r, o: _nearer("retain", r, o)),
        Column("nearer to forget items than 95% of held-out ones %", "", lambda r, o: _nearer("forget", r, o)),
    ]

    samples: int = 1000
    shown: int = 12

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "samples", "shown")

    def attack(self, subject: Subject) -> dict[str, Any]:
        bench, count = subject.bench, sample_count(self.samples, subject.bench)
        items = subject.items[:count][subject.finite[:count]]
        found = {part: _beside_control(items, bench, part) for part in ("retain", "forget")}
        return {"n": len(items), "picture": self._picture(subject), **found}

    def protocol(self, bench: Bench) -> dict[str, str]:
        count = sample_count(self.samples, bench)
        return {
            "neighbours": f"distance in pixels of {count} samples to the nearest training item, beside that of "
            "validation and test items of the same set; of a model that copies nothing about 5% lie nearer than 95% of "
            "those"
        }

    def _picture(self, subject: Subject) -> str | None:
        """Write samples, their nearest items to forget and those to retain, a line each; return the file's name."""
        dataset, train = subject.bench.dataset, subject.bench.split.train
        chosen = subject.items[: self.shown]
        if subject.folder is None or dataset.levels is None:
            return None
        lines = [chosen, *(_nearest_items(chosen, subject.bench, part) for part in (train.forget, train.retain))]
        strip = dequantise(torch.cat(lines), dataset.levels)
        folder = Path(subject.folder)
        traces.register(folder, folder / PICTURE, *traces.KNOWN[PICTURE])
        write_bytes(folder / PICTURE, to_png(strip, dataset.levels, columns=len(chosen)))
        return PICTURE


def _bank(bench: Bench, indices: NDArray[np.int64]) -> Reality:
    """Return the distances to some training items alone."""
    return replace(bench.reality, bank=bench.dataset.take(indices).to(bench.reality.bank.device))


def _nearest_items(items: Tensor, bench: Bench, indices: NDArray[np.int64]) -> Tensor:
    _, numbers = _bank(bench, indices).nearest(items)
    return bench.dataset.take(indices[numbers.numpy()])


def _beside_control(items: Tensor, bench: Bench, part: str) -> dict[str, Any]:
    """Return the distances of samples and of held-out items to a part of the training items.

    ``nearer`` holds the shares of samples below the control's quantiles; null without held-out items or samples.
    """
    split = bench.split
    bank = _bank(bench, getattr(split.train, part))
    held_out = np.concatenate([getattr(p, part) for p in (split.validation, split.test)])
    distances = bank.distances(items) if len(items) else torch.empty(0)
    control = bank.distances(bench.dataset.take(held_out)) if len(held_out) else torch.empty(0)
    return {
        "samples": _quantiles(distances),
        "control": _quantiles(control),
        "control_n": len(control),
        "nearer": _shares(distances, control) if len(distances) and len(control) else None,
    }


def _quantiles(distances: Tensor) -> dict[str, float] | None:
    if not len(distances):
        return None
    return {str(q): torch.quantile(distances, q).item() for q in QUANTILES}


def _shares(distances: Tensor, control: Tensor) -> dict[str, Any]:
    return {str(q): rate(int((distances < torch.quantile(control, q)).sum()), len(distances)) for q in NEAR}
