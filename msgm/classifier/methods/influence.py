r"""Influence: Newton steps from the weights that fit all items towards those that fit the retain items.

Training minimised L(theta) = mean CE + (w / 2) |theta|^2 over all items, w the weight decay; retraining would minimise
L_r, the same over the retain items. One step is theta + (G_r + (w + damping) I)^-1 v with v = grad L(theta_0) -
grad L_r(theta) and G_r the Gauss-Newton matrix of L_r, solved by conjugate gradients through products with G_r alone.
The gradient that training left over, grad L(theta_0), is no part of the request, so v is zero if nothing is forgotten.

For logistic regression (network ``linear``) trained to its optimum G_r is the exact Hessian: one step has an error of
second order in the share forgotten, and further steps converge to the retrained optimum. In deeper networks the step
is an approximation, without a bound.
"""

from dataclasses import dataclass

import torch
from torch import nn

from msgm.checks import at_least, positive
from msgm.classifier.data import Examples, Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Method, Settings
from msgm.classifier.methods.curvature import gauss_newton, mean_gradient
from msgm.curvature import add_to, conjugate_gradients, flatten, weights_of
from msgm.ranges import Range, ranges
from msgm.solves import Solve, worst


@METHODS.register("influence")
@dataclass(frozen=True)
class Influence(Method):
    """Newton steps on the whole network.

    Example:
        >>> made = msgm.classifier.Influence().forget(network, data, {"labels": [2]})

    Attributes:
        steps: Newton steps.
        damping: added to the curvature's diagonal; shortens the step where the loss is flat.
        iterations: of conjugate gradients, at most, a step.
        tolerance: relative residual at which these stop; above it the row says that they did not converge.
        items: retain items that curvature is read from, drawn anew each step; None for all.
    """

    steps: int = 1
    damping: float = 1e-3
    iterations: int = 20
    tolerance: float = 1e-3
    items: int | None = None

    search = ranges(damping=Range(1e-5, 1.0, log=True))
    card = Card(
        formula="theta + (G_r + (w + damping) I)^-1 (grad L(theta_0) - grad L_r(theta)), by conjugate gradients",
        source="Koh and Liang, ICML 2017, sec. 2; as unlearning: Izzo et al., AISTATS 2021; Jia et al., NeurIPS 2023",
        needs=("forget", "retain"),
        family="approximate update",
        deviations=(
            "the Gauss-Newton matrix by conjugate gradients, where published code has a rank-one recursion over 1000 "
            "items' gradients; a damping, chosen on digits' tuning items, instead of a searched step size"
        ),
    )

    def __post_init__(self) -> None:
        at_least(1, self, "methods", "steps", "iterations", "items")
        positive(self, "methods", "damping", "tolerance")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        model.eval()
        decay = settings.training.weight_decay
        goal = _gradient(model, split.train, decay, settings.device)
        ledger.saw(len(split.train))
        solves = []
        for step in range(self.steps):
            right = goal - _gradient(model, split.retain, decay, settings.device)
            curved = self._curved(split.retain, settings.seed, step)
            product = gauss_newton(model, curved, settings.device)
            change, used, residual = conjugate_gradients(
                lambda v, product=product: product(v) + (decay + self.damping) * v,  # type: ignore[misc]
                right,
                self.iterations,
                self.tolerance,
            )
            add_to(weights_of(model), change)
            solves.append(Solve(residual, self.tolerance, used))
            ledger.saw(len(split.retain) + (used + 1) * len(curved))
        reached = worst(solves)
        ledger.artefacts |= {"iterations": reached.steps, "residual": reached.residual, "solve": reached.facts()}
        ledger.artefacts["step_norm"] = change.norm().item()
        return model

    def _curved(self, retain: Examples, seed: int, step: int) -> Examples:
        if self.items is None or self.items >= len(retain):
            return retain
        return retain.drawn(self.items, seed, self.name, step)


def _gradient(model: nn.Module, examples: Examples, decay: float, device: torch.device) -> torch.Tensor:
    return mean_gradient(model, examples, device) + decay * flatten(weights_of(model))
