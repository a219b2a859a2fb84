r"""Derivatives that the second-order methods share: squared gradients by item, curvature products and their solver.

The cross-entropy's Gauss-Newton matrix is G = mean_i J_i^T (diag p_i - p_i p_i^T) J_i, with J_i the Jacobian of item
i's logits and p_i its probabilities. It is the Fisher information, is positive semi-definite in every network, and is
the Hessian where the logits are linear in the weights. The Hessian of a deeper network is indefinite, where conjugate
gradients break down.

Models are read in eval mode. Flat vectors hold the weights in the order of ``named_parameters``.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp, vmap

from msgm.classifier.data import Examples

Weights = dict[str, Tensor]
BATCH = 256
# Gradients by item hold one copy of the weights each: so many numbers at most at once.
NUMBERS = 2**26


def weights_of(model: nn.Module) -> Weights:
    """Return the model's parameters by name, detached."""
    return {name: value.detach() for name, value in model.named_parameters()}


def items_at_once(model: nn.Module) -> int:
    """Return how many items' gradients are held at once, from 1 to ``BATCH``."""
    return max(1, min(BATCH, NUMBERS // sum(value.numel() for value in model.parameters())))


def squared_gradients(model: nn.Module, x: Tensor, y: Tensor, shares: Tensor) -> Weights:
    """Return sum_i s_i (d CE(x_i, y_i) / d theta)^2, element by element, in the shapes of the weights.

    Args:
        model: in eval mode.
        x: (B, *shape) inputs.
        y: (B,) classes.
        shares: (B,) factors s_i.
    """
    buffers = dict(model.named_buffers())

    def loss(weights: Weights, item: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, (weights, buffers), (item[None],)), label[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))(weights_of(model), x, y)
    return {name: torch.einsum("b,b...->...", shares, value.square()) for name, value in each.items()}


def flatten(weights: Mapping[str, Tensor]) -> Tensor:
    """Return all weights as one vector."""
    return torch.cat([value.flatten() for value in weights.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> Weights:
    """Return a vector in the names and shapes of ``like``."""
    parts = vector.split([value.numel() for value in like.values()])
    return {name: part.view_as(value) for (name, value), part in zip(like.items(), parts, strict=True)}


@torch.no_grad()
def add_to(model: nn.Module, vector: Tensor) -> None:
    """Add a flat vector to the model's weights, in place."""
    changes = unflatten(vector, weights_of(model))
    for name, value in model.named_parameters():
        value.add_(changes[name])


def mean_gradient(model: nn.Module, examples: Examples, device: torch.device) -> Tensor:
    """Return the flat gradient of the mean cross-entropy."""
    total = torch.zeros(sum(value.numel() for value in model.parameters()), device=device)
    for x, y in examples.batches(BATCH, device=device):
        loss = F.cross_entropy(model(x), y, reduction="sum")
        total += torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    return total / len(examples)


def gauss_newton(model: nn.Module, examples: Examples, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the product v -> G v of the mean cross-entropy at the model's present weights."""
    weights, buffers = {name: value.clone() for name, value in weights_of(model).items()}, dict(model.named_buffers())

    def product(vector: Tensor) -> Tensor:
        total, tangent = torch.zeros_like(vector), unflatten(vector, weights)
        for x, _ in examples.batches(BATCH, device=device):

            def out(values: Weights, x: Tensor = x) -> Tensor:
                return functional_call(model, (values, buffers), (x,))

            z, moved = jvp(out, (weights,), (tangent,))  # type: ignore[misc]
            p = z.softmax(1)
            bent = p * (moved - (p * moved).sum(1, keepdim=True))
            total += flatten(vjp(out, weights)[1](bent)[0])
        return total.detach() / len(examples)

    return product


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
