"""Arrays by name in one .npz file, written whole or not at all and read without unpickling."""

import io
from pathlib import Path

import numpy as np

from msgm.errors import UserError
from msgm.folders import write_bytes
from msgm.reading import Arrays, read_npz


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write ``arrays`` as ``write_bytes`` does."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> Arrays | None:
    """Return the arrays of a file; None when there is none, or it is damaged."""
    try:
        return read_npz(path)
    except UserError:
        return None
