r"""Several attributes: erase each separately, then combine the changes with weights that hide all attributes.

With E_a the embeddings after the erasure of attribute a alone,

    E' = E + sum_a w_a (E_a - E),    w_a in [0, 1],

and w minimises the class means that are left. With D_a(X) the (C_a, d) deviations of attribute a's class means, times
the roots of the classes' shares, which are linear in X,

    leak(w) = sum_a |D_a(E')|^2 / |D_a(E)|^2,

a quadratic form. ``convex`` requires sum_a w_a = 1, as LEGO (ACM MM 2025) does; each erasure is then applied only in
part and each class mean keeps about 1 - w_a of its distance. Without it every erasure can be applied in full.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.errors import RunError, UserError
from msgm.fields import Settings
from msgm.recommender.attributes.base import ERASURES, Card, Context, Erasure
from msgm.recommender.attributes.labels import Labels


@ERASURES.register("combined")
@dataclass(frozen=True)
class Combined(Erasure):
    """Erase attributes one by one and combine.

    Example:
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> attributes = {"plan": plans, "region": np.array(["north", "south"]).repeat(30)}
        >>> each = Combined(erasure={"name": "leace"})
        >>> each.erase(model.user_factors, attributes, Context(model.item_factors)).shape
        (60, 8)

    Attributes:
        erasure: the erasure of each, by its name and settings.
        convex: whether the weights sum to 1.
    """

    erasure: Settings = field(default_factory=lambda: {"name": "distribution"})
    convex: bool = False

    card = Card(
        "E + sum_a w_a (E_a - E), w by the class means that are left",
        "LEGO, ACM MM 2025, from its abstract",
        deviations=(
            "any erasure calibrates; the distance of class means is what the weights minimise, in place of a bound on "
            "mutual information; weights need not sum to 1, unless ``convex``"
        ),
    )

    def __post_init__(self) -> None:
        if self.erasure.get("name") == self.name:
            raise UserError("erasure.erasure.name: combined cannot combine itself.")
        ERASURES.build(self.erasure, "erasure.erasure")  # refuses what is wrong before anything is fitted

    def _erase(self, embeddings: NDArray[Any], labels: list[Labels], context: Context) -> NDArray[Any]:
        each = ERASURES.build(self.erasure)
        original = embeddings.astype(np.float64)
        changes = np.stack([each.erase(embeddings, _texts(one), context) - original for one in labels])
        weights = mixing_weights(original, changes, labels, self.convex)
        return np.asarray(original + np.tensordot(weights, changes, axes=1))


def _texts(labels: Labels) -> Mapping[str, NDArray[np.str_]]:
    return {labels.name: np.array([*labels.values, ""])[labels.codes]}


def mixing_weights(
    original: NDArray[np.float64], changes: NDArray[np.float64], labels: list[Labels], convex: bool
) -> NDArray[np.float64]:
    """Return (A,) weights in [0, 1] of the (A, U, d) changes that leave least of the A attributes' class means."""
    from scipy.optimize import minimize

    target, design = [], []
    for one in labels:
        left = _deviations(original, one)
        size = max(float(np.linalg.norm(left)), np.finfo(float).tiny)
        target.append(left.ravel() / size)
        design.append(np.stack([_deviations(change, one).ravel() / size for change in changes], axis=1))
    start, effect = np.concatenate(target), np.concatenate(design)

    def leak(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        rest = start + effect @ weights
        return float(rest @ rest), 2 * effect.T @ rest

    count = len(changes)
    constraint = [{"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(count)}] if convex else []
    first = np.full(count, 1 / count)
    found = minimize(leak, first, jac=True, bounds=[(0, 1)] * count, constraints=constraint, method="SLSQP")
    if not found.success:
        raise RunError(f"combined: the weights of the changes did not converge: {found.message}.")
    return np.clip(np.asarray(found.x), 0, 1)


def _deviations(rows: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    """Return (C, d) deviations of the class means, times the roots of the classes' shares."""
    members, known = labels.members(), rows[labels.known]
    means = np.stack([rows[of].mean(0) for of in members]) - known.mean(0)
    return np.asarray(np.sqrt([[len(of) / len(known)] for of in members]) * means)
