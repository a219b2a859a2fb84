"""The three-Gaussian toy of arXiv 2412.07229, Figure 1: its scores and likelihoods have closed forms.

The paper prints the weights (4/5, 2/5, 4/5), which sum to 2; here they are (.4, .2, .4).
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from msgm.checks import at_least
from msgm.data.base import DATASETS, Dataset, DataSettings
from msgm.errors import UserError


@DATASETS.register("gaussians")
@dataclass
class Gaussians(DataSettings):
    """A mixture of Gaussians of unit covariance in the plane; the label is the component.

    Example:
        >>> points = Gaussians(count=100, weights=[0.2, 0.3, 0.5]).load()
        >>> points.items.shape, points.classes
        (torch.Size([100, 2]), ['0', '1', '2'])

    Attributes:
        count: number of points drawn.
        means: one (x, y) a component.
        weights: shares of the components; they must sum to 1.
        draw_seed: seed of the points.
    """

    count: int = 20_000
    means: list[list[float]] = field(default_factory=lambda: [[-2.0, -2.0], [0.0, 0.0], [2.0, 2.0]])
    weights: list[float] = field(default_factory=lambda: [0.4, 0.2, 0.4])
    draw_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "data", "count")
        at_least(0, self, "data", "draw_seed")
        if not all(len(mean) == 2 and all(map(math.isfinite, mean)) for mean in self.means):
            raise UserError(f"data.means: expected one [x, y] a component, got {self.means}.")
        fitting = len(self.weights) == len(self.means) and abs(sum(self.weights) - 1) <= 1e-9
        if not fitting or min(self.weights) < 0:
            raise UserError(
                f"data.weights: expected {len(self.means)} shares that sum to 1, none negative, got {self.weights}."
            )

    def load(self) -> Dataset:
        """Draw the points."""
        rng = np.random.default_rng(self.draw_seed)
        labels = rng.choice(len(self.means), size=self.count, p=self.weights)
        points = np.asarray(self.means)[labels] + rng.standard_normal((self.count, 2))
        return Dataset(
            name=self.name,
            items=torch.from_numpy(points.astype(np.float32)),
            shape=(2,),
            levels=None,
            labels=labels.astype(np.int64),
            classes=[str(k) for k in range(len(self.means))],
        )
