"""The multi-layer perceptron for vectors."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msgm.checks import at_least
from msgm.diffusion.conditions import Condition
from msgm.diffusion.networks.base import NETWORKS, Network, NetworkSettings
from msgm.errors import UserError
from msgm.reading import read_json, read_tensors
from msgm.shapes import Positive


class MLPConfig(TypedDict):
    """Contents of ``mlp/config.json``."""

    dims: Positive
    width: Positive
    depth: Positive
    frequencies: Positive
    classes: NotRequired[Positive]


class MLP(Network):
    """A residual multi-layer perceptron for vectors, with a sinusoidal embedding of the label."""

    name = "mlp"

    def __init__(self, dims: int, width: int, depth: int, frequencies: int, classes: int = 0) -> None:
        super().__init__()
        self.settings = {"dims": dims, "width": width, "depth": depth, "frequencies": frequencies}
        self.classes = classes
        if classes:
            self.settings["classes"] = classes
        self.enter = nn.Linear(dims, width)
        self.embed = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(depth)
        )
        self.leave = nn.Linear(width, dims)
        if classes:
            self.embed_class = nn.Embedding(classes + 1, width)

    @property
    def item_dims(self) -> int:
        return self.settings["dims"]

    def forward(self, x: Tensor, label: Tensor, condition: Condition | None = None) -> Tensor:
        """Map x (B, D), label (B,) and conditions (B) to (B, D)."""
        half = self.settings["frequencies"]
        rates = torch.exp(-math.log(10_000.0) * torch.arange(half, device=x.device) / half)
        angles = label.to(rates.dtype)[:, None] * rates
        time = self.embed(torch.cat([angles.sin(), angles.cos()], dim=1).to(x.dtype))
        labels = self.class_labels(condition, len(x), x.device)
        if labels is not None:
            time = time + self.embed_class(labels)
        hidden = self.enter(x)
        for block in self.blocks:
            hidden = hidden + block(hidden + time)
        out: Tensor = self.leave(F.silu(hidden))
        return out

    def save(self, folder: Path) -> None:
        """Write ``mlp/config.json`` and ``mlp/model.safetensors``."""
        from safetensors.torch import save_file

        (folder / "mlp").mkdir(parents=True)
        (folder / "mlp" / "config.json").write_text(json.dumps(self.settings, indent=2))
        save_file(self.state_dict(), folder / "mlp" / "model.safetensors")

    @classmethod
    def load(cls, folder: Path) -> "MLP":
        """Read ``mlp/``."""
        network = cls(**read_json(folder / "mlp" / "config.json", MLPConfig))
        network.load_state_dict(read_tensors(folder / "mlp" / "model.safetensors", network.state_dict()))
        return network


@NETWORKS.register("mlp")
@dataclass
class MLPSettings(NetworkSettings):
    """A residual MLP.

    Example:
        >>> network = MLPSettings().build(shape=(2,))
        >>> network(torch.randn(5, 2), torch.full((5,), 0.5)).shape
        torch.Size([5, 2])

    Attributes:
        width: hidden units.
        depth: residual blocks of two layers.
        frequencies: sine and cosine pairs of the label's embedding.
        classes: number of class labels; 0 is an unconditional network. One more embedding is the null condition's.
    """

    width: int = 128
    depth: int = 3
    frequencies: int = 32
    classes: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "network", "width", "depth", "frequencies")
        at_least(0, self, "network", "classes")

    def build(self, shape: tuple[int, ...]) -> MLP:
        """Return an MLP for vectors of ``shape`` (D,)."""
        if len(shape) != 1:
            raise UserError(f"network.name: an mlp needs vectors, and the data has shape {shape}; use unet.")
        return MLP(shape[0], **asdict(self))
