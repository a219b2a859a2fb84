"""Networks that read (x, label, condition) and put out eps: diffusers' UNet2DModel for images, an MLP for vectors."""

import json
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msgm.checks import at_least, below_one
from msgm.diffusion.conditions import Condition
from msgm.errors import UserError
from msgm.plugins import Plugin, load_recorded, note_changed, plugins_of
from msgm.reading import read_json, read_tensors
from msgm.registry import Registry
from msgm.shapes import Positive


class Network(nn.Module):
    """A network that is saved in a folder of its own below ``model/``."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def item_dims(self) -> int:
        """First dimension of an item: channels of an image, length of a vector."""

    @abstractmethod
    def forward(self, x: Tensor, label: Tensor, condition: Condition | None = None) -> Tensor:
        """Map x (B, *shape) and label (B,) to (B, *shape); an unconditional network is called without a condition."""

    def check_condition(self, condition: Condition) -> None:
        """Refuse a condition that the network does not read; an unconditional one reads none.

        Raises:
            UserError: it does not read it.
        """
        raise UserError(f"condition: this {self.name} is unconditional, and was asked for a condition.")

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write configuration and weights below ``folder``, as ``load`` reads them."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> "Network":
        """Read what ``save`` wrote below ``folder``."""


class NetworkSettings:
    """Settings of a network; ``build`` makes it for items of a shape."""

    name: ClassVar[str]

    @abstractmethod
    def build(self, shape: tuple[int, ...]) -> Network:
        """Return a network with random weights for items of ``shape``."""

    @classmethod
    def load(cls, folder: Path) -> Network:
        """Read a network of this name, by the ``Network`` class of the same name."""
        return _class_named(cls.name).load(folder)


NETWORKS: Registry[NetworkSettings] = Registry("network")
WEIGHTS = "diffusion_pytorch_model"
"""Beginning of the names of diffusers' files of weights."""


def _class_named(name: str) -> type[Network]:
    """Return the class of networks with a name, the last one defined where there are several.

    Raises:
        UserError: there is none, or it has no ``load``.
    """
    kinds = _subclasses(Network)  # type: ignore[type-abstract]
    found = [kind for kind in kinds if getattr(kind, "name", None) == name]
    if not found or getattr(found[-1].load, "__isabstractmethod__", False):
        raise UserError(f"network.name: no class of networks named {name!r} has a load(folder), so no model is read.")
    return found[-1]


def _subclasses(kind: type[Network]) -> list[type[Network]]:
    return [one for direct in kind.__subclasses__() for one in (direct, *_subclasses(direct))]


def check_loadable(network: Network) -> None:
    """Refuse a network of the user's whose model could be written but not read again.

    Raises:
        UserError: no settings are registered under its name, or there is no way to load it.
    """
    if network.name not in NETWORKS.entries:
        raise UserError(f"network.name: the network calls itself {network.name!r}, and no such network is registered.")
    if NETWORKS.entries[network.name].load.__func__ is NetworkSettings.load.__func__:  # type: ignore[attr-defined]
        _class_named(network.name)


def read_network(name: str, plugins: Sequence[Plugin], folder: Path) -> Network:
    """Read the network of a model folder; the plugins that define it are imported first, if nothing has done so.

    Raises:
        UserError: an unknown network, plugins that are not trusted, or damaged files.
    """
    if name not in NETWORKS.entries:
        load_recorded(plugins, folder / "process.json")
    if name not in NETWORKS.entries:
        raise UserError(f"{folder}: unknown network {name!r}; known: {', '.join(NETWORKS.entries)}.")
    try:
        network = NETWORKS.entries[name].load(folder)
    except UserError as error:
        raise UserError(f"cannot read the model in {folder}: {error}") from error
    note_changed(plugins, plugins_of(type(network)), folder)
    return network


class UNet(Network):
    """diffusers' UNet2DModel, padded with zeros to the next size that its down-sampling divides.

    A padded network (28x28 with four levels, say) is saved like any other, but diffusers' own pipelines, which do not
    pad, cannot run it.
    """

    name = "unet"

    def __init__(self, unet: Any) -> None:
        super().__init__()
        # Channels last, in which convolutions of a CPU take a tenth to a quarter less time.
        self.unet = unet.to(memory_format=torch.channels_last)
        self.multiple = 2 ** (len(unet.config.block_out_channels) - 1)

    @property
    def item_dims(self) -> int:
        return int(self.unet.config.in_channels)

    def forward(self, x: Tensor, label: Tensor, condition: Condition | None = None) -> Tensor:
        """Map x (B, C, H, W) and label (B,) to (B, C, H, W)."""
        if condition is not None:
            self.check_condition(condition)
        height, width = x.shape[-2:]
        below, right = -height % self.multiple, -width % self.multiple
        if below or right:
            x = F.pad(x, (0, right, 0, below))
        out: Tensor = self.unet(x, label).sample
        return out[..., :height, :width]

    def save(self, folder: Path) -> None:
        """Write ``unet/`` as diffusers reads it."""
        self.unet.save_pretrained(folder / "unet", safe_serialization=True)
        # diffusers notes the folder that a network was read from, a path of this machine.
        file = folder / "unet" / "config.json"
        config = json.loads(file.read_text())
        config.pop("_name_or_path", None)
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "UNet":
        """Read ``unet/``."""
        return cls(read_unet(folder / "unet"))


