"""Classifier-free guidance of conditional models."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from msgm.diffusion.conditions import Condition
from msgm.diffusion.guidance.base import GUIDANCE, Guidance
from msgm.diffusion.model import ScoreModel
from msgm.errors import UserError


@GUIDANCE.register("classifier-free")
@dataclass
class ClassifierFree(Guidance):
    """Classifier-free guidance: from the null condition through what is asked for, and beyond it.

    Scale 1 is the conditional model and 0 the unconditional one, each to the bit. Of a model that is asked for nothing
    it changes nothing.

    Example:
        >>> model = msgm.ScoreModel.new("unet", "vp", channels=[8], classes=10)
        >>> ClassifierFree(scale=3.0).wrap(model).sample(2, steps=3, condition=7).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        scale: s of eps(null) + s (eps(c) - eps(null)), diffusers' guidance_scale; the paper's w is s - 1.
    """

    scale: float = 2.0

    formula = "eps(null) + scale (eps(c) - eps(null)), both in one pass"
    source = "Ho and Salimans, arXiv 2207.12598, eq. 6, with scale = 1 + w"
    deviations = "none"

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise UserError(f"guidance.scale must be finite, got {self.scale}.")

    def check(self, classes: int) -> None:
        if not classes:
            raise UserError(
                "guidance.name: 'classifier-free' guides towards what is asked for, and an unconditional network is "
                "asked for nothing; set network.classes."
            )

    def eps(self, model: ScoreModel, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        if condition is None or self.scale == 0:
            return model.eps(x, t)
        if self.scale == 1:
            return model.eps(x, t, condition)
        both = Condition.cat([None, condition], [len(x), len(x)])
        null, asked = model.eps(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return null + self.scale * (asked - null)
