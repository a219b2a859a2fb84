"""One seed makes a run: every stream of random numbers is derived from it by name.

Streams are keyed by their purpose, ``generator(seed, "train", step)``, and do not depend on earlier draws, so that a
resumed run, another batch size or another number of processes draws the same numbers.
"""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: int | str) -> int:
    """Hash ``parts`` (a seed and the names of a stream) into a 63-bit seed."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """Return a fresh ``torch.Generator`` on ``device`` for the stream named by ``parts``."""
    import torch

    return torch.Generator(device).manual_seed(derive_seed(*parts))
