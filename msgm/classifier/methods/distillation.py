"""Tools of distilling methods: a frozen teacher with its own storage, and the divergence from its outputs."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def frozen(model: nn.Module) -> nn.Module:
    """Return a deep copy in eval mode without gradients.

    A shallow copy would share its weights with the student: every divergence between the two would be zero for ever.
    """
    return copy.deepcopy(model).eval().requires_grad_(False)


@torch.no_grad()
def soft(teacher: nn.Module, x: Tensor, temperature: float) -> Tensor:
    """Return the teacher's (B, C) probabilities at a temperature."""
    return (teacher(x).float() / temperature).softmax(1)


def divergence(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return tau^2 KL(target || softmax(logits / tau)) in nats, the mean over items of the sum over classes.

    The factor tau^2 keeps the size of the gradient as the temperature rises (Hinton et al., arXiv 1503.02531, sec. 2).

    Args:
        logits: (B, C) of the student.
        target: (B, C) probabilities.
        temperature: tau > 0.
    """
    return temperature**2 * F.kl_div(F.log_softmax(logits.float() / temperature, 1), target, reduction="batchmean")
