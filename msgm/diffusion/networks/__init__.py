"""Networks that read (x, label, condition) and put out eps, one kind a file; importing one registers its settings."""

from msgm.diffusion.networks.base import NETWORKS, Network, NetworkSettings, check_loadable, read_network
from msgm.diffusion.networks.dit import DiT, DiTSettings
from msgm.diffusion.networks.library import Library, read_body
from msgm.diffusion.networks.mlp import MLP, MLPSettings
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
    "UNet",
    "UNetSettings",
    "check_loadable",
    "read_body",
    "read_network",
]
