r"""Distribution-to-distribution (D2D): make the distributions of the classes' embeddings alike, by mini-batched MMD.

    MMD^2(X, Y) = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j),
    k(a, b) = sum_{t = -2..2} exp(-|a - b|^2 / (2^t h)),    h the mean squared distance of the rows of both,

(Gretton et al., "A kernel two-sample test", JMLR 2012, Eq. 3, unbiased). Squared distances are |a|^2 + |b|^2 - 2 a.b, a
matrix product, with never an n x n x d tensor. What Adam minimises over the embeddings of users with a value is

    |D2D| + weight mean_i |e_i - e0_i|_M^2,

in every step: the unbiased MMD^2 of rows of one distribution is 0 on average, and pressing it lower would make classes
avoid each other, which an attacker can read as well. Here e0 are the embeddings given and |.|_M is as in ``closeness``.
``pairs``: D2D is the mean MMD^2 over pairs of classes. ``anchor``: the mean over the C classes of MMD^2 to one fixed
distribution, C terms where there are C (C - 1) / 2 pairs: that of e0 with users drawn so that classes weigh alike.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from msgm.checks import at_least, positive
from msgm.errors import UserError
from msgm.ranges import Range, ranges
from msgm.recommender.attributes.base import ERASURES, Card, Context, Erasure
from msgm.recommender.attributes.closeness import Space, closeness
from msgm.recommender.attributes.concept import labelled
from msgm.recommender.attributes.labels import Labels
from msgm.seeding import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


@ERASURES.register("distribution")
@dataclass(frozen=True)
class Distribution(Erasure):
    """D2D with a penalty on the change; several attributes add up; users without a value stay as they are.

    Example:
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> erasure = Distribution(weight=0.5, steps=10)
        >>> erasure.erase(model.user_factors, {"plan": plans}, Context(model.item_factors)).shape
        (60, 8)

    Attributes:
        weight: of the penalty; smaller erases, and changes, more.
        space: ``function`` penalises changed scores, ``parameter`` changed embeddings.
        match: ``pairs`` of classes, or every class with an ``anchor``.
        steps: of Adam.
        batch_size: users of a class in a step, at most; at least 2.
        learning_rate: of Adam, in units of the embeddings' root mean square.
    """

    weight: float = 1.0
    space: Space = "function"
    match: Literal["pairs", "anchor"] = "pairs"
    steps: int = 300
    batch_size: int = 128
    learning_rate: float = 0.02

    search = ranges(weight=Range(0.05, 50.0, log=True))
    card = Card(
        "mean MMD^2 of classes, or of classes and an anchor, + weight |change|_M^2",
        "Li et al., arXiv 2310.05847 (D2D-R); anchor and function space: its TOIS 2024 sequel",
        deviations=(
            "mini-batches; unbiased MMD, so that their mean is that of all users; its absolute value; the scores of "
            "the step's users with all items are held where the sequel samples pairs; the anchor is the original "
            "distribution with classes weighing alike"
        ),
    )

    def __post_init__(self) -> None:
        at_least(1, self, "erasure", "steps")
        at_least(2, self, "erasure", "batch_size")
        positive(self, "erasure", "weight", "learning_rate")

    def _erase(self, embeddings: NDArray[Any], labels: list[Labels], context: Context) -> NDArray[Any]:
        import torch

        _check_sizes(labels)
        known = labelled(labels)
        form = torch.from_numpy(closeness(embeddings[known], context.items, self.space)).float()
        scale = float(np.sqrt(np.mean(embeddings[known].astype(np.float64) ** 2)))
        # In units of the root mean square, so that the learning rate means the same for every model.
        original = torch.from_numpy(embeddings / scale).float()
        moved = original.clone().requires_grad_()
        optimiser = torch.optim.Adam([moved], lr=self.learning_rate, fused=True)
        for step in range(self.steps):
            draws = np.random.default_rng(derive_seed(context.seed, self.name, step))
            optimiser.zero_grad()
            self._loss(moved, original, labels, scale**2 * form, draws).backward()
            optimiser.step()
        erased = embeddings.copy()
        erased[known] = scale * moved.detach().numpy()[known]
        return erased

    def _loss(
        self, moved: "Tensor", original: "Tensor", labels: list[Labels], form: "Tensor", draws: np.random.Generator
    ) -> "Tensor":
        import torch

        batches = [[self._draw(members, draws) for members in each.members()] for each in labels]
        match = self._pairs if self.match == "pairs" else self._anchor
        spread = torch.stack([match(moved, original, of, draws) for of in batches]).abs().mean()
        users = torch.from_numpy(np.unique(np.concatenate([batch for of in batches for batch in of])))
        change = moved[users] - original[users]
        return spread + self.weight * ((change @ form) * change).sum(1).mean()

    def _draw(self, members: NDArray[np.int64], draws: np.random.Generator) -> NDArray[np.int64]:
        return draws.choice(members, min(self.batch_size, len(members)), replace=False)

    def _pairs(
        self, moved: "Tensor", original: "Tensor", batches: list[NDArray[np.int64]], draws: np.random.Generator
    ) -> "Tensor":
        import torch

        return torch.stack([mmd(moved[a], moved[b]) for a, b in combinations(batches, 2)]).mean()

    def _anchor(
        self, moved: "Tensor", original: "Tensor", batches: list[NDArray[np.int64]], draws: np.random.Generator
    ) -> "Tensor":
        import torch

        share = -(-self.batch_size // len(batches))
        anchor = original[np.concatenate([draws.permutation(batch)[:share] for batch in batches])]
        return torch.stack([mmd(moved[batch], anchor) for batch in batches]).mean()


def mmd(one: "Tensor", other: "Tensor") -> "Tensor":
    """Return the unbiased MMD^2 of (n, d) and (m, d) rows; around 0, also below, for equal distributions."""
    n, m = len(one), len(other)
    within, without, across = _squares(one, one), _squares(other, other), _squares(one, other)
    total = within.sum() + without.sum() + 2 * across.sum()
    # The bandwidth is a constant of the step: else spreading all rows out would pass for likeness.
    width = (total / ((n + m) * (n + m - 1))).detach().clamp_min(1e-12)
    return (
        (_kernel(within / width).sum() - n * len(BANDWIDTHS)) / (n * (n - 1))
        + (_kernel(without / width).sum() - m * len(BANDWIDTHS)) / (m * (m - 1))
        - 2 * _kernel(across / width).mean()
    )


def _squares(one: "Tensor", other: "Tensor") -> "Tensor":
    """Return (n, m) squared distances; of rows with themselves the diagonal is exactly 0."""
    squares = one.square().sum(1)[:, None] + other.square().sum(1) - 2 * one @ other.T
    return squares.clamp_min(0).fill_diagonal_(0) if one is other else squares.clamp_min(0)


def _kernel(squares: "Tensor") -> "Tensor":
    import torch

    return torch.stack([(-squares / width).exp() for width in BANDWIDTHS]).sum(0)


def _check_sizes(labels: list[Labels]) -> None:
    for each in labels:
        for value, members in zip(each.values, each.members(), strict=True):
            if len(members) < 2:
                raise UserError(
                    f"attribute {each.name!r}: the value {value!r} has {len(members)} user; distribution needs 2."
                )
