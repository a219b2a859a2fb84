"""Mean gradients and mean squared gradients of the denoising loss, by weight: what masks, anchors and edits read.

The loss of an item is the mean of (eps_theta - eps)^2 over its D dimensions and over ``levels`` times, one from each of
as many equal parts of the path. Squares are of the gradient of ``batch`` items together; with one item, the default,
their mean is the empirical Fisher diagonal of that loss (but for a factor). Squares of the gradients of larger batches,
as SFR-on's released code takes them, are smaller by up to the size of the batch, for independent gradients cancel.

Times and noise of an item depend on the seed and on its place among the items alone, so a pass can be repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from msgm.devices import WITHOUT_FLOAT64
from msgm.diffusion.conditions import Condition
from msgm.diffusion.model import ScoreModel, per_item
from msgm.seeding import generator

TINY = 1e-15
"""Added to both mean squares of a ratio, as in SFR-on's code."""


@dataclass(frozen=True)
class Moments:
    """Mean gradient and mean squared gradient, by the name of the weight.

    Example:
        >>> items = torch.rand(4, 1, 8, 8)
        >>> found = msgm.objectives.moments(msgm.ScoreModel.new("unet", channels=[8]), items, levels=2)
        >>> found.count, all(bool((square >= 0).all()) for square in found.square.values())
        (4, True)

    Attributes:
        mean: mean gradient of the loss, in float32.
        square: mean of squared gradients, likewise.
        count: how many gradients were squared.
    """

    mean: Mapping[str, Tensor]
    square: Mapping[str, Tensor]
    count: int


def moments(
    model: ScoreModel,
    items: Tensor,
    levels: int = 10,
    batch: int = 1,
    seed: int = 0,
    condition: Condition | None = None,
) -> Moments:
    """Return the moments of the gradient of ``model``'s denoising loss at ``items``.

    The network is in eval mode meanwhile, and all weights that may be trained take part, also those that are not.

    Example:
        >>> model = msgm.ScoreModel.new("mlp", "vp", shape=(2,))
        >>> whole = msgm.objectives.moments(model, torch.randn(6, 2))
        >>> together = msgm.objectives.moments(model, torch.randn(6, 2), batch=3)
        >>> whole.count, together.count
        (6, 2)

    Args:
        model: whose gradients.
        items: (N, *shape) clean items.
        levels: times of each item.
        batch: items whose mean loss is differentiated at a time.
        seed: of times and noise.
        condition: of the items.
    """
    network = model.network
    training, trained = network.training, {name: w.requires_grad for name, w in network.named_parameters()}
    network.eval().requires_grad_(True)
    weights = {name: w for name, w in network.named_parameters() if w.requires_grad}
    sums = {name: torch.zeros(2, *w.shape, dtype=_widest(w), device=w.device) for name, w in weights.items()}
    groups = items.split(batch)
    try:
        for number, group in enumerate(groups):
            rows = torch.arange(number * batch, number * batch + len(group))
            loss = _loss(model, group, rows, levels, seed, None if condition is None else condition[rows])
            for name, gradient in zip(weights, _gradients(loss, list(weights.values())), strict=True):
                sums[name][0] += gradient
                sums[name][1] += gradient.to(sums[name].dtype).square()
    finally:
        network.train(training)
        for name, weight in network.named_parameters():
            weight.requires_grad_(trained[name])
    found = {name: (both / max(len(groups), 1)).float() for name, both in sums.items()}
    return Moments({k: v[0] for k, v in found.items()}, {k: v[1] for k, v in found.items()}, len(groups))


def fisher_ratio(forget: Mapping[str, Tensor], retain: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the ratio of two parts' mean squared gradients, by weight; 1 for a weight that matters to neither."""
    return {name: (square + TINY) / (retain[name] + TINY) for name, square in forget.items()}


def _loss(
    model: ScoreModel, items: Tensor, places: Tensor, levels: int, seed: int, condition: Condition | None
) -> Tensor:
    """Return the mean loss of a few items, which have these places among all."""
    device = model.device
    parts = torch.arange(levels, device=device)
    times, noises = [], []
    for place in places.tolist():
        draws = generator(seed, "moments", place, device=device)
        times.append((parts + torch.rand(levels, generator=draws, device=device)) / levels)
        noises.append(torch.randn(levels, *items.shape[1:], generator=draws, device=device))
    t, eps = model.process.training_times(torch.cat(times)), torch.cat(noises)
    clean = items.to(device).repeat_interleave(levels, 0)
    x = per_item(model.process.signal(t), clean) * clean + per_item(model.process.noise(t), clean) * eps
    asked = None if condition is None else condition[torch.arange(len(items)).repeat_interleave(levels)].to(device)
    return (model.eps(x, t, asked) - eps).square().mean()


def _gradients(loss: Tensor, weights: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]


def _widest(weight: Tensor) -> torch.dtype:
    """Return float64 where the device has it."""
    return torch.float32 if weight.device.type in WITHOUT_FLOAT64 else torch.float64
