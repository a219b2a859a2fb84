"""Real items at given noise levels rho = sigma / a, which mean the same for every process."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.config import Config
from msgm.data import Dataset, dequantise
from msgm.diffusion import PROCESSES, Process
from msgm.errors import UserError


def time_at(process: Process, level: float) -> float:
    """Return the time at which rho is ``level``."""
    return float(process.time(torch.tensor([level], dtype=torch.float64)))


def check_levels(levels: Sequence[float], config: Config, section: str) -> None:
    """Raise a UserError when the process has no such noise levels, or none is given."""
    process = PROCESSES.build(config.process)
    ends = torch.tensor([process.t_sample, process.top], dtype=torch.float64)
    low, high = process.ratio(ends).tolist()
    if not levels or not all(low < level < high for level in levels):
        raise UserError(
            f"{section}.levels must lie between {low:.3g} and {high:.4g}, the noise levels of process "
            f"{process.name!r}, got {list(levels)}."
        )


def clean_items(dataset: Dataset, indices: NDArray[np.int64], device: torch.device) -> Tensor:
    """Return items as models see them, images at the centres of their levels' bins, (B, *shape) on ``device``."""
    raw = dataset.take(indices)
    return (raw.float() if dataset.levels is None else dequantise(raw, dataset.levels)).to(device)
