"""Digests of files, to detect changes, and keyed digests of ids and items, which cannot be guessed without the key.

An unkeyed hash of an item's number or a user's id can be inverted by hashing all possible values. So these are hashed
with 32 random bytes, in the file ``key`` of the folder that they stand in, which its owner alone can read. The key
belongs to the folder; leave it out when you pass the folder on.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError
from msgm.folders import write_bytes

if TYPE_CHECKING:
    from torch import nn

KEY = "key"
KEY_BYTES = 32


def folder_key(folder: Path) -> bytes:
    """Return the folder's own key; a new one is made where there is none, readable by the file's owner alone.

    Raises:
        UserError: the key is cut or empty.
    """
    key = read_key(folder)
    if key is None:
        key = secrets.token_bytes(KEY_BYTES)
        write_bytes(folder / KEY, key, mode=0o600)
    return key


def read_key(folder: Path) -> bytes | None:
    """Return the folder's own key, or None where it has none.

    Raises:
        UserError: the key is cut or empty.
    """
    path = folder / KEY
    if not path.exists():
        return None
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise UserError(f"{path} is damaged: expected {KEY_BYTES} bytes, found {len(key)}.")
    return key


def model_key(folder: Path) -> bytes | None:
    """Return the key of the run folder around a model folder; None for a model folder of no run.

    Raises:
        UserError: the key is cut or empty.
    """
    return read_key(folder.parent) if folder.name == "model" else None


def short_digest(parts: Iterable[bytes]) -> str:
    """Return the first 16 hex digits of the SHA-256 over ``parts``, one after the other."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:16]


def keyed_digest(key: bytes, *parts: str | bytes) -> str:
    """Return the keyed digest of ``parts``, in this order, as 32 hex digits."""
    known = [part if isinstance(part, str) else [hashlib.sha256(part).hexdigest()] for part in parts]
    return hmac.new(key, json.dumps(known).encode(), hashlib.sha256).hexdigest()[:32]


def positions_digest(folder: Path, positions: NDArray[np.int64]) -> str:
    """Return the digest of a set of item numbers under the folder's own key.

    Raises:
        UserError: the key is cut or empty.
    """
    return keyed_digest(folder_key(folder), "positions", np.sort(positions).astype("<i8").tobytes())


def unkeyed_digest(positions: NDArray[np.int64]) -> str:
    """Return the digest of item numbers that manifests and records of the first version hold."""
    return short_digest([np.sort(positions).tobytes()])


def stands_for(digest: str, folder: Path, positions: NDArray[np.int64]) -> bool | None:
    """Return whether a digest in ``folder`` is of these item numbers; None if the folder's key is missing."""
    if len(digest) == len(unkeyed_digest(positions)):
        return digest == unkeyed_digest(positions)
    return digest == positions_digest(folder, positions) if (folder / KEY).is_file() else None


def weights_digest(network: "nn.Module") -> str:
    """Return the SHA-256 over the numbers of a network's tensors, in their order, as 64 hex digits."""
    import torch

    found = hashlib.sha256()
    for tensor in network.state_dict().values():
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
