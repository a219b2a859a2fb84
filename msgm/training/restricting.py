"""Training some of a network's weights alone, by the patterns of ``training.trainable``."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from msgm.errors import UserError, nearest


def restrict(network: nn.Module, patterns: Sequence[str] | None) -> dict[str, bool]:
    """Let only the weights whose names fit one of ``patterns`` be trained, all where it is None.

    The name of a U-Net's weight is that in its model folder, or in the network, where it begins with ``unet.``.

    Returns:
        Which weights were trained before, by name.

    Raises:
        UserError: a pattern that no name fits.
    """
    before = {name: weight.requires_grad for name, weight in network.named_parameters()}
    if patterns is None:
        return before
    for pattern in patterns:
        if not any(_fits(name, pattern) for name in before):
            hint = nearest(pattern, [name.removeprefix("unet.") for name in before])
            raise UserError(f"training.trainable: {pattern!r} fits the name of no weight of {len(before)}.{hint}")
    for name, weight in network.named_parameters():
        weight.requires_grad_(any(_fits(name, pattern) for pattern in patterns))
    return before


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.removeprefix("unet."), pattern)
