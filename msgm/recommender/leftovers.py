"""Whether a served folder still holds an id that it was asked to forget, by each format's own reader.

The ids themselves are gone, so every text that stands in a file is hashed with the folder's key and looked up among the
digests of the journal. ``manifest.json`` is left out: it is written from the config, before any request.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgm.digests import KEY
from msgm.errors import RunError
from msgm.folders import LOCK
from msgm.reading import read_bytes, read_json, read_yaml
from msgm.recommender.journal import NAME as JOURNAL
from msgm.recommender.journal import id_digest

OWN = (KEY, LOCK, "manifest.json")
SEPARATORS = re.compile(r"[,;\t\r\n\"'|]+|::|: ")


def refuse_leftovers(folder: Path, key: bytes, done: set[str]) -> None:
    """Look for forgotten ids in all files of a folder.

    Args:
        folder: the served folder, and all folders in it.
        key: the folder's own.
        done: digests of the ids of answered requests.

    Raises:
        RunError: a file holds one.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in OWN)
    found = [path for path in files if any(_is_forgotten(text, key, done) for text in set(_texts(path)))]
    if found:
        names = ", ".join(str(path) for path in found)
        raise RunError(
            f"the requests are answered, but {names} still names users or items that were forgotten; delete what is no "
            "part of the served model, then check again with --resume."
        )


def _is_forgotten(text: str, key: bytes, done: set[str]) -> bool:
    return any(id_digest(key, kind, text) in done for kind in ("users", "items"))


def _texts(path: Path) -> Iterator[str]:
    """Yield the texts in a file that may be ids."""
    if path.suffix == ".json":
        yield from _strings(read_json(path))
    elif path.name == JOURNAL:  # A last line that a crash cut is no JSON, but is looked into as well.
        yield from SEPARATORS.split(read_bytes(path).decode(errors="replace"))
    elif path.suffix in (".yaml", ".yml"):
        yield from _strings(read_yaml(path))
    elif path.suffix == ".safetensors":
        yield from _strings(_header(path))
    else:
        yield from SEPARATORS.split(read_bytes(path).decode(errors="replace"))


def _strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        yield from tree
    if isinstance(tree, dict | list):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _strings(part)
    elif isinstance(tree, str):
        yield tree


def _header(path: Path) -> Any:
    """Return the facts that stand at the head of the model file; the rest of it are numbers."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return [json.loads(text) for text in (file.metadata() or {}).values()]