def read_unet(folder: Path) -> Any:
    """Read a UNet2DModel and check it is complete; diffusers reads other U-Nets and draws missing weights at random.

    Raises:
        UserError: another kind of U-Net, or weights that are missing.
    """
    from diffusers import UNet2DModel

    kind = read_json(folder / "config.json", dict[str, Any]).get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise UserError(f"{folder} holds a {kind}; msgm reads UNet2DModel only.")
    variant = _variant(folder)
    if variant:
        print(
            f"note: {folder} holds weights of {variant} only; they are used and saved in float32.",
            flush=True,
        )
    unet, info = UNet2DModel.from_pretrained(
        folder,
        variant=variant,
        torch_dtype=torch.float32,
        low_cpu_mem_usage=False,
        output_loading_info=True,
        use_safetensors=True,
        local_files_only=True,
    )
    if info["missing_keys"]:
        raise UserError(f"{folder}: weights are missing, {min(info['missing_keys'])} for one.")
    return unet


def _variant(folder: Path) -> str | None:
    """Return which weights diffusers is to read: None for the plain ones, else the one variant that is there.

    Variants stand in names as ``diffusion_pytorch_model.fp16.safetensors``, or ``...safetensors.index.fp16.json`` where
    the weights are in several files.

    Raises:
        UserError: several variants, and no plain weights.
    """
    if (folder / f"{WEIGHTS}.safetensors").is_file() or (folder / f"{WEIGHTS}.safetensors.index.json").is_file():
        return None
    whole = {file.name.split(".")[1] for file in folder.glob(f"{WEIGHTS}.*.safetensors") if "-of-" not in file.name}
    found = sorted(whole | {file.name.split(".")[-2] for file in folder.glob(f"{WEIGHTS}.safetensors.index.*.json")})
    if len(found) > 1:
        raise UserError(f"{folder} holds weights of {', '.join(found)}; keep the files of one of them.")
    return found[0] if found else None


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
    """

    channels: list[int] = field(default_factory=lambda: [16, 32])
    layers: int = 1
    attention: list[int] = field(default_factory=list)
    mid_attention: bool = True
    head_dim: int = 8
    groups: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.channels:
            raise UserError("network.channels must hold the width of at least one level, got [].")
        at_least(1, self, "network", "channels", "layers", "head_dim", "groups")
        below_one(self, "network", "dropout")

    def build(self, shape: tuple[int, ...]) -> UNet:
        """Return a U-Net for images of ``shape`` (C, H, W)."""
        from diffusers import UNet2DModel

        if len(shape) != 3:
            raise UserError(f"network.name: a unet needs images, and the data has shape {shape}; use mlp.")
        groups = self.groups or max(1, min(32, self.channels[0] // 4))
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
            sample_size=shape[1] if shape[1] == shape[2] else tuple(shape[1:]),
            in_channels=shape[0],
            out_channels=shape[0],
            layers_per_block=self.layers,
            block_out_channels=tuple(self.channels),
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
            add_attention=self.mid_attention,
            attention_head_dim=self.head_dim,
            norm_num_groups=groups,
            dropout=self.dropout,
        )
        return UNet(unet)


class MLPConfig(TypedDict):
    """Contents of ``mlp/config.json``."""

    dims: Positive
    width: Positive
    depth: Positive
    frequencies: Positive


class MLP(Network):
    """A residual multi-layer perceptron for vectors, with a sinusoidal embedding of the label."""

    name = "mlp"

    def __init__(self, dims: int, width: int, depth: int, frequencies: int) -> None:
        super().__init__()
        self.settings = {"dims": dims, "width": width, "depth": depth, "frequencies": frequencies}
        self.enter = nn.Linear(dims, width)
        self.embed = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(depth)
        )
        self.leave = nn.Linear(width, dims)

    @property
    def item_dims(self) -> int:
        return self.settings["dims"]

    def forward(self, x: Tensor, label: Tensor, condition: Condition | None = None) -> Tensor:
        """Map x (B, D) and label (B,) to (B, D)."""
        if condition is not None:
            self.check_condition(condition)
        half = self.settings["frequencies"]
        rates = torch.exp(-math.log(10_000.0) * torch.arange(half, device=x.device) / half)
        angles = label.to(rates.dtype)[:, None] * rates
        time = self.embed(torch.cat([angles.sin(), angles.cos()], dim=1).to(x.dtype))
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
    """

    width: int = 128
    depth: int = 3
    frequencies: int = 32

    def __post_init__(self) -> None:
        at_least(1, self, "network", "width", "depth", "frequencies")

    def build(self, shape: tuple[int, ...]) -> MLP:
        """Return an MLP for vectors of ``shape`` (D,)."""
        if len(shape) != 1:
            raise UserError(f"network.name: an mlp needs vectors, and the data has shape {shape}; use unet.")
        return MLP(shape[0], **asdict(self))
