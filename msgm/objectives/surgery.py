"""Ways of merging the gradients r of the retain term and f of the forget term, as the setting ``combine`` names them.

Each is a pure function of two lists of gradients, one tensor a weight. Inner products are taken in float64 over all
weights together. What comes out never points against r: its inner product with r is not negative, but for rounding.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from msgm.devices import precise
from msgm.errors import UserError
from msgm.ranges import Range, ranges
from msgm.registry import Registry

Gradients = Sequence[Tensor]


class Surgery(ABC):
    """Merges two gradients. Subclasses are dataclasses whose fields are its settings.

    Example:
        >>> r, f = [torch.tensor([1.0, 0.0])], [torch.tensor([-2.0, 3.0])]
        >>> msgm.objectives.SURGERY.build({"name": "agem"}).merge(r, f)
        [tensor([1., 3.])]
    """

    name: ClassVar[str]

    def effective(self) -> dict[str, Any]:
        """Return the settings that have an effect, by name."""
        return dict(vars(self))

    @abstractmethod
    def merge(self, retain: Gradients, forget: Gradients) -> list[Tensor]:
        """Return the merged gradient; each factor of a list of gradients stays on its device."""


SURGERY: Registry[Surgery] = Registry("objective.combine")


def inner(one: Gradients, other: Gradients) -> Tensor:
    """Return the inner product over all weights, a float64 scalar.

    Example:
        >>> msgm.objectives.inner([torch.ones(2), torch.ones(1)], [torch.ones(2), torch.tensor([3.0])])
        tensor(5., dtype=torch.float64)
    """
    return torch.stack([(precise(a) * precise(b)).sum() for a, b in zip(one, other, strict=True)]).sum()


def _share(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the quotient, and 0 where the denominator is."""
    return torch.where(denominator > 0, numerator / denominator.clamp_min(torch.finfo(denominator.dtype).tiny), 0.0)


def _mixed(retain: Gradients, forget: Gradients, of_retain: Tensor, of_forget: Tensor) -> list[Tensor]:
    return [(of_retain * precise(r) + of_forget * precise(f)).to(r) for r, f in zip(retain, forget, strict=True)]


@SURGERY.register("pcgrad")
@dataclass
class PCGrad(Surgery):
    """Where the two conflict (<r, f> < 0), each loses its component along the other; then they are added.

    Yu et al., arXiv 2001.06782. With two terms the order of the projections does not matter.

    Example:
        >>> r, f = [torch.tensor([1.0, 0.0])], [torch.tensor([-1.0, 1.0])]
        >>> msgm.objectives.PCGrad().merge(r, f)
        [tensor([0.5000, 1.5000])]
    """

    def merge(self, retain: Gradients, forget: Gradients) -> list[Tensor]:
        conflict = inner(retain, forget).clamp_max(0)
        along_retain, along_forget = (_share(conflict, inner(g, g)) for g in (retain, forget))
        return _mixed(retain, forget, 1 - along_retain, 1 - along_forget)


@SURGERY.register("agem")
@dataclass
class AGEM(Surgery):
    """Where the two conflict, f loses its component along r; then r + f.

    Chaudhry et al., arXiv 1812.00420, with the retain batch as the memory. There r itself is not stepped along.

    Example:
        >>> r, f = [torch.tensor([1.0, 0.0])], [torch.tensor([-1.0, 1.0])]
        >>> msgm.objectives.AGEM().merge(r, f)
        [tensor([1., 1.])]
    """

    def merge(self, retain: Gradients, forget: Gradients) -> list[Tensor]:
        along = _share(inner(retain, forget).clamp_max(0), inner(retain, retain))
        return _mixed(retain, forget, 1 - along, torch.ones_like(along))


@SURGERY.register("cone")
@dataclass
class Cone(Surgery):
    """The gradient nearest to r + f that points against neither r nor f.

    The projection of GEM (Lopez-Paz and Ranzato, arXiv 1706.08840) with one memory for each term and margin 0. Only the
    longer of two gradients in conflict can make their sum point against the other, so at most one is projected out.

    Example:
        >>> r, f = [torch.tensor([1.0, 0.0])], [torch.tensor([-3.0, 1.0])]
        >>> msgm.objectives.Cone().merge(r, f)
        [tensor([0., 1.])]
    """

    def merge(self, retain: Gradients, forget: Gradients) -> list[Tensor]:
        product, r, f = inner(retain, forget), inner(retain, retain), inner(forget, forget)
        along_retain, along_forget = (_share((product + g).clamp_max(0), g) for g in (r, f))
        return _mixed(retain, forget, 1 - along_retain, 1 - along_forget)


@SURGERY.register("cap")
@dataclass
class Cap(Surgery):
    """f is shortened to ``ratio`` times the length of r where it is longer; then r + f.

    SISS (Alberti et al., ICLR 2025) gives f a fixed length, which its authors set to 10% of r's.

    Example:
        >>> r, f = [torch.tensor([1.0, 0.0])], [torch.tensor([0.0, -8.0])]
        >>> msgm.objectives.Cap(ratio=0.5).merge(r, f)
        [tensor([ 1.0000, -0.5000])]

    Attributes:
        ratio: greatest length of f, in lengths of r; in (0, 1].
        exactly: also lengthen a shorter f to it.
    """

    ratio: float = 1.0
    exactly: bool = False

    search = ranges(ratio=Range(0.01, 1.0, log=True))

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise UserError(
                f"objective.combine.ratio must lie in (0, 1], got {self.ratio}: above 1 the forget gradient could "
                "outweigh the retain gradient."
            )

    def merge(self, retain: Gradients, forget: Gradients) -> list[Tensor]:
        scale = self.ratio * _share(inner(retain, retain).sqrt(), inner(forget, forget).sqrt())
        scale = scale if self.exactly else scale.clamp_max(1)
        return _mixed(retain, forget, torch.ones_like(scale), scale)
