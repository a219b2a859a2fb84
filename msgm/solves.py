"""Results of iterative solvers: the relative residual |b - A u| / |b|, and whether it is within the tolerance.

The residual is computed explicitly, by one more product. Conjugate gradients update it by a recurrence that drifts
through rounding: in single precision it may be 7e-7 where the true residual is 6e-3.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from msgm.errors import RunError

Fitted = TypeVar("Fitted")
ITERATIONS = 10_000
"""Of a logistic regression, at most: many times what it takes on standardised features."""


@dataclass(frozen=True)
class Solve:
    """One solve, or the worst of several.

    Attributes:
        residual: the true relative residual, 0 and up; NaN where the solver broke down.
        tolerance: the requested tolerance.
        steps: iterations, of all solves together.
    """

    residual: float
    tolerance: float
    steps: int

    @property
    def converged(self) -> bool:
        """Whether the residual is within the tolerance."""
        return self.residual <= self.tolerance

    def facts(self) -> dict[str, Any]:
        """Return it as JSON values, for a record."""
        known = math.isfinite(self.residual)
        return {
            "residual": self.residual if known else None,
            "tolerance": self.tolerance,
            "steps": self.steps,
            "converged": self.converged,
        }


def fitted(fit: Callable[[], Fitted], what: str) -> Fitted:
    """Return the result of a scikit-learn fit, refusing one that did not converge.

    Raises:
        RunError: it stopped at its maximal number of iterations, so that its predictions cannot be used.
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return fit()
        except ConvergenceWarning as error:
            raise RunError(f"{what} did not converge: {str(error).splitlines()[0]}") from error


def worst(solves: Iterable[Solve]) -> Solve:
    """Return the solve with the largest residual relative to its tolerance, with the steps of all."""
    found = list(solves)
    behind = max(found, key=lambda one: math.inf if math.isnan(one.residual) else one.residual / one.tolerance)
    return Solve(behind.residual, behind.tolerance, sum(one.steps for one in found))


def of_runs(facts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``solve``, the worst among the facts of several runs, and ``converged``; Nones without any."""
    trees = [each["solve"] for each in facts if each.get("solve")]
    if not trees:
        return {"solve": None, "converged": None}
    found = worst(
        Solve(math.nan if tree["residual"] is None else tree["residual"], tree["tolerance"], tree["steps"])
        for tree in trees
    )
    return {"solve": found.facts(), "converged": found.converged}
