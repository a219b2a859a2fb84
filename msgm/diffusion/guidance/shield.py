"""Guidance that keeps samples away from given items: out of balls around them, or away from their kernel mean."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from msgm.checks import at_least, positive
from msgm.diffusion.conditions import Condition
from msgm.diffusion.guidance.base import GUIDANCE, Guidance, Preparation
from msgm.diffusion.model import ScoreModel, per_item
from msgm.errors import UserError
from msgm.ranges import Range, ranges

BLOCK = 4096
"""Items of the bank that are compared with at a time."""


class Shield(Guidance):
    """Guidance that moves the denoised item away from the items to forget.

    Attributes:
        items: how many forget items are kept away from, at most.
        bank: (N, *shape) these items; None before ``prepare``.
        measure: name of the setting that gives the distance.
        reach: the Euclidean distance at which they are kept away from, or None before ``prepare``.
    """

    items: int
    measure: ClassVar[str]
    bank: Tensor | None = None
    reach: float | None = None

    @property
    def given(self) -> float | None:
        """The distance that the settings give, if any."""
        given: float | None = getattr(self, self.measure)
        return given

    @abstractmethod
    def moved(self, denoised: Tensor, bank: Tensor, reach: float) -> Tensor:
        """Return by what denoised items (B, D) are moved away from ``bank`` (N, D)."""

    def prepare(self, setup: Preparation) -> None:
        """Take the forget items, and the distance from them unless it is given.

        Raises:
            UserError: a single item, whose distance to the next is unknown.
        """
        self.bank = setup.forget(self.items).items
        self.reach = _spacing(self.bank, self.measure) if self.given is None else self.given

    def state(self) -> dict[str, Tensor]:
        assert self.bank is not None
        assert self.reach is not None
        return {"bank": self.bank, "reach": torch.tensor(self.reach, dtype=torch.float64)}

    def recall(self, state: Mapping[str, Tensor], model: ScoreModel) -> None:
        self.bank, self.reach = state["bank"], float(state["reach"])

    def to(self, device: torch.device | str) -> None:
        self.bank = None if self.bank is None else self.bank.to(device)

    def eps(self, model: ScoreModel, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        reach = self.given if self.reach is None else self.reach
        if self.bank is None or reach is None:
            raise RuntimeError(f"{self.name}: call prepare first, or set bank and give a distance")
        found = model.eps(x, t, condition)
        signal, noise = (per_item(c(t), x) for c in (model.process.signal, model.process.noise))
        denoised = ((x - noise * found) / signal).flatten(1)
        moved = self.moved(denoised, self.bank.to(denoised).flatten(1), reach)
        return found - signal / noise * moved.view_as(x)


@GUIDANCE.register("spell")
@dataclass
class Spell(Shield):
    """SPELL: where the denoised item lies in a ball around an item to forget, it is moved out to the ball's surface.

    Outside all balls it changes nothing, to the bit: it keeps single items from coming back, not their class.

    Example:
        >>> guidance = Spell(radius=2.0)
        >>> guidance.bank = torch.zeros(1, 1, 8, 8)  # ``prepare`` takes the forget items
        >>> guidance.wrap(base).sample(2, steps=3).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        radius: of the balls, a Euclidean distance; None takes the median distance from a forget item to the next.
        items: how many forget items are kept away from, at most.
    """

    radius: float | None = None
    items: int = 4096

    measure = "radius"
    search: ClassVar[Mapping[str, Range]] = ranges(radius=Range(0.1, 100.0, log=True))
    formula = "D + sum_k relu(r / |D - z_k| - 1) (D - z_k) in place of the denoised item D"
    source = "Kirchhof et al., arXiv 2410.06025"
    deviations = "the radius is the bank's own median distance to the nearest other item unless it is given"

    def __post_init__(self) -> None:
        at_least(1, self, "guidance", "items")
        at_least(0, self, "guidance", "radius")

    def moved(self, denoised: Tensor, bank: Tensor, reach: float) -> Tensor:
        moved = torch.zeros_like(denoised)
        for block in bank.split(BLOCK):
            distance = torch.cdist(denoised, block).clamp_min(1e-12)
            push = (reach / distance - 1).clamp_min(0)
            moved += push.sum(1, keepdim=True) * denoised - push @ block
        return moved


@GUIDANCE.register("safe-denoiser")
@dataclass
class SafeDenoiser(Shield):
    """Safe denoiser: the denoised item is moved away from the kernel mean of the items to forget that are near it.

    Far from all of them it changes nothing, to the bit.

    Example:
        >>> guidance = SafeDenoiser(width=2.0)
        >>> guidance.bank = torch.zeros(1, 1, 8, 8)  # ``prepare`` takes the forget items
        >>> guidance.wrap(base).sample(2, steps=3).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        scale: factor of the weight; at 0 nothing changes.
        width: of the kernels, a Euclidean distance; None takes the median distance from a forget item to the next.
        items: how many forget items are kept away from, at most.
    """

    scale: float = 1.0
    width: float | None = None
    items: int = 4096

    measure = "width"
    search: ClassVar[Mapping[str, Range]] = ranges(scale=Range(0.1, 10.0, log=True), width=Range(0.1, 100.0, log=True))
    formula = (
        "D - s K / (1 + K) (m - D) in place of the denoised item D, k_i = exp(-|D - z_i|^2 / 2 h^2), K = sum k_i and "
        "m = sum k_i z_i / K"
    )
    source = "Kim et al., arXiv 2502.08011"
    deviations = (
        "the weight is K / (1 + K), as the paper's, a ratio of densities, needs that of what is to remain; kernels are "
        "around the denoised item and as wide as the median distance from an item to the next. The released code "
        "takes distances where squares belong, those of the batch's first sample for all, and leaves the weight out"
    )

    def __post_init__(self) -> None:
        at_least(0, self, "guidance", "scale")
        at_least(1, self, "guidance", "items")
        positive(self, "guidance", "width")

    def moved(self, denoised: Tensor, bank: Tensor, reach: float) -> Tensor:
        total, pulled = torch.zeros_like(denoised[:, :1]), torch.zeros_like(denoised)
        for block in bank.split(BLOCK):
            kernels = (-0.5 * (torch.cdist(denoised, block) / reach) ** 2).exp()
            total += kernels.sum(1, keepdim=True)
            pulled += kernels.sum(1, keepdim=True) * denoised - kernels @ block
        return self.scale * pulled / (1 + total)


def _spacing(bank: Tensor, measure: str) -> float:
    """Return the median distance from an item to the nearest other one.

    Raises:
        UserError: there is no other.
    """
    flat = bank.flatten(1)
    if len(flat) < 2:
        raise UserError(f"guidance.{measure}: a single forget item has no distance to the next; give the {measure}.")
    nearest = [torch.cdist(part, flat).topk(2, largest=False).values[:, 1] for part in flat.split(512)]
    return float(torch.cat(nearest).median())
