"""How a likelihood is integrated: solver, steps, probes and repeats."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from msgm.checks import at_least, below_one, positive
from msgm.diffusion.augmented import heun, runge_kutta_4
from msgm.errors import UserError, nearest

Solver = Literal["heun", "rk4", "dopri5"]
STEPS = {"heun": (heun, 2), "rk4": (runge_kutta_4, 4)}
"""The solvers of fixed steps, each with its evaluations a step."""


@dataclass
class LikelihoodSettings:
    """How to integrate, and over how many draws to average.

    Example:
        >>> settings = msgm.diffusion.LikelihoodSettings(solver="heun", steps=2)
        >>> msgm.log_likelihood(base, torch.zeros(3, 1, 8, 8), settings).shape
        torch.Size([3])

    Attributes:
        solver: ``heun`` (2 evaluations a step), ``rk4`` (4), or the adaptive ``dopri5``.
        steps: fixed steps in ln rho from t_min to the process's top; ``dopri5`` does not read it.
        tolerance: relative and absolute tolerance of ``dopri5``; the others do not read it.
        probes: Hutchinson probes an item.
        repeats: draws of dequantisation noise and of probes that an item's value is the mean of.
        exact_dims: the divergence is exact up to this many dimensions.
        batch_size: items at a time; it does not change the values. ``dopri5`` evaluates ``adaptive.PASS`` at a time.
        error_items: items, the first ones, on which fixed steps are halved in the first repeat to estimate their error;
            0 estimates none. ``dopri5`` keeps its tolerance and does not read it.
    """

    solver: Solver = "rk4"
    steps: int = 25
    tolerance: float = 1e-5
    probes: int = 1
    repeats: int = 1
    exact_dims: int = 16
    batch_size: int = 500
    error_items: int = 16

    def __post_init__(self) -> None:
        section = "evaluation.likelihood"
        if self.solver not in get_args(Solver):
            known = list(get_args(Solver))
            hint = nearest(self.solver, known)
            raise UserError(f"{section}.solver: unknown solver {self.solver!r}; known: {', '.join(known)}.{hint}")
        at_least(1, self, section, "steps", "probes", "repeats", "batch_size")
        at_least(0, self, section, "exact_dims", "error_items")
        positive(self, section, "tolerance")
        below_one(self, section, "tolerance")

    @property
    def evaluations(self) -> int | None:
        """Network evaluations an item and a repeat; None where the solver decides them."""
        return None if self.solver == "dopri5" else self.steps * STEPS[self.solver][1]

    @property
    def passes(self) -> int:
        """Calls of ``watch`` per batch and repeat: one a step, or one in all where the solver chooses its steps."""
        return 1 if self.solver == "dopri5" else self.steps

    @property
    def halved(self) -> "LikelihoodSettings | None":
        """The same settings with half the steps, for the error estimate; None if there is none."""
        if self.evaluations is None or self.steps < 2 or not self.error_items:
            return None
        return replace(self, steps=self.steps // 2)

    def is_exact(self, dims: int) -> bool:
        """Return whether the divergence is exact."""
        return dims <= self.exact_dims

    def is_drawn(self, dims: int, levels: int | None) -> bool:
        """Return whether anything is drawn, dequantisation noise or probes, so that repeats differ."""
        return levels is not None or not self.is_exact(dims)

    def describe(self, dims: int, levels: int | None = None) -> str:
        """Return the protocol in a few words; ``levels`` is None for vectors."""
        cost = f"{self.evaluations} evaluations" if self.evaluations else f"tolerance {self.tolerance:g}"
        trace = "exact divergence" if self.is_exact(dims) else f"{self.probes} Rademacher probe(s)"
        mean = f", mean of {self.repeats} repeats" if self.repeats > 1 and self.is_drawn(dims, levels) else ""
        return f"PF-ODE, {self.solver}, {cost}, {trace}{mean}"
