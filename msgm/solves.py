"""What an iterative solver reached: the relative residual |b - A u| / |b|, and whether it is as small as was asked for.

The residual is computed by one product more than the solver takes. The value that conjugate gradients carry along is a
recurrence, from which rounding departs: in single precision it may say 7e-7 where 6e-3 is true.
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
        tolerance: that was asked for.
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
    """Return what a fit of scikit-learn's gives.

    Raises:
        RunError: it stopped at its number of iterations: what it says of others is then no finding.
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return fit()
        except ConvergenceWarning as error:
            raise RunError(f"{what} did not converge: {str(error).splitlines()[0]}") from error


def worst(solves: Iterable[Solve]) -> Solve:
    """Return the solve that stays farthest behind its tolerance, with the steps of all."""
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
