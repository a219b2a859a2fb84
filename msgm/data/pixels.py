"""Between integer grey levels and the numbers in [-1, 1] that models see.

Uniform dequantisation: level k of L becomes x = 2 (k + u) / L - 1 with u uniform in [0, 1), so that a density over
[-1, 1]^D bounds the log-probability of the levels (Theis et al., "A note on the evaluation of generative models").
"""

import torch
from torch import Tensor

DATA_RANGE = 2.0
"""Width of [-1, 1]."""


def dequantise(levels: Tensor, count: int, u: Tensor | float = 0.5) -> Tensor:
    """Map integer levels 0 .. ``count`` - 1 into [-1, 1); ``u`` is noise in [0, 1), by default the bin's centre.

    Example:
        >>> dequantise(torch.tensor([0, 1]), count=2)
        tensor([-0.5000,  0.5000])
    """
    return (levels.float() + u) * (DATA_RANGE / count) - 1.0


def quantise(x: Tensor, count: int) -> Tensor:
    """Map numbers to their level, 0 .. ``count`` - 1 as uint8; numbers outside [-1, 1) go to the nearest level.

    Example:
        >>> quantise(torch.tensor([-1.0, 0.0, 3.0]), count=2)
        tensor([0, 1, 1], dtype=torch.uint8)
    """
    return ((x.float() + 1.0) * (count / DATA_RANGE)).floor().clamp(0, count - 1).to(torch.uint8)
