r"""Refitting the head: the last layer is solved anew on the retain set alone, in closed form.

The prediction is affine in the last layer's weights, eps_theta = o + c (W phi + b), with phi the layer's input, and o
and c what the model makes of its network's output. Over retain items at drawn times,

    W, b = argmin  mean_i |o_i + c_i (W phi_i + b) - eps_i|^2 + ridge * (mean square of c phi) * |W|^2,

by normal equations in double precision. The layer is then what it would be had it been trained on the retain set alone,
on top of these features; the features themselves still come from training on all items.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msgm.checks import at_least
from msgm.diffusion.model import ScoreModel
from msgm.errors import UserError
from msgm.objectives.base import Card, Noised, mean_square
from msgm.objectives.edits.base import EDITS, Edit, EditSetup, Noisings, in_double
from msgm.ranges import Range, ranges

Head = nn.Linear | nn.Conv2d
ENTRIES = 2**24
"""Entries of a matrix of features held in memory at a time: 128 MiB in float64."""


@EDITS.register("refit-head")
@dataclass
class RefitHead(Edit):
    """The last layer, refitted by ridge regression on retain items.

    Example:
        >>> edit = msgm.objectives.edits.RefitHead(items=16)
        >>> made = msgm.edit(base, "digits", edit, msgm.ForgetRequest(labels=[3, 7]), batch_size=8)
        edit: refit-head on ...
        >>> edit.facts["loss_after"] < edit.facts["loss_before"]
        True

    Attributes:
        ridge: weight of the penalty on W, as a share of the features' mean square; 0 leaves it out.
        items: retain items that it is fitted to.
        levels: times at which each of them is noised.
    """

    ridge: float = 1e-4
    items: int = 2048
    levels: int = 8

    data = "retain"
    search = ranges(ridge=Range(1e-8, 1.0, log=True))
    card = Card(
        formula=(
            "W, b = argmin mean |o + c (W phi + b) - eps|^2 + ridge * mean (c phi)^2 * |W|^2 over noised retain items"
        ),
        source="ridge regression; linear heads of fixed features as in Guo et al., ICML 2020, section 3.3",
        deviations="the features stay as they are, and were trained on the items to forget too",
    )

    def __post_init__(self) -> None:
        at_least(0, self, "edit", "ridge")
        at_least(1, self, "edit", "items", "levels")

    @torch.no_grad()
    def change(self, model: ScoreModel, setup: EditSetup) -> None:
        batches = Noisings(model.process, setup.items("retain", self.items), self.levels, setup.seed)
        head = last_layer(model, next(iter(batches)))
        self.facts["loss_before"] = _loss(model, batches)
        weight, bias = self._solved(model, head, batches)
        assert head.bias is not None
        head.weight[: len(bias)] = weight  # a network that learns its variance has more rows
        head.bias[: len(bias)] = bias
        self.facts["loss_after"] = _loss(model, batches)

    def _solved(self, model: ScoreModel, head: Head, batches: Noisings) -> tuple[Tensor, Tensor]:
        """Return the weights and the bias that solve the regression."""
        gram, moment = _normal_equations(model, head, batches)
        penalty = torch.full_like(gram[0], self.ridge * gram.diagonal()[:-1].mean().item())
        penalty[-1] = 0.0  # of the bias
        # Least squares: where features depend on each other, the solution of least norm.
        solution = torch.linalg.lstsq(gram + penalty.diag(), moment, driver="gelsd").solution
        return solution[:-1].T.reshape(-1, *head.weight.shape[1:]), solution[-1]


def last_layer(model: ScoreModel, batch: Noised) -> nn.Linear | nn.Conv2d:
    """Return the layer whose output is the network's.

    Raises:
        UserError: there is none, or it is no linear layer or plain convolution with a bias.
    """
    called: list[tuple[nn.Module, Tensor]] = []
    seen: list[Tensor] = []
    layers = [layer for layer in model.network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda layer, _, out: called.append((layer, out))) for layer in layers]
    hooks.append(model.network.register_forward_hook(lambda _, __, out: seen.append(out)))
    try:
        model.eps(batch.x[:1], batch.t[:1], None if batch.condition is None else batch.condition[:1])
    finally:
        for hook in hooks:
            hook.remove()
    head, out = called[-1] if called else (None, None)
    fits = head is not None and out is not None and torch.equal(_cropped(out, seen[-1]), seen[-1])
    if isinstance(head, nn.Linear | nn.Conv2d) and fits and head.bias is not None and _plain(head):
        return head
    raise UserError(
        "edit.name: refit-head needs a network whose output is that of a linear layer or of a convolution, with a bias "
        "and without stride, groups or dilation."
    )


def _plain(head: Head) -> bool:
    if isinstance(head, nn.Linear):
        return True
    padded = isinstance(head.padding, tuple) and head.padding_mode == "zeros"
    return padded and (head.stride, head.dilation, head.groups) == ((1, 1), (1, 1), 1)


def _cropped(out: Tensor, like: Tensor) -> Tensor:
    """Return a layer's output without the pixels that pad it and without channels that are no prediction."""
    return out[:, : like.shape[1], : like.shape[2], : like.shape[3]] if out.dim() == 4 else out


