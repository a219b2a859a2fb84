r"""What second-order methods of every domain share: weights as vectors, curvature, and a solver.

The Gauss-Newton matrix of a loss l(z_i) of outputs z_i is G = mean_i J_i^T H_i J_i, with J_i the Jacobian of item i's
outputs and H_i the Hessian of l at them. It is positive semi-definite wherever l is convex, and is the Hessian where
the outputs are linear in the weights. The Hessian of a deeper network is indefinite, where conjugate gradients break
down.

Flat vectors hold the weights in the order of ``named_parameters``.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

Weights = dict[str, Tensor]
BATCH = 256
# Gradients by item hold one copy of the weights each: so many numbers at most at once.
NUMBERS = 2**26


def weights_of(model: nn.Module) -> Weights:
    """Return the model's parameters by name, detached."""
    return {name: value.detach() for name, value in model.named_parameters()}


def learnt(model: nn.Module) -> Weights:
    """Return the parameters that are trained by name, detached: no text encoder that stands still, for one."""
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def items_at_once(model: nn.Module) -> int:
    """Return how many items' gradients are held at once, from 1 to ``BATCH``."""
    return max(1, min(BATCH, NUMBERS // sum(value.numel() for value in model.parameters())))


def flatten(weights: Mapping[str, Tensor]) -> Tensor:
    """Return all weights as one vector."""
    return torch.cat([value.flatten() for value in weights.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> Weights:
    """Return a vector in the names and shapes of ``like``."""
    parts = vector.split([value.numel() for value in like.values()])
    return {name: part.view_as(value) for (name, value), part in zip(like.items(), parts, strict=True)}


def add_to(weights: Weights, vector: Tensor) -> None:
    """Add a flat vector to weights, in place."""
    for name, change in unflatten(vector, weights).items():
        weights[name].add_(change)


def curved(
    outputs: Callable[[Weights], Tensor], weights: Weights, vector: Tensor, bend: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return J^T H J v of one batch's outputs, as a flat vector.

    Args:
        outputs: from weights to the outputs z.
        weights: theta.
        vector: (d,) v.
        bend: ``bend(z, J v)`` is H J v, H the Hessian of the batch's loss at z.
    """
    z, moved = jvp(outputs, (weights,), (unflatten(vector, weights),))  # type: ignore[misc]
    return flatten(vjp(outputs, weights)[1](bend(z, moved))[0]).detach()


@contextmanager
def plain_attention() -> Iterator[None]:
    """Compute attention by its formula: fused kernels have no forward derivatives."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], right: Tensor, iterations: int, tolerance: float
) -> tuple[Tensor, int, float]:
    """Solve A u = right for a positive definite A (Hestenes and Stiefel 1952).

    Args:
        product: v -> A v.
        right: (d,).
        iterations: at most so many steps of a product each; one product more gives the residual.
        tolerance: stop once |right - A u| <= tolerance |right|, by the recurrence.

    Returns:
        u, the number of steps, and the true |right - A u| / |right| (0 for a right side of zeros). The solver stops
        where rounding makes A seem not positive definite.
    """
    solution, residual = torch.zeros_like(right), right.clone()
    direction, square = residual.clone(), residual.dot(residual).item()
    start, used = square, 0
    while used < iterations and square > tolerance**2 * start:
        image = product(direction)
        used += 1
        curvature = direction.dot(image).item()
        if not curvature > 0:
            break
        length = square / curvature
        solution += length * direction
        residual -= length * image
        previous, square = square, residual.dot(residual).item()
        direction = residual + square / previous * direction
    left = (right - product(solution)).norm() / right.norm() if start else torch.zeros(())
    return solution, used, left.item()


@torch.no_grad()
def dampen(
    model: nn.Module, forget: Mapping[str, Tensor], everything: Mapping[str, Tensor], alpha: float, dampening: float
) -> float:
    """Multiply weights where I(forget) > alpha I(all) by min(dampening I(all) / I(forget), 1), in place.

    This is selective synaptic dampening (Foster et al., AAAI 2024).

    Args:
        model: whose weights shrink.
        forget: importances to the forget set; weights without any stay.
        everything: importances to all training data.
        alpha: how many times as important to the forget set a weight must be to be selected.
        dampening: lambda; smaller shrinks more.

    Returns:
        The share of selected weights, in [0, 1].
    """
    selected, weights = 0, {name: value for name, value in weights_of(model).items() if name in forget}
    for name, value in weights.items():
        chosen = forget[name] > alpha * everything[name]
        factor = (dampening * everything[name] / forget[name].clamp_min(torch.finfo(value.dtype).tiny)).clamp_max(1)
        value.copy_(torch.where(chosen, value * factor, value))
        selected += int(chosen.sum())
    return selected / sum(value.numel() for value in weights.values())
