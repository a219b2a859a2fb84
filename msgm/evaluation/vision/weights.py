"""Finding, downloading and reading pretrained weights, without unpickling code."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from msgm.digests import file_digest
from msgm.downloads import announce
from msgm.errors import UserError
from msgm.reading import check_finite, read_tensors

CONTAINERS = ("state_dict", "model_state_dict", "model")
"""Where checkpoints of training scripts keep a state dict."""


@dataclass(frozen=True)
class Download:
    """A published file.

    Attributes:
        url: where it is.
        place: where it is kept.
        sha256: the beginning of its checksum; the whole of it where that is known.
        megabytes: its size.
    """

    url: str
    place: Path
    sha256: str
    megabytes: float


def hub_place(url: str) -> Path:
    """Return where torch keeps the file of ``url``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def find_weights(given: str | None, download: Download, key: str) -> Path:
    """Return the file ``given``, or the published one, which is fetched once.

    Args:
        given: the user's own file; None takes the published one.
        download: the published one.
        key: the setting that may name a file, for errors.

    Raises:
        UserError: there is no such file, it cannot be fetched, or its checksum is not the published one.
    """
    if given is not None:
        if not Path(given).is_file():
            raise UserError(f"{key}: there is no file {given}.")
        return Path(given)
    if not download.place.is_file():
        _fetch(download, key)
    return download.place


def _fetch(download: Download, key: str) -> None:
    instead = f"download {download.url} elsewhere and put it at {download.place}, or name another file here"
    announce(f"the weights {download.place.name}", urlsplit(download.url).netloc, download.megabytes, key, instead)
    try:
        download.place.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(download.url, str(download.place), download.sha256, progress=False)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong checksum is a RuntimeError
        raise UserError(f"{key}: cannot fetch the weights ({error}); {instead}.") from error


def name_file(path: Path) -> str:
    """Return a file's name and the beginning of its checksum, for reports; never its place on this machine."""
    return f"{path.name} (sha256 {file_digest(path)[:16]})"


def read_state(path: Path, key: str) -> dict[str, Tensor]:
    """Read a state dict from safetensors, or from ``torch.save`` with nothing but tensors in it.

    It may stand in a checkpoint under one of the names ``CONTAINERS``, beside steps, losses and the like.

    Raises:
        UserError: the file cannot be read, holds more than tensors by name, or numbers that are not finite.
    """
    try:
        safe = path.suffix == ".safetensors"
        state: Any = read_tensors(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except UserError as error:
        raise UserError(f"{key}: cannot read {path.name} as a state dict: {error}") from error
    except Exception as error:  # a damaged archive or pickle raises a dozen kinds
        raise UserError(
            f"{key}: cannot read {path.name} as a state dict; expected .safetensors, or torch.save(model.state_dict())."
        ) from error
    if isinstance(state, dict):
        state = next((state[name] for name in CONTAINERS if isinstance(state.get(name), dict)), state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{key}: {path.name} holds more than a state dict; save model.state_dict() alone.")
    check_finite(state, f"{key}: {path.name}")
    return dict(state)


def fill(network: nn.Module, state: dict[str, Tensor], key: str, source: str, what: str) -> nn.Module:
    """Return ``network`` with the weights ``state`` in float32, frozen, in evaluation mode.

    Raises:
        UserError: the weights do not fit.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        detail = " ".join(str(error).split("\n")[1:2]).strip().rstrip(".") or str(error)
        raise UserError(f"{key}: {source} does not fit {what}: {detail[:200]}.") from error
    return network.float().eval().requires_grad_(False)
