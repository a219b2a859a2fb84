r"""Mask generators of Forsaken: trainable maps phi -> m, one number m_j for every weight theta_j of a classifier.

All begin at m = 0 and measure m in units of the root mean square r of each weight tensor, so that one learning rate
suits all tensors. A unit is a row of a weight tensor (an output neuron, a filter), or one entry of a bias.

- layerwise: for unit u, (a_u, b_u) = MLP(ln mean|w|, ln mean|g|, ln mean F, which tensor) with one MLP for all units;
  m_u = a_u w_u - b_u r g_u / rms(g). Here w are the weights, g the gradient of the loss on the forget set, F the
  importance for retained items; rms is over the tensor. The first term scales a neuron, the second turns it from what
  the forget set wants.
- dense: m = r MLP(theta, mean output on the forget set), 64 hidden units: as the method is described in secondary
  material, and usable for small networks only.
- direct: m = r phi, the mask itself free.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from msgm.errors import UserError
from msgm.seeding import generator

Weights = Mapping[str, Tensor]
Kind = Literal["layerwise", "dense", "direct"]
DENSE_LIMIT = 200_000
TINY = 1e-12


class Layerwise(nn.Module):
    """One small MLP for all units: its size does not grow with the network."""

    features: Tensor

    def __init__(self, weights: Weights, gradients: Weights, importances: Weights, seed: int, hidden: int = 16) -> None:
        """Read the units' features.

        Args:
            weights: of the original model, by name.
            gradients: of the loss on the forget set.
            importances: of the weights for retained items, not negative.
            seed: of the MLP's first weights.
            hidden: units of the MLP.
        """
        super().__init__()
        self.scaling = dict(weights)
        self.turning = {name: -g * rms(weights[name]) / rms(g) for name, g in gradients.items()}
        self.counts = [len(rows(w)) for w in weights.values()]
        sizes = torch.cat([_sizes(*(v[name] for v in (weights, gradients, importances))) for name in weights])
        tensor = torch.repeat_interleave(torch.arange(len(self.counts)), torch.tensor(self.counts))
        which = nn.functional.one_hot(tensor).to(sizes)
        standard = (sizes - sizes.mean(0)) / sizes.std(0, unbiased=False).clamp_min(1e-6)
        self.register_buffer("features", torch.cat([standard, which], 1))
        self.mlp = _mlp(self.features.shape[1], hidden, 2, seed).to(sizes.device)

    def forward(self) -> dict[str, Tensor]:
        """Return the mask by the names of the weights."""
        parts = self.mlp(self.features).split(self.counts)
        return {
            name: (c[:, :1] * rows(self.scaling[name]) + c[:, 1:] * rows(self.turning[name])).view_as(
                self.scaling[name]
            )
            for name, c in zip(self.scaling, parts, strict=True)
        }


class Dense(nn.Module):
    """One MLP from all weights to all entries of the mask."""

    inputs: Tensor
    unit: Tensor

    def __init__(self, weights: Weights, output: Tensor, seed: int, hidden: int = 64) -> None:
        """Store the weights and the mean output as the MLP's input.

        Args:
            weights: of the original model, by name; fewer than ``DENSE_LIMIT`` numbers.
            output: (C,) mean softmax on the forget set.
            seed: of the MLP's first weights.
            hidden: units of the MLP.

        Raises:
            UserError: too many weights: the MLP has 2 x ``hidden`` weights for each.
        """
        super().__init__()
        count = sum(w.numel() for w in weights.values())
        if count >= DENSE_LIMIT:
            raise UserError(
                f"methods.generator: dense is for networks of fewer than {DENSE_LIMIT:,} weights, and this one has "
                f"{count:,}; use layerwise."
            )
        self.shapes = {name: w.shape for name, w in weights.items()}
        self.register_buffer("inputs", torch.cat([*(w.flatten() for w in weights.values()), output]))
        self.register_buffer("unit", torch.cat([rms(w).expand(w.numel()) for w in weights.values()]))
        self.mlp = _mlp(len(self.inputs), hidden, count, seed).to(self.inputs.device)

    def forward(self) -> dict[str, Tensor]:
        """Return the mask by the names of the weights."""
        mask = self.unit * self.mlp(self.inputs)
        parts = mask.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


class Direct(nn.Module):
    """The mask as free variables."""

    def __init__(self, weights: Weights) -> None:
        """Start with a mask of zeros."""
        super().__init__()
        self.units = {name: rms(w) for name, w in weights.items()}
        self.free = nn.ParameterList([torch.zeros_like(w) for w in weights.values()])

    def forward(self) -> dict[str, Tensor]:
        """Return the mask by the names of the weights."""
        return {name: unit * m for (name, unit), m in zip(self.units.items(), self.free, strict=True)}


def rms(values: Tensor) -> Tensor:
    """Return the root mean square, above zero."""
    return values.square().mean().sqrt().clamp_min(TINY)


def rows(values: Tensor) -> Tensor:
    """Return a tensor as (units, numbers of each)."""
    return values.reshape(values.shape[0] if values.dim() else 1, -1)


def _sizes(*values: Tensor) -> Tensor:
    """Return (units, len(values)) logarithms of mean absolute values."""
    return torch.stack([rows(v).abs().mean(1).clamp_min(TINY).log() for v in values], 1)


def _mlp(inputs: int, hidden: int, outputs: int, seed: int) -> nn.Sequential:
    """Return an MLP that puts out zeros until it is trained; its other weights are drawn from ``seed``."""
    # Made without drawing weights, which would move torch's global generator.
    first, last = (nn.utils.skip_init(nn.Linear, *size) for size in ((inputs, hidden), (hidden, outputs)))
    with torch.no_grad():
        draws = torch.randn(first.weight.shape, generator=generator(seed, "generator"))
        first.weight.copy_(draws / inputs**0.5)
        for zero in (first.bias, last.weight, last.bias):
            zero.zero_()
    return nn.Sequential(first, nn.ReLU(), last)
