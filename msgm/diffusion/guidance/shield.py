"""Guidance that keeps samples out of balls around given items."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.diffusion.conditions import Condition
from msgm.diffusion.guidance.base import GUIDANCE, Guidance, Preparation
from msgm.diffusion.model import ScoreModel, per_item
from msgm.errors import UserError
from msgm.ranges import Range, ranges

BLOCK = 4096
"""Items of the bank that are compared with at a time."""


@GUIDANCE.register("spell")
@dataclass
class Spell(Guidance):
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

    search: ClassVar[Mapping[str, Range]] = ranges(radius=Range(0.1, 100.0, log=True))
    formula = "D + sum_k relu(r / |D - z_k| - 1) (D - z_k) in place of the denoised item D"
    source = "Kirchhof et al., arXiv 2410.06025"
    deviations = "the radius is the bank's own median distance to the nearest other item unless it is given"

    def __post_init__(self) -> None:
        at_least(1, self, "guidance", "items")
        at_least(0, self, "guidance", "radius")
        self.bank: Tensor | None = None
        self.reach = self.radius

    def prepare(self, setup: Preparation) -> None:
        """Take the forget items, and the radius from them unless it is given.

        Raises:
            UserError: a single item, whose distance to the next is unknown.
        """
        self.bank = setup.forget(self.items).items
        self.reach = _spacing(self.bank) if self.radius is None else self.radius

    def state(self) -> dict[str, Tensor]:
        assert self.bank is not None
        assert self.reach is not None
        return {"bank": self.bank, "reach": torch.tensor(self.reach, dtype=torch.float64)}

    def recall(self, state: Mapping[str, Tensor], model: ScoreModel) -> None:
        self.bank, self.reach = state["bank"], float(state["reach"])

    def to(self, device: torch.device | str) -> None:
        self.bank = None if self.bank is None else self.bank.to(device)

    def eps(self, model: ScoreModel, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        if self.bank is None or self.reach is None:
            raise RuntimeError("spell: call prepare first, or give the radius and set bank")
        found = model.eps(x, t, condition)
        signal, noise = (per_item(c(t), x) for c in (model.process.signal, model.process.noise))
        denoised = ((x - noise * found) / signal).flatten(1)
        moved = torch.zeros_like(denoised)
        for block in self.bank.to(denoised).flatten(1).split(BLOCK):
            distance = torch.cdist(denoised, block).clamp_min(1e-12)
            push = (self.reach / distance - 1).clamp_min(0)
            moved += push.sum(1, keepdim=True) * denoised - push @ block
        return found - signal / noise * moved.view_as(x)


def _spacing(bank: Tensor) -> float:
    """Return the median distance from an item to the nearest other one.

    Raises:
        UserError: there is no other.
    """
    flat = bank.flatten(1)
    if len(flat) < 2:
        raise UserError("guidance.radius: a single forget item has no distance to the next; give the radius.")
    nearest = [torch.cdist(part, flat).topk(2, largest=False).values[:, 1] for part in flat.split(512)]
    return float(torch.cat(nearest).median())
