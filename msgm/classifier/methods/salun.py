"""SalUn: random labels on the salient weights alone.

    m = 1 on the share ``density`` of weights with the largest |grad_theta sum_{D_f} CE| at theta_0, over all layers,
    theta_u = m * (theta_0 + d) + (1 - m) * theta_0,

with d found by random labels. ``hard`` puts weights outside the mask back after every step, so that they equal the
original's bit for bit. Masking gradients alone (``legacy_grad``), as published code long did, still lets weight decay
change these weights and every forward pass change batch normalisation's statistics.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msgm.classifier.data import Examples, Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Settings
from msgm.classifier.methods.random_label import RandomLabel
from msgm.classifier.methods.steps import AS_TRAINED, Descent, cross_entropy
from msgm.classifier.training import norms
from msgm.errors import UserError
from msgm.ranges import Range, ranges


@METHODS.register("salun")
@dataclass(frozen=True)
class SalUn(RandomLabel):
    """Saliency unlearning.

    Example:
        >>> made = msgm.classifier.SalUn(epochs=2).forget(network, data, {"labels": [2]})

    Attributes:
        epochs: passes over the forget and the retain set.
        lr_share: learning rate over the original training's; ``lr`` itself wins.
        density: share of the weights that may move, in (0, 1].
        mask_mode: ``hard``, or ``legacy_grad`` as in published code.
    """

    density: float = 0.5
    mask_mode: Literal["hard", "legacy_grad"] = "hard"

    search = ranges(density=Range(0.05, 1.0))
    card = Card(
        formula="random labels on the share of weights with the largest |grad CE(forget)|; the others stay",
        source=(
            "Fan et al., ICLR 2024, section 4; density 0.5, 10 epochs, lr 0.013 for 10% of CIFAR-10 on ResNet18, "
            "labels fresh, the true one allowed, sequential"
        ),
        needs=("retain", "forget"),
        family="mask",
        touches="mask of weights",
        deviations=(
            "the mask is hard where published code masked gradients only; gradients are summed over items, not over "
            "means of batches; the true label is excluded and the order mixed by default; batch normalisation is held "
            f"at the original's statistics (not by legacy_grad); {AS_TRAINED}"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.density <= 1:
            raise UserError(f"methods.density must lie in (0, 1], got {self.density}.")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        mask = salient(model, split.forget, self.density, settings)
        ledger.saw(len(split.forget))
        ledger.artefacts["masked_share"] = 1 - sum(int(m.sum()) for m in mask) / sum(m.numel() for m in mask)
        names = [name for name, _ in model.named_parameters()]
        ledger.artefacts["_mask"] = dict(zip(names, (m.cpu() for m in mask), strict=True))
        hard = self.mask_mode == "hard"
        descent = Descent(model, self.rate(settings), settings, ledger, still=norms(model) if hard else [])
        if hard:
            keep_masked(descent.optimiser, model, mask)
        else:
            mask_gradients(descent.optimiser, model, mask)
        return descent.run(self.batches(split, settings), cross_entropy(model))


def salient(model: nn.Module, forget: Examples, density: float, settings: Settings) -> list[Tensor]:
    """Return one boolean tensor a parameter, true for the ``density`` share with the largest summed |gradient|."""
    parameters = list(model.parameters())
    model.eval().zero_grad()
    for x, y in forget.batches(settings.training.batch_size, device=settings.device):
        F.cross_entropy(model(x), y, reduction="sum").backward()
    sums = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    model.zero_grad()
    flat = torch.cat([g.abs().flatten() for g in sums])
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[flat.topk(max(1, round(density * len(flat)))).indices] = True
    pieces = chosen.split([p.numel() for p in parameters])
    return [piece.view_as(p) for piece, p in zip(pieces, parameters, strict=True)]


def keep_masked(optimiser: torch.optim.Optimizer, model: nn.Module, mask: list[Tensor]) -> None:
    """Put weights outside the mask back after every step, whatever momentum and weight decay did to them."""
    pairs = [(p, p.detach().clone(), m) for p, m in zip(model.parameters(), mask, strict=True)]

    @torch.no_grad()
    def restore(*_: Any) -> None:
        for p, original, m in pairs:
            p.copy_(torch.where(m, p, original))

    optimiser.register_step_post_hook(restore)


def mask_gradients(optimiser: torch.optim.Optimizer, model: nn.Module, mask: list[Tensor]) -> None:
    """Set gradients outside the mask to zero before every step."""

    def hide(*_: Any) -> None:
        for p, m in zip(model.parameters(), mask, strict=True):
            if p.grad is not None:
                p.grad.mul_(m)

    optimiser.register_step_pre_hook(hide)
