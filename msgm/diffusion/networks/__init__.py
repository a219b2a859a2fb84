"""Networks that read (x, label, condition) and put out eps, one kind a file; importing one registers its settings."""

from msgm.diffusion.networks.base import NETWORKS, Network, NetworkSettings, check_loadable, read_network
from msgm.diffusion.networks.dit import DiT, DiTSettings
from msgm.diffusion.networks.library import Library, read_body
from msgm.diffusion.networks.mlp import MLP, MLPSettings
from msgm.diffusion.networks.text import TextNetwork, text_kind
from msgm.diffusion.networks.text_transformer import TextTransformer, TextTransformerSettings
from msgm.diffusion.networks.text_unet import TextUNet, TextUNetSettings
from msgm.diffusion.networks.unet import UNet, UNetSettings

__all__ = [
    "MLP",
    "NETWORKS",
    "DiT",
    "DiTSettings",
    "Library",
    "MLPSettings",
    "Network",
    "NetworkSettings",
    "TextNetwork",
    "TextTransformer",
    "TextTransformerSettings",
    "TextUNet",
    "TextUNetSettings",
    "UNet",
    "UNetSettings",
    "check_loadable",
    "read_body",
    "read_network",
    "text_kind",
]