def _normal_equations(model: ScoreModel, head: Head, batches: Noisings) -> tuple[Tensor, Tensor]:
    """Return the sums of features' products with each other (k + 1, k + 1) and with targets (k + 1, m), on the CPU."""
    gram = moment = torch.zeros(())
    for batch in batches:
        for features, target in _regression(model, head, batch):
            gram, moment = gram + (features.T @ features).cpu(), moment + (features.T @ target).cpu()
    return gram, moment


def _regression(model: ScoreModel, head: Head, batch: Noised) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a batch's least squares in float64: features (n, k + 1), the bias' column last, and targets (n, m).

    An image has as many rows as pixels, so only as many images as ``ENTRIES`` allows are unfolded at a time.
    """
    offset, slope = _affine(model, batch)
    with _inputs(head) as read:
        model.eps(batch.x, batch.t, batch.condition)
    target = batch.eps - offset
    target = target.flatten(2).transpose(1, 2) if target.dim() == 4 else target[:, None]
    size = max(1, ENTRIES // (target.shape[1] * (head.weight[0].numel() + 1)))
    cut = (part.split(size) for part in (read[-1], batch.x, slope, target))
    for block, x, factor, wanted in zip(*cut, strict=True):
        phi = _unfolded(head, block, x)
        phi = torch.cat([phi, torch.ones_like(phi[..., :1])], dim=-1)
        yield in_double((phi * factor).flatten(0, 1)), in_double(wanted.flatten(0, 1))


def _affine(model: ScoreModel, batch: Noised) -> tuple[Tensor, Tensor]:
    """Return o, shaped like x, and c, (B, 1, 1), of eps_theta = o + c * (the network's output)."""
    zero, one = (model.with_network(_Constant(value)).eps(batch.x, batch.t) for value in (0.0, 1.0))
    return zero, (one - zero).flatten(1)[:, :1, None]


class _Constant(nn.Module):
    """A network whose output is one number everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor, *read: Tensor) -> Tensor:
        return torch.full_like(x, self.value)


@contextmanager
def _inputs(head: Head) -> Iterator[list[Tensor]]:
    """Yield a list to which every input of ``head`` is added."""
    read: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        yield read
    finally:
        hook.remove()


def _unfolded(head: Head, read: Tensor, x: Tensor) -> Tensor:
    """Return the numbers that each place of the output is a linear function of, (B, places, k)."""
    if isinstance(head, nn.Linear):
        return read[:, None]
    padding = [int(side) for side in head.padding]
    columns = F.unfold(read, head.kernel_size, padding=tuple(padding))
    height, width = (read.shape[i + 2] + 2 * padding[i] - head.kernel_size[i] + 1 for i in range(2))
    grid = columns.view(*columns.shape[:2], height, width)
    return grid[..., : x.shape[-2], : x.shape[-1]].flatten(2).transpose(1, 2)


def _loss(model: ScoreModel, batches: Noisings) -> float:
    losses = torch.cat([mean_square(model.eps(batch.x, batch.t, batch.condition) - batch.eps) for batch in batches])
    return losses.mean().item()
