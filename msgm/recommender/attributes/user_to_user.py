r"""User-to-user (U2U): draw users of different classes together; the minimum in closed form.

With A, B the classes of one attribute and P the number of pairs of users of different classes,

    U2U = 1/P sum_{A<B} sum_{i in A, j in B} |e_i - e_j|^2
        = 1/P sum_{A<B} (n_B sum_A |e|^2 + n_A sum_B |e|^2 - 2 (sum_A e) . (sum_B e)),

which costs O(U d), not O(U^2 d). What is minimised over the n users with a value is

    U2U + weight / n sum_i c_i |e_i - e0_i|_M^2,

e0 the embeddings given and |.|_M as in ``closeness``. It is quadratic. Along an eigenvector of M with eigenvalue g,
with m_A = n - n_A and k_A = weight c_A P g / n, the derivative m_A e_i - (T - s_A) + k_A (e_i - e0_i) is zero at

    e_i = (k_A e0_i + T - s_A) / (m_A + k_A)  for i in A,    s_A = (k_A S_A + n_A T) / (n + k_A),
    T = n sum_A k_A S_A / (n + k_A)  /  sum_A k_A n_A / (n + k_A),

where s_A and S_A are the sums of e and e0 over A, and T = sum_A s_A; all of them are coordinates along the eigenvector.

U2U hides little. Every user is drawn to the mean of the other classes, so each class shrinks along with the distance
between classes: with two classes that distance, in units of a class's standard deviation, falls at most by a factor of
2 however small the weight, and attackers who standardise their inputs lose little. Worse, with c = 1, as in the source,
users of the smaller class are in more pairs and shrink more, which tells their class to every attacker that is not
linear. ``balanced`` takes c_A in proportion to m_A, so that all shrink alike, by k / (1 + k), k = weight g / 2.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.checks import positive
from msgm.ranges import Range, ranges
from msgm.recommender.attributes.base import ERASURES, Card, Context, Erasure
from msgm.recommender.attributes.closeness import Space, closeness
from msgm.recommender.attributes.labels import Labels

FLAT = 1e-12
"""Least eigenvalue of M, next to the largest: directions that no score sees are erased whole."""


@ERASURES.register("user-to-user")
@dataclass(frozen=True)
class UserToUser(Erasure):
    """U2U with a penalty on the change; users without a value stay as they are.

    Example:
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> erased = UserToUser(weight=1.0).erase(model.user_factors, {"plan": plans}, Context(model.item_factors))
        >>> codes = (plans == "b").astype(int)
        >>> user_to_user(erased, codes) < user_to_user(model.user_factors, codes)
        True

    Attributes:
        weight: of the penalty; smaller erases, and changes, more.
        space: ``function`` penalises changed scores, ``parameter`` changed embeddings.
        balanced: whether the penalty weighs users by the pairs that they are in.
    """

    weight: float = 10.0
    space: Space = "function"
    balanced: bool = True

    search = ranges(weight=Range(0.5, 200.0, log=True))
    card = Card(
        "U2U + weight |change|_M^2, minimised exactly",
        "Li et al., post-training attribute unlearning, arXiv 2310.05847 (U2U-R); function space: its TOIS 2024 sequel",
        deviations=(
            "the exact minimum where the source takes gradient steps; both terms are means, so that weights do not "
            "depend on the number of users; all user-item pairs where function space samples; the penalty weighs users "
            "by their pairs unless ``balanced: false``"
        ),
    )
    several = False

    def __post_init__(self) -> None:
        positive(self, "erasure", "weight")

    def _erase(self, embeddings: NDArray[Any], labels: list[Labels], context: Context) -> NDArray[Any]:
        (one,) = labels
        erased = embeddings.astype(np.float64)
        rows, codes = erased[one.known], one.codes[one.known]
        curvature, axes = np.linalg.eigh(closeness(rows, context.items, self.space))
        curvature = np.maximum(curvature, FLAT * curvature[-1])
        sizes = np.bincount(codes)[:, None]
        apart = len(rows) - sizes
        pull = apart / 2 if self.balanced else (sizes * apart).sum() / 2 / len(rows)
        penalties = np.broadcast_to(self.weight * curvature * pull, (len(sizes), len(curvature)))
        erased[one.known] = _minimum(rows @ axes, codes, penalties) @ axes.T
        return erased


def _minimum(rows: NDArray[np.float64], codes: NDArray[np.int64], k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n, d) minimum along the eigenvectors; ``k`` (C, d) is k_A of every class and eigenvector."""
    n, sizes, sums = len(rows), np.bincount(codes)[:, None], _class_sums(rows, codes)
    total = n * (k * sums / (n + k)).sum(0) / (k * sizes / (n + k)).sum(0)
    moved = (k * sums + sizes * total) / (n + k)
    return np.asarray((k[codes] * rows + (total - moved)[codes]) / (n - sizes + k)[codes])


def _class_sums(rows: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.stack([rows[codes == code].sum(0, dtype=np.float64) for code in range(codes.max() + 1)])


def user_to_user(rows: NDArray[Any], codes: NDArray[np.int64]) -> float:
    """Return U2U of (n, d) rows with (n,) class numbers from 0: a mean squared distance, from 0 on; O(n d)."""
    sizes, sums = np.bincount(codes), _class_sums(rows, codes)
    squares = np.bincount(codes, (rows.astype(np.float64) ** 2).sum(1))
    pairs = (len(rows) ** 2 - (sizes**2).sum()) / 2
    crossed = (sums.sum(0) ** 2).sum() - (sums**2).sum()
    return float((((len(rows) - sizes) * squares).sum() - crossed) / pairs)
