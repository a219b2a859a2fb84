"""Facts that identify a retrained model in every domain: earlier requests, training device, and code.

The number of threads and the kind of GPU are left out: they change the last bits of a sum.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import msgm
from msgm.cache import Cached
from msgm.chain import Chain, ranges
from msgm.plugins import digest_of, plugins_of

FACTS = ("versions", "git_commit", "platform", "threads", "device", "seconds", "peak_memory_mb")
"""What a run records of where and when it was trained, which stays true of the model wherever it is taken over."""


def origin(entry: Cached) -> dict[str, str]:
    """Return a run's record on a model from the cache: its training date and the name of the entry."""
    return {"trained": entry.made, "entry": entry.folder.name}


def asked(chain: Chain) -> list[Any]:
    """Return the requests of a chain without their dates."""
    entries = [asdict(entry) | {"positions": ranges(entry.positions), "date": None} for entry in chain.requests]
    return [entries, chain.unknown, list(chain.anew)]


def code(files: Iterable[str]) -> dict[str, Any]:
    """Return the versions of the code that trains, and the hashes of the user's own Python files as they run here."""
    versions = {"msgm": msgm.__version__, "sources": sources(), "torch": torch.__version__}
    versions |= {"diffusers": version("diffusers")}
    return versions | {"plugins": [digest_of(path) for path in files]}


def is_known(part: type) -> bool:
    """Return whether ``code`` covers a registered class: one of msgm's or of a plugin, not of a notebook."""
    return part.__module__.startswith("msgm.") or bool(plugins_of(part))


@cache
def sources() -> str:
    """Return a hash of msgm's own source, which may change within a version during development."""
    found = hashlib.sha256()
    for path in sorted(Path(msgm.__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()
