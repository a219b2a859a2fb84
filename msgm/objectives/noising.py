"""What a loss is made of: noised batches, the network's prediction, and named terms of per-sample values."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from msgm.diffusion.conditions import Condition
from msgm.diffusion.model import per_item
from msgm.diffusion.processes import Process


class Predict(Protocol):
    """The network's prediction of the noise, eps_theta (B, *shape); arguments as of ``ScoreModel.eps``."""

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return eps_theta."""


class Uniform(Protocol):
    """U(0, 1) numbers shaped like a batch's items, drawn for the global batch.

    A name always gives the same ones in a step, and another name others: what draws several times needs several names.
    """

    def __call__(self, name: str = "") -> Tensor:
        """Return the numbers (B, *shape) of a name."""


@dataclass(frozen=True)
class Noised:
    """A batch on the process's path: x = a x0 + sigma eps.

    Example:
        >>> x0, t = torch.zeros(4, 2), torch.full((4,), 0.5)
        >>> batch = msgm.objectives.noised(msgm.VP(), x0, t, torch.ones(4, 2))
        >>> torch.allclose(batch.x, batch.signal * x0 + batch.noise * batch.eps)
        True
        >>> torch.equal(batch.uniform("one"), batch.uniform("one"))
        True
        >>> torch.equal(batch.uniform("one"), batch.uniform("other"))
        False

    Attributes:
        x: (B, *shape) noised items.
        t: (B,) times.
        eps: (B, *shape) the noise in them.
        signal: a(t), shaped to broadcast over x.
        noise: sigma(t), likewise.
        uniform: ``uniform(name)`` returns U(0, 1) numbers shaped like x, at every call the same ones for a name.
        clean: (B, *shape) the items x0.
        condition: of the items; None is the null condition of all of them.
    """

    x: Tensor
    t: Tensor
    eps: Tensor
    signal: Tensor
    noise: Tensor
    uniform: Uniform
    clean: Tensor
    condition: Condition | None = None


def noised(
    process: Process,
    x0: Tensor,
    t: Tensor,
    eps: Tensor,
    uniform: Uniform | None = None,
    condition: Condition | None = None,
) -> Noised:
    """Put clean items ``x0`` (B, *shape) on the path at times ``t`` (B,) with noise ``eps``.

    Example:
        >>> times = torch.tensor([0.1, 0.9])
        >>> batch = msgm.objectives.noised(msgm.VE(), torch.zeros(2, 3), times, torch.ones(2, 3))
        >>> torch.allclose(batch.x[:, 0], msgm.VE().noise(times))
        True
    """
    signal, noise = per_item(process.signal(t), x0), per_item(process.noise(t), x0)
    return Noised(signal * x0 + noise * eps, t, eps, signal, noise, uniform or _drawn_like(x0), x0, condition)


def _drawn_like(x0: Tensor) -> Uniform:
    drawn = dict[str, Tensor]()

    def uniform(name: str = "") -> Tensor:
        if name not in drawn:
            drawn[name] = torch.rand_like(x0)
        return drawn[name]

    return uniform


class Term(NamedTuple):
    """One named part of a loss: its weight and its (B,) per-sample values.

    Example:
        >>> term = msgm.objectives.Term(0.5, torch.tensor([1.0, 3.0]))
        >>> float(term.weight * term.values.mean())
        1.0
    """

    weight: float
    values: Tensor


def mean_square(x: Tensor) -> Tensor:
    """Return the mean of squares over an item's dimensions, (B,).

    Example:
        >>> msgm.objectives.mean_square(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
        tensor([5., 4.])
    """
    return x.square().flatten(1).mean(1)
