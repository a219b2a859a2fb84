r"""Influence: one damped Newton step from the weights that fit all items towards those that fit the retain items.

With L_f and L_r the denoising losses on the forget and the retain set, and p the forget set's share, training minimised
p L_f + (1 - p) L_r and retraining would minimise L_r. Removing the forget set changes the gradient by p (g_f - g_r), so

    theta = theta_0 + (G_r + damping I)^-1 p (g_f - g_r),

with G_r the Gauss-Newton matrix of L_r, solved by conjugate gradients through products with G_r alone. Where training
ended at its minimum, the right side is -g_r. For a network that is linear in its weights, trained with an l2 penalty of
damping / 2, the step is retraining; in others it is an approximation without a bound, and the damping shortens it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from msgm.checks import at_least, positive
from msgm.curvature import Weights, add_to, conjugate_gradients, curved, learnt, plain_attention
from msgm.diffusion.conditions import Condition
from msgm.diffusion.model import ScoreModel
from msgm.objectives.base import Card, Noised, mean_square
from msgm.objectives.edits.base import EDITS, Edit, EditSetup, Noisings
from msgm.ranges import Range, ranges
from msgm.solves import Solve


@EDITS.register("influence")
@dataclass
class Influence(Edit):
    """A Newton step on the whole network.

    Example:
        >>> edit = msgm.objectives.edits.Influence(damping=0.1, items=8, iterations=2)
        >>> made = msgm.edit(base, "digits", edit, msgm.ForgetRequest(labels=[3, 7]), batch_size=8)
        edit: influence on ...
        >>> sorted(edit.facts)
        ['changed_share', 'converged', 'distance', 'iterations', 'residual']

    Attributes:
        damping: added to the curvature's diagonal; shortens the step where the loss is flat.
        iterations: of conjugate gradients, at most.
        tolerance: relative residual at which these stop; above it the row says that they did not converge.
        items: items of each part that gradients and curvature are read from.
        levels: times at which each of them is noised.
    """

    damping: float = 1e-2
    iterations: int = 20
    tolerance: float = 1e-3
    items: int = 256
    levels: int = 4

    data = "retain+forget"
    search = ranges(damping=Range(1e-4, 10.0, log=True))
    card = Card(
        formula="theta_0 + (G_r + damping I)^-1 p (grad L_f - grad L_r), by conjugate gradients",
        source="Koh and Liang, ICML 2017, sec. 2; for unlearning: Izzo et al., AISTATS 2021; Jia et al., NeurIPS 2023",
        deviations=(
            "the Gauss-Newton matrix of the denoising loss by conjugate gradients, where published code has a rank-one "
            "recursion over gradients; gradients and curvature are those of drawn times and noises; dropout is off"
        ),
    )

    def __post_init__(self) -> None:
        positive(self, "edit", "damping", "tolerance")
        at_least(1, self, "edit", "iterations", "items", "levels")

    def change(self, model: ScoreModel, setup: EditSetup) -> None:
        forget, retain = (
            Noisings(model.process, setup.items(part, self.items), self.levels, setup.seed)
            for part in ("forget", "retain")
        )
        removed = setup.forget_share * (mean_gradient(model, forget) - mean_gradient(model, retain))
        step, used, residual = conjugate_gradients(
            lambda vector: gauss_newton(model, retain, vector) + self.damping * vector,
            removed,
            self.iterations,
            self.tolerance,
        )
        add_to(learnt(model.network), step)
        solve = Solve(residual, self.tolerance, used)
        self.facts |= {"iterations": used, "residual": residual, "converged": solve.converged}


def mean_gradient(model: ScoreModel, batches: Noisings) -> Tensor:
    """Return the gradient of the mean denoising loss over all noised items, (d,)."""
    weights, count = [p for p in model.network.parameters() if p.requires_grad], len(batches)
    total = [torch.zeros_like(weight) for weight in weights]
    for batch in batches:
        loss = mean_square(model.eps(batch.x, batch.t, batch.condition) - batch.eps).sum() / count
        for value, gradient in zip(total, torch.autograd.grad(loss, weights, materialize_grads=True), strict=True):
            value += gradient
    return torch.cat([value.flatten() for value in total])


def gauss_newton(model: ScoreModel, batches: Noisings, vector: Tensor) -> Tensor:
    """Return G v of the mean denoising loss over all noised items, (d,)."""
    weights, total, count = learnt(model.network), torch.zeros_like(vector), 0
    for batch in batches:

        def outputs(values: Weights, batch: Noised = batch) -> Tensor:
            return model.with_network(AtWeights(model.network, values)).eps(batch.x, batch.t, batch.condition)

        dims = batch.x[0].numel()
        with plain_attention():
            total += 2 / dims * curved(outputs, weights, vector, lambda _, moved: moved)
        count += len(batch.x)
    return total / count


class AtWeights(nn.Module):
    """A network that is called with other weights than its own, to which derivatives lead.

    Args:
        network: whose buffers and settings are read.
        weights: its parameters by name.
    """

    def __init__(self, network: nn.Module, weights: Weights) -> None:
        super().__init__()
        self.network, self.weights = network, weights

    def forward(self, *read: Tensor | Condition) -> Tensor:
        """Call the network with ``read``."""
        out: Tensor = functional_call(self.network, self.weights | dict(self.network.named_buffers()), read)
        return out
