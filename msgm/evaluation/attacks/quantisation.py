"""Whether coarser weights bring the content back.

This happens in language models (Zhang et al., "Catastrophic Failure of LLM Unlearning via Quantization", arXiv
2410.16454).
"""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.diffusion import ScoreModel
from msgm.errors import UserError
from msgm.evaluation.attacks.base import Attack, cell, ratio, sample_count, shown
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column

SECTION = "evaluation.options.quantisation"


def quantised(weight: Tensor, bits: int) -> Tensor:
    """Round a weight (out, ...) to signed ``bits``-bit integers times a scale for each output channel.

    Symmetric, the largest magnitude of a channel being 2^(bits - 1) - 1; returned in floating point.
    """
    largest = 2 ** (bits - 1) - 1
    scale = weight.flatten(1).abs().amax(1) / largest
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.fake_quantize_per_channel_affine(weight, scale, torch.zeros_like(scale), 0, -largest, largest)


@torch.no_grad()
def quantised_copy(model: ScoreModel, bits: int) -> ScoreModel:
    """Return a copy whose weight matrices and kernels are rounded; biases and normalisations stay as they are."""
    coarse = copy.deepcopy(model)
    for weight in coarse.network.parameters():
        if weight.dim() > 1:
            weight.copy_(quantised(weight, bits))
    return coarse


@METRICS.register("quantisation")
@dataclass(frozen=True)
class Quantisation(Attack):
    """Weights rounded to a few bits; activations are not.

    Example:
        >>> found = Quantisation(bits=[8, 4], samples=4).measure(subject)["quantisation"]
        >>> [(width["bits"], width["unlearning_ratio"]["n"]) for width in found["widths"]]
        [(8, 4), (4, 4)]
        >>> quantised(torch.tensor([[0.0, 0.4, 1.0]]), bits=2)
        tensor([[0., 0., 1.]])

    Attributes:
        bits: widths to try, each from 2 to 8.
        samples: samples of each, at most ``evaluation.samples``.
    """

    key = "quantisation"
    on_weights = True
    columns = [  # noqa: RUF012
        Column(
            "UR % by bits of weights",
            "lower",
            cell(key, lambda f: " / ".join(f"{p['bits']}: {ratio(p)}" for p in f["widths"])),
        )
    ]

    bits: list[int] = field(default_factory=lambda: [8, 4])
    samples: int = 500

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "samples")
        if not self.bits or not all(2 <= bits <= 8 for bits in self.bits):
            raise UserError(f"{SECTION}.bits must be widths from 2 to 8, got {self.bits}.")

    def attack(self, subject: Subject) -> dict[str, Any]:
        count = sample_count(self.samples, subject.bench)
        points = [
            {"bits": bits, **shown(quantised_copy(subject.model, bits), subject.bench, count)} for bits in self.bits
        ]
        return {"samples": count, "widths": points}

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        return {f"UR % at {p['bits']} bits": 100 * p["unlearning_ratio"]["value"] for p in found["widths"]}

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        return {f"UR % at {p['bits']} bits": 100 / p["unlearning_ratio"]["n"] for p in found["widths"]}

    def protocol(self, bench: Bench) -> dict[str, str]:
        return {
            "quantisation": f"weight matrices and kernels rounded to {' and '.join(map(str, self.bits))} bits, "
            f"symmetric, a scale for each output channel; {sample_count(self.samples, bench)} samples each"
        }
