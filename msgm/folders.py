"""Writing files into folders: whole or not at all."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: temporary file beside it, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write text as ``write_bytes`` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, tree: Any) -> None:
    """Write JSON as ``write_bytes`` does; NaN and infinity are refused."""
    write_text(path, json.dumps(tree, indent=2, allow_nan=False) + "\n")
