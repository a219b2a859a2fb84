r"""Losses that match the score without the noise that was drawn: sliced score matching, and by finite differences.

Denoising score matching regresses onto the drawn noise, |eps_theta - eps|^2. Integration by parts gives the same
minimiser from the noised items alone. With the score s = -eps_theta / sigma, weighted by sigma^2 and divided by the
number of dimensions D,

    sliced             J = ((v . eps_theta)^2 / 2 - sigma v . (d eps_theta / dx) v) / D,   E v v^T = I
    variance reduced   J = (|eps_theta|^2 / 2     - sigma v . (d eps_theta / dx) v) / D
    finite difference  J = (v . (e_+ + e_-) / 2)^2 / 2 - v . (e_+ - e_-) / (2 delta),      |v| = 1, E v v^T = I / D,
                       e_+- = eps_theta(x +- delta sigma v), off by O(delta^2)

By Stein's identity E[sigma div eps_theta] = E[eps_theta . eps], so that in expectation 2 J + 1 is the denoising loss.
That is what these losses return: weights between an objective's terms keep their meaning. They have more variance, and
need no formula of how items were noised.

In the variance-reduced form v must have E v v^T = I: with directions of length 1 its divergence is D times too small.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from msgm.checks import positive
from msgm.diffusion.conditions import Condition
from msgm.errors import UserError
from msgm.registry import Registry

if TYPE_CHECKING:
    from msgm.objectives.base import Noised, Predict


class Matching(ABC):
    """A loss of the score on one batch. Subclasses are dataclasses whose fields are its settings.

    Example:
        >>> model = msgm.ScoreModel.new("mlp", "vp", shape=(2,))
        >>> points, times = torch.randn(8, 2), torch.linspace(0.1, 1.0, 8)
        >>> batch = msgm.objectives.noised(model.process, points, times, torch.randn(8, 2))
        >>> Sliced().losses(model.eps, batch).shape
        torch.Size([8])
    """

    name: ClassVar[str]

    @abstractmethod
    def losses(self, predict: "Predict", batch: "Noised") -> Tensor:
        """Return (B,) losses whose expectation is that of the mean square of eps_theta - eps."""


MATCHING: Registry[Matching] = Registry("objective.matching")


@MATCHING.register("sliced")
@dataclass(frozen=True)
class Sliced(Matching):
    """Sliced score matching (Song et al., arXiv 1905.07088, eqs. 7 and 8), which needs a second derivative.

    Example:
        >>> Sliced(variance_reduced=False)
        Sliced(variance_reduced=False, directions='rademacher')

    Attributes:
        variance_reduced: take the squared length of the score whole (eq. 8) and not along the direction (eq. 7).
        directions: ``rademacher`` (each entry is 1 or -1) or ``gaussian``.
    """

    variance_reduced: bool = True
    directions: Literal["rademacher", "gaussian"] = "rademacher"

    def __post_init__(self) -> None:
        if self.directions not in ("rademacher", "gaussian"):
            raise UserError(
                f"objective.matching.directions: expected 'rademacher' or 'gaussian', got {self.directions!r}."
            )

    def losses(self, predict: "Predict", batch: "Noised") -> Tensor:
        v = rademacher(batch) if self.directions == "rademacher" else gaussian(batch)
        x = batch.x.detach().requires_grad_(True)
        with torch.enable_grad(), differentiable_attention():
            predicted = predict(x, batch.t, batch.condition)
            along = (predicted * v).flatten(1).sum(1)
            (slope,) = torch.autograd.grad(along.sum(), x, create_graph=True)
        squares = predicted.flatten(1).square().sum(1) if self.variance_reduced else along.square()
        divergence = batch.noise.flatten(1)[:, 0] * (slope * v).flatten(1).sum(1)
        return (squares - 2 * divergence) / v[0].numel() + 1


@MATCHING.register("finite-difference")
@dataclass(frozen=True)
class FiniteDifference(Matching):
    """Finite-difference sliced score matching (Pang et al., arXiv 2007.03317): two passes, no second derivative.

    Example:
        >>> FiniteDifference(step=0.05)
        FiniteDifference(step=0.05)

    Attributes:
        step: delta, the length of a step in units of sigma; the source's is a length in the data's units, which is too
            long where sigma is small.
    """

    step: float = 0.1

    def __post_init__(self) -> None:
        positive(self, "objective.matching", "step")

    def losses(self, predict: "Predict", batch: "Noised") -> Tensor:
        v = gaussian(batch)
        v = v / v.flatten(1).norm(dim=1).view(-1, *[1] * (v.dim() - 1))
        reach = self.step * batch.noise * v
        condition = Condition.cat([batch.condition, batch.condition], [len(v), len(v)])
        both = predict(torch.cat([batch.x + reach, batch.x - reach]), torch.cat([batch.t, batch.t]), condition)
        ahead, behind = ((part * v).flatten(1).sum(1) for part in both.chunk(2))
        return ((ahead + behind) / 2).square() - (ahead - behind) / self.step + 1


def rademacher(batch: "Noised") -> Tensor:
    """Return directions shaped like x whose entries are 1 or -1."""
    return torch.where(batch.uniform("directions") < 0.5, -1.0, 1.0).to(batch.x.dtype)


def gaussian(batch: "Noised", name: str = "directions") -> Tensor:
    """Return standard normal numbers shaped like x, drawn by ``name``."""
    # A uniform number may be 0, and never 1.
    uniform = batch.uniform(name).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.special.ndtri(uniform).to(batch.x.dtype)


def differentiable_attention() -> AbstractContextManager[Any]:
    """Return a context in which attention can be differentiated twice."""
    return sdpa_kernel(SDPBackend.MATH) if torch.is_grad_enabled() else nullcontext()
