"""What a report card has to record of a model: digests, logs, and the files that still hold the data.

Read once from the folders, when a report is written; cards are then made from report.json alone.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.digests import positions_digest, stands_for
from msgm.folders import is_hidden
from msgm.runs import Run

LOGGED = ("status", "seed", "device", "processes", "platform", "parameters", "forget_digest", "data_digest")
CHUNK = 1 << 20


def provenance(run: Run, row: dict[str, Any], forget: NDArray[np.int64]) -> dict[str, Any]:
    """Return what is known of how a row's model was made.

    Args:
        run: the folder of the report.
        row: a measured row; ``model`` is its model folder, relative to the run.
        forget: (n,) positions of the training items to forget.

    Returns:
        ``model_digest``, and what the model's own run has logged; null for what nobody logged. A logged digest of the
        same items to forget, which is keyed with its own folder's key, is given as the report's digest of them.
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


def artifacts(run: Run, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the files on disk that were made from the data to forget, as ``path``, ``what`` and ``megabytes``.

    Only the report's folder and the runs of its models are looked into: copies elsewhere are not found.
    """
    models = {run.path / row["model"]: row for row in rows if "model" in row}
    for model in sorted((run.path / "rows").glob("*/model")):
        models.setdefault(model, _of_log(Run(model.parent)))
    found: dict[Path, str] = {}
    for model, row in models.items():
        found |= _of_model(model) if _saw_forget_items(row) else {}
    for row in rows:
        picture = row.get("neighbours", {}).get("picture")
        if picture is not None and "folder" in row:
            found[run.path / row["folder"] / picture] = "a picture with training items to forget; its card shows it too"
    found |= {
        run.path / "judge" / "judge.safetensors": "the judge, trained on the items to forget too",
        run.path / "reference": "statistics of the data",
    }
    return [
        {"path": _relative(path, run.path), "what": what, "megabytes": round(_size(path) / 2**20, 2)}
        for path, what in found.items()
        if path.exists()
    ]


def _of_log(run: Run) -> dict[str, Any]:
    """Return how a model was made that the report has no row of: unfinished, or of an earlier comparison."""
    log = run.stored_manifest()
    return {"start": log.get("start"), "objective": log.get("objective")}


def _saw_forget_items(row: dict[str, Any]) -> bool:
    return row["start"] != "random" and (row["start"], row["objective"]) != ("scratch", "unseen")


def _of_model(model: Path) -> dict[Path, str]:
    """Return what lies in a model's run."""
    found = {model: "model that was trained on the items to forget, or unlearned from one that was"}
    made = Run(model.parent)
    if model != made.model:
        return found
    return found | {
        made.checkpoints: "its checkpoints: raw and averaged weights, the optimiser's state",
        made.course: "its weights in the course of training",
    }


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start)).as_posix()


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
