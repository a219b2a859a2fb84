r"""Matched controls: members are compared only with non-members of the same stratum.

If a user's items are easier than other users' by d standard deviations, a membership attack against all users' items
has an AUC of Phi(d / sqrt 2) even if the model never saw his items: .638 at d = .5. Within a stratum (the same class
and source, the same user) members and controls differ only in membership, and the AUC of a model that saw neither is
.5.

In a stratum of m members and n controls each control weighs m / n, so that both sides have the same strata in the same
shares. Members of a stratum without controls are left out; ``Controls.unmatched`` counts them.

    AUC       sum over members i and controls j of w_j ([s_i > s_j] + [s_i = s_j] / 2), over m sum w_j
    TPR at f  the share of members above all controls but the highest, which have a share f of the weight
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Codes = NDArray[np.int64]
Side = Literal["left", "right"]
ROUNDING = 1e-9
"""Sums of weights that differ by less than this share are equal."""


@dataclass(frozen=True, eq=False)
class Controls:
    """The matching of members and controls: which members have controls, and the weights of the controls.

    Attributes:
        matched: (m,) which members have a control.
        weights: (n,) of the others; 0 for one that is no member's control.
    """

    matched: Mask
    weights: Floats

    @property
    def used(self) -> Mask:
        """(n,) mask of the others that are a control."""
        return self.weights > 0

    @property
    def unmatched(self) -> int:
        """The number of members without a control."""
        return int((~self.matched).sum())

    def auc(self, members: Floats, others: Floats) -> float | None:
        """Return the AUC of members' (m,) scores against their controls among (n,); None without controls."""
        return auc(members[self.matched], others[self.used], self.weights[self.used])

    def mean(self, others: Floats | Mask) -> float | None:
        """Return the weighted mean of the controls' values among (n,); None without controls."""
        return float(np.average(others, weights=self.weights)) if self.used.any() else None


def controls(members: Codes, others: Codes) -> Controls:
    """Return the controls of members of strata (m,) among others of strata (n,)."""
    first = np.arange(len(members) + len(others)) < len(members)
    kept, weights = balanced(np.concatenate([members, others]), first)
    return Controls(kept[first], weights[~first])


def balanced(strata: Codes, first: Mask) -> tuple[Mask, Floats]:
    """Return a mask of the (n,) things whose stratum holds both kinds, and weights that give both the same strata.

    Things of the first kind weigh 1, those of the second n_first / n_second of their stratum.
    """
    _, number = np.unique(strata, return_inverse=True)
    size = int(number.max(initial=-1)) + 1
    ones, others = (np.bincount(number[kind], minlength=size) for kind in (first, ~first))
    weights = np.where(first, 1.0, (ones / np.maximum(others, 1))[number])
    return np.asarray(((ones > 0) & (others > 0))[number]), weights


def auc(members: Floats, others: Floats, weights: Floats | None = None) -> float | None:
    """Return the weighted share of pairs in which the member has the higher score, ties counting half.

    Args:
        members: (m,) scores.
        others: (n,) scores.
        weights: (n,) of the others, above 0; all 1 by default.

    Returns:
        A number in [0, 1], .5 by chance; None where a side is empty.
    """
    if not len(members) or not len(others):
        return None
    weights = np.ones(len(others)) if weights is None else weights
    twice = weight_below(members, others, weights) + weight_below(members, others, weights, "right")
    return float(twice.mean() / (2 * weights.sum()))


def weight_below(values: Floats, others: Floats, weights: Floats, side: Side = "left") -> Floats:
    """Return the weight of the others that are lower than each of ``values``; by ``right``, lower or equal."""
    order = np.argsort(others, kind="stable")
    sums = np.append(0.0, np.cumsum(weights[order]))
    return np.asarray(sums[np.searchsorted(others[order], values, side)])


def tpr_at(members: Floats, others: Floats, fpr: float, weights: Floats | None = None) -> float | None:
    """Return the share of members above all but a share ``fpr`` of the others' weight.

    Where the curve passes a group of tied scores it is a straight line. Where the first of
    the others weighs more than ``fpr`` of all, no false positive is allowed, ties aside.

    Args:
        members: (m,) scores.
        others: (n,) scores.
        fpr: the share of false positives, in [0, 1).
        weights: (n,) of the others, above 0; all 1 by default.

    Returns:
        A number in [0, 1]; None where a side is empty.
    """
    if not len(members) or not len(others):
        return None
    weights = np.ones(len(others)) if weights is None else weights
    allowed, order = fpr * weights.sum(), np.argsort(-others, kind="stable")
    reached = np.searchsorted(np.cumsum(weights[order]), allowed + ROUNDING * weights.sum(), "right")
    threshold = others[order[min(int(reached), len(others) - 1)]]
    above, tied = weights[others > threshold].sum(), weights[others == threshold].sum()
    among = (members == threshold).sum() * max(allowed - above, 0.0) / tied
    return float(((members > threshold).sum() + among) / len(members))
