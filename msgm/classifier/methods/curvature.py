r"""Derivatives of the cross-entropy that classifiers' second-order methods share.

Its Gauss-Newton matrix is G = mean_i J_i^T (diag p_i - p_i p_i^T) J_i, with J_i the Jacobian of item i's logits and p_i
its probabilities; it is the Fisher information. Models are read in eval mode. See ``msgm.curvature``.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from msgm.classifier.data import Examples
from msgm.curvature import BATCH, Weights, curved, weights_of


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

    def bend(z: Tensor, moved: Tensor) -> Tensor:
        p = z.softmax(1)
        return p * (moved - (p * moved).sum(1, keepdim=True))

    def product(vector: Tensor) -> Tensor:
        total = torch.zeros_like(vector)
        for x, _ in examples.batches(BATCH, device=device):

            def out(values: Weights, x: Tensor = x) -> Tensor:
                return functional_call(model, (values, buffers), (x,))

            total += curved(out, weights, vector, bend)
        return total / len(examples)

    return product
