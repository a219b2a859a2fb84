r"""Distance between a model's score and those of retrained models, by noise level.

At level rho, y = x_0 + rho z of real items x_0 and drawn noise z, common to all models, two models differ by

    d(rho) = mean |eps(y, rho) - eps'(y, rho)|^2

over items and dimensions. Over levels it is integrated,

    int d(rho) d ln rho

which, times the number of dimensions, is the Kullback-Leibler divergence between the two models' reverse diffusions
that are started at y (Girsanov: (1/2) int g^2 |s - s'|^2 dt, as g^2 dt = 2 sigma^2 d ln rho), and of two Gaussians of
one variance exactly that between them. It is taken at items to forget and, apart, at held-out items to retain.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.checks import at_least
from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import Condition, ScoreModel
from msgm.diffusion.samplers import Noise, sigma_space
from msgm.errors import UserError
from msgm.evaluation.asking import own
from msgm.evaluation.attacks.base import cell
from msgm.evaluation.attacks.inference import held_out, in_batches
from msgm.evaluation.attacks.levels import check_levels
from msgm.evaluation.attacks.retrained import NO_VALUE, BesideRetrained, Compared, beside, columns_of
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.seeding import generator
from msgm.splits import Split

SECTION = "evaluation.options.score-distance"
HEADINGS = {"forget": "score distance forget", "retain": "score distance retain"}


def _by_level(found: dict[str, Any]) -> str:
    tree = found["compared"][HEADINGS["forget"]]
    if tree["value"] is None:
        return NO_VALUE
    pairs = tree["by_model"].values()
    return " / ".join(f"{value:.2g}" for value in np.mean([pair["by_level"] for pair in pairs], axis=0))


@METRICS.register("score-distance")
@dataclass(frozen=True)
class ScoreDistance(BesideRetrained):
    """Mean squared difference of predicted noise from each retrained model's, integrated over noise levels.

    Example:
        >>> found = ScoreDistance(levels=[0.5, 2.0], items=10).measure(subject)["score_distance"]["compared"]
        >>> list(found)
        ['score distance forget', 'score distance retain']
        >>> found["score distance forget"]["least"] > 0
        True

    Attributes:
        levels: rising noise levels rho = sigma / a, two or more, between which the integral is taken.
        items: items to forget, and as many to retain, at most, drawn at random when there are more.
    """

    key = "score_distance"
    on_weights = True
    columns = [  # noqa: RUF012
        *columns_of(key, dict.fromkeys(HEADINGS.values(), ".3g")),
        Column("score distance forget, by level", "", cell(key, _by_level)),
    ]

    levels: list[float] = field(default_factory=lambda: [0.1, 0.17, 0.28, 0.46, 0.77, 1.3, 2.2, 3.6, 6.0, 10.0])
    items: int = 200

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "items")
        if len(self.levels) < 2 or any(one >= other for one, other in pairwise(self.levels)):
            raise UserError(f"{SECTION}.levels must be two rising numbers or more, got {self.levels}.")

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        super().check(config, dataset, split)
        check_levels(self.levels, config, SECTION)

    def compared(self, subject: Subject, other: Subject) -> Compared:
        return {
            HEADINGS[part]: self._apart(subject, other, indices) for part, indices in self.points(subject.bench).items()
        }

    def _apart(self, subject: Subject, other: Subject, indices: NDArray[np.int64]) -> dict[str, Any]:
        found = gaps(subject.model, other.model, subject.bench, indices, self.levels)
        if not found.isfinite().all():
            return {"value": None, "n": len(indices)}
        return {"value": integral(found, self.levels), "n": len(indices), "by_level": found.tolist()}

    def points(self, bench: Bench) -> dict[str, NDArray[np.int64]]:
        """Return the positions of training items to forget and of held-out items to retain, where there are any."""
        forget = bench.dataset.distinct(bench.split.train.forget)
        found = {"forget": forget, "retain": held_out(bench.split, "retain")}
        return {part: _drawn(indices, self.items, bench) for part, indices in found.items() if len(indices)}

    def protocol(self, bench: Bench) -> dict[str, str]:
        return {
            "score distance": "integral of the mean squared difference of predicted noise over ln (sigma / a), from "
            f"{min(self.levels):g} to {max(self.levels):g} by trapezoids between {len(self.levels)} levels, at most "
            f"{self.items} training items to forget and as many held-out items to retain, one draw of noise a level, "
            "common to all rows of a seed: times the dimensions the Kullback-Leibler divergence of reverse diffusions "
            f"started there, in nats; {beside(bench)}"
        }


def _drawn(indices: NDArray[np.int64], count: int, bench: Bench) -> NDArray[np.int64]:
    order = torch.randperm(len(indices), generator=generator(bench.config.seed, "score-distance-items"))
    return indices[order[:count].numpy()]


def gaps(model: ScoreModel, other: ScoreModel, bench: Bench, indices: NDArray[np.int64], levels: list[float]) -> Tensor:
    """Return the mean squared difference of two models' predicted noise at items, (levels,) in float64 on the CPU.

    Item i's noise depends on (seed, i) alone, so that all models of a seed are compared with common noise.
    """
    other.network.eval()

    def apart(x0: Tensor, batch: NDArray[np.int64], asked: Condition | None) -> Tensor:
        noise = Noise(bench.config.seed, batch.tolist(), model.shape, model.device, "score-distance")
        one, two = sigma_space(model, asked), sigma_space(other, own(other, bench.dataset, batch))
        found = []
        for level in levels:
            y = x0 + level * noise()
            found.append((one(y, level) - two(y, level)).double().square().flatten(1).mean(1))
        return torch.stack(found, 1)

    return in_batches(model, bench, indices, apart).mean(0)


def integral(values: Tensor, levels: list[float]) -> float:
    """Return the integral of (levels,) values over the logarithm of rising levels, by trapezoids."""
    return float(torch.trapezoid(values, torch.tensor(levels, dtype=torch.float64).log()))
