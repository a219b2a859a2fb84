"""The diffusion transformer: diffusers' DiTTransformer2DModel, always with a null class of its own."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from msgm.checks import at_least, below_one
from msgm.diffusion.conditions import Condition
from msgm.diffusion.networks.base import NETWORKS, NetworkSettings
from msgm.diffusion.networks.library import Library
from msgm.errors import UserError


class DiT(Library):
    """diffusers' DiTTransformer2DModel.

    Its labels are dropped by the training's settings, as those of every network here, and not by chance within its
    layers, where diffusers drops a tenth of them in training mode, in each layer others.
    """

    name, part, kind = "dit", "transformer", "DiTTransformer2DModel"
    own_null = True

    def __init__(self, transformer: Any, has_null: bool = True) -> None:
        super().__init__(transformer, has_null)
        for block in transformer.transformer_blocks:
            block.norm1.emb.class_embedder.dropout_prob = 0.0

    def embeddings(self) -> int:
        return int(self.body.config.num_embeds_ada_norm) + 1

    def forward(self, x: Tensor, label: Tensor, condition: Condition | None = None) -> Tensor:
        """Map x (B, C, H, W), label (B,) and conditions (B) to (B, C, H, W)."""
        labels = self.class_labels(condition, len(x), x.device)
        if labels is None:  # without classes the null class is the only one
            labels = torch.zeros(len(x), dtype=torch.long, device=x.device)
        out: Tensor = self.body(x, timestep=label, class_labels=labels).sample
        return out[:, : x.shape[1]]


@NETWORKS.register("dit")
@dataclass
class DiTSettings(NetworkSettings):
    """A diffusion transformer (Peebles and Xie, arXiv 2212.09748), with the authors' zeros at the start.

    Example:
        >>> network = DiTSettings(heads=2, layers=2, classes=10).build(shape=(1, 8, 8))
        >>> asked = msgm.diffusion.Condition(torch.tensor([3, -1]))
        >>> network(torch.randn(2, 1, 8, 8), torch.tensor([10.0, 500.0]), asked).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        heads: heads of the attention.
        head_dim: channels a head.
        layers: transformer blocks.
        patch: side of the squares that the image is cut into.
        dropout: dropout in the blocks.
        classes: number of class labels; 0 is an unconditional network. One more embedding is the null condition's.
    """

    heads: int = 4
    head_dim: int = 16
    layers: int = 4
    patch: int = 2
    dropout: float = 0.0
    classes: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "network", "heads", "head_dim", "layers", "patch")
        at_least(0, self, "network", "classes")
        below_one(self, "network", "dropout")

    def build(self, shape: tuple[int, ...]) -> DiT:
        """Return a transformer for square images of ``shape`` (C, S, S)."""
        from diffusers import DiTTransformer2DModel

        if len(shape) != 3 or shape[1] != shape[2]:
            raise UserError(f"network.name: a dit needs square images, and the data has shape {shape}.")
        if shape[1] % self.patch:
            raise UserError(f"network.patch: images of {shape[1]}x{shape[1]} do not divide into {self.patch}s.")
        transformer = DiTTransformer2DModel(
            num_attention_heads=self.heads,
            attention_head_dim=self.head_dim,
            in_channels=shape[0],
            num_layers=self.layers,
            dropout=self.dropout,
            sample_size=shape[1],
            patch_size=self.patch,
            num_embeds_ada_norm=self.classes,
        )
        still = [block.norm1.linear for block in transformer.transformer_blocks]
        for layer in (*still, transformer.proj_out_1, transformer.proj_out_2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        return DiT(transformer)
