"""Provenance of a model on its report card: digests, logs, and the files that still hold the data.

Read once from the folders, when a report is written; cards are then made from report.json alone.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.digests import positions_digest, stands_for
from msgm.folders import is_hidden
from msgm.runs import Run

LOGGED = ("status", "seed", "device", "processes", "platform", "parameters", "forget_digest", "data_digest", "cached")
CHUNK = 1 << 20


def provenance(run: Run, row: dict[str, Any], forget: NDArray[np.int64]) -> dict[str, Any]:
    """Return the recorded provenance of a row's model.

    Args:
        run: the folder of the report.
        row: a measured row; ``model`` is its model folder, relative to the run.
        forget: (n,) positions of the training items to forget.

    Returns:
        ``model_digest``, and the log of the model's own run; null for entries that were not logged. A logged digest of
        the same items to forget, which is keyed with its own folder's key, is given as the report's digest of them.
    """
    if "model" not in row:
        return {"model_digest": None, **dict.fromkeys(LOGGED)}
    model = run.path / row["model"]
    made = Run(model.parent)
    log = made.stored_manifest() if model == made.model else {}
    found = {key: log.get(key) for key in LOGGED}
    if found["forget_digest"] is not None:
        same = stands_for(str(found["forget_digest"]), made.path, forget)
        found["forget_digest"] = positions_digest(run.path, forget) if same else None if same is None else "other items"
    return {"model_digest": model_digest(model), **found}


def model_digest(folder: Path) -> str | None:
    """Return the SHA-256 over the visible safetensors files of a model folder in the order of their names."""
    files = sorted(path for path in folder.rglob("*.safetensors") if not is_hidden(path.relative_to(folder)))
    if not files:
        return None
    found = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                found.update(chunk)
    return found.hexdigest()
