"""Converts raw images to the input of pretrained networks: three channels, their size, mean and standard deviation."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from msgm.data import Dataset
from msgm.errors import UserError


def check_images(dataset: Dataset, key: str, name: str) -> None:
    """Refuse data that network ``name`` of the setting ``key`` cannot see: vectors, or images not grey or coloured."""
    if dataset.levels is None:
        raise UserError(f"{key}: {name} reads images, and {dataset.name} holds vectors; take judge or pixels.")
    if dataset.shape[0] not in (1, 3):
        raise UserError(f"{key}: {name} reads images of 1 or 3 channels, and {dataset.name} has {dataset.shape[0]}.")


def to_rgb(items: Tensor, levels: int) -> Tensor:
    """Map levels 0 .. ``levels`` - 1, (B, C, H, W) of 1 or 3 channels, to (B, 3, H, W) float32 in [0, 1]."""
    return (items.float() / (levels - 1)).expand(-1, 3, -1, -1)


def fit(rgb: Tensor, size: int, mode: Literal["bilinear", "bicubic"]) -> Tensor:
    """Scale the shorter side to ``size`` (antialiased, kept in [0, 1]) and crop the centre: (B, 3, size, size)."""
    height, width = rgb.shape[2:]
    scale = size / min(height, width)
    shape = (max(size, round(height * scale)), max(size, round(width * scale)))
    if shape != (height, width):
        rgb = F.interpolate(rgb, shape, mode=mode, antialias=True).clamp(0, 1)
    top, left = ((length - size) // 2 for length in shape)
    return rgb[:, :, top : top + size, left : left + size]


def normalise(rgb: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (rgb - mean) / std, a value a channel."""
    centre, spread = (torch.tensor(list(values), device=rgb.device).view(1, -1, 1, 1) for values in (mean, std))
    return (rgb - centre) / spread
