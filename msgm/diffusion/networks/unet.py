"""The U-Net for images: diffusers' UNet2DModel, unconditional or class-conditional."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from msgm.checks import at_least, below_one
from msgm.diffusion.conditions import Condition
from msgm.diffusion.networks.base import NETWORKS, NetworkSettings
from msgm.diffusion.networks.library import Library
from msgm.errors import UserError


class UNet(Library):
    """diffusers' UNet2DModel, padded with zeros to the next size that its down-sampling divides.

    A padded network (28x28 with four levels, say) is saved like any other, but diffusers' own pipelines, which do not
    pad, cannot run it.
    """

    name, part, kind = "unet", "unet", "UNet2DModel"

    multiple: int

    def __init__(self, unet: Any, has_null: bool = True) -> None:
        # Channels last, in which convolutions of a CPU take a tenth to a quarter less time.
        super().__init__(unet.to(memory_format=torch.channels_last), has_null)
        self.multiple = 2 ** (len(unet.config.block_out_channels) - 1)

    def embeddings(self) -> int:
        return self.body.config.num_class_embeds or 0

    def forward(self, x: Tensor, label: Tensor, condition: Condition | None = None) -> Tensor:
        """Map x (B, C, H, W), label (B,) and conditions (B) to (B, C, H, W)."""
        labels = self.class_labels(condition, len(x), x.device)
        channels, height, width = x.shape[1:]
        below, right = -height % self.multiple, -width % self.multiple
        if below or right:
            x = F.pad(x, (0, right, 0, below))
        out: Tensor = self.body(x, label, labels).sample
        return out[:, :channels, :height, :width]


@NETWORKS.register("unet")
@dataclass
class UNetSettings(NetworkSettings):
    """A DDPM U-Net (Ho et al., arXiv 2006.11239, appendix B).

    Example:
        >>> network = UNetSettings(channels=[8, 16], attention=[4]).build(shape=(1, 8, 8))
        >>> network(torch.randn(2, 1, 8, 8), torch.tensor([10.0, 500.0])).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        channels: width of each level; every level halves the size.
        layers: residual blocks a level.
        attention: resolutions with self-attention, [16] say.
        mid_attention: self-attention in the middle block.
        head_dim: channels a head.
        groups: groups of the normalisation; None takes the smaller of 32 and a quarter of the first width.
        dropout: dropout in the residual blocks.
        classes: number of class labels; 0 is an unconditional network. One more embedding is the null condition's.
    """

    channels: list[int] = field(default_factory=lambda: [16, 32])
    layers: int = 1
    attention: list[int] = field(default_factory=list)
    mid_attention: bool = True
    head_dim: int = 8
    groups: int | None = None
    dropout: float = 0.0
    classes: int = 0

    def __post_init__(self) -> None:
        if not self.channels:
            raise UserError("network.channels must hold the width of at least one level, got [].")
        at_least(1, self, "network", "channels", "layers", "head_dim", "groups")
        at_least(0, self, "network", "classes")
        below_one(self, "network", "dropout")

    def build(self, shape: tuple[int, ...]) -> UNet:
        """Return a U-Net for images of ``shape`` (C, H, W)."""
        from diffusers import UNet2DModel

        if len(shape) != 3:
            raise UserError(f"network.name: a unet needs images, and the data has shape {shape}; use mlp.")
        groups = groups_of(self.channels, self.groups)
        if any(width % groups for width in self.channels):
            raise UserError(f"network.channels: {self.channels} must be multiples of network.groups, {groups}.")
        attends = [-(-shape[1] // 2**level) in self.attention for level in range(len(self.channels))]
        attended = [width for width, attend in zip(self.channels, attends, strict=True) if attend]
        narrowest = min(attended + self.channels[-1:] * self.mid_attention, default=self.head_dim)
        if narrowest < self.head_dim:
            raise UserError(
                f"network.head_dim must be at most the smallest width with attention, {narrowest}, got {self.head_dim}."
            )
        unet = UNet2DModel(
            **levels_of(shape, self.channels, self.layers, groups, attends, "Attn"),
            add_attention=self.mid_attention,
            attention_head_dim=self.head_dim,
            dropout=self.dropout,
            num_class_embeds=self.classes + 1 if self.classes else None,
        )
        return UNet(unet)


def groups_of(channels: Sequence[int], groups: int | None) -> int:
    """Return the groups of a U-Net's normalisation; None takes the smaller of 32 and a quarter of the first width."""
    return groups or max(1, min(32, channels[0] // 4))


def levels_of(
    shape: tuple[int, ...], channels: Sequence[int], layers: int, groups: int, attends: Sequence[bool], kind: str
) -> dict[str, Any]:
    """Return what diffusers' U-Nets are told of their levels.

    Args:
        shape: of the images, (C, H, W).
        channels: width of each level.
        layers: residual blocks a level.
        groups: of the normalisation.
        attends: whether each level has attention.
        kind: beginning of the names of blocks with attention, ``Attn`` or ``CrossAttn``.
    """
    down, up = (tuple(f"{kind if a else ''}{way}Block2D" for a in attends) for way in ("Down", "Up"))
    return {
        "sample_size": shape[1] if shape[1] == shape[2] else tuple(shape[1:]),
        "in_channels": shape[0],
        "out_channels": shape[0],
        "layers_per_block": layers,
        "block_out_channels": tuple(channels),
        "down_block_types": down,
        "up_block_types": up[::-1],
        "norm_num_groups": groups,
    }
