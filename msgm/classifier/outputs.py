"""Logits of a model on the parts of a split, in memory and as .npz: all that most metrics and the audit read.

A file holds ``logits_PART`` (n, C) and ``labels_PART`` (n,) for the parts retain, forget, nonmembers and test, tuning
if at hand. Any framework can write it. ``strata_PART`` (n,), whole numbers, may say which items attacks on membership
compare: those of one class and one source (a patient, a site) have the same number; without it, those of one class.
``history``, JSON as text, may say what else the model was asked to forget.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.cards.history import History, HistoryTree
from msgm.errors import UserError
from msgm.folders import write_bytes
from msgm.reading import parse_json, read_npz

NEEDED = ("retain", "forget", "nonmembers", "test")


@dataclass(frozen=True, eq=False)
class Outputs:
    """Logits of a model on the parts of a split, with the true classes.

    Attributes:
        logits: part to (n, C) float64.
        labels: part to (n,) int64 true classes.
        history: forget requests so far and whether earlier ones still hold (``msgm.cards.history``); None if unknown.
        strata: part to (n,) int64 codes of the items' class and source; where it is empty, the classes serve.
    """

    logits: Mapping[str, NDArray[np.float64]]
    labels: Mapping[str, NDArray[np.int64]]
    history: History | None = None
    strata: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def stratum(self, part: str) -> NDArray[np.int64]:
        """Return (n,) codes of the items' class and source; attacks on membership compare items of the same one."""
        return self.strata.get(part, self.labels[part])

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.logits["forget"].shape[1])

    def log_probabilities(self, part: str) -> NDArray[np.float64]:
        """Return (n, C) natural logarithms of the softmax."""
        z = self.logits[part]
        shifted = z - z.max(1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))

    def right(self, part: str) -> NDArray[np.float64]:
        """Return (n,) correctness: 1 / k if the true class is among the k tied for the largest logit, else 0."""
        return credit(self.logits[part], self.labels[part])

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        arrays: dict[str, Any] = {f"logits_{part}": z.astype(np.float32) for part, z in self.logits.items()}
        arrays |= {f"labels_{part}": y for part, y in self.labels.items()}
        arrays |= {f"strata_{part}": codes for part, codes in self.strata.items()}
        arrays |= {} if self.history is None else {"history": np.array(json.dumps(self.history))}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_bytes(path, buffer.getvalue())


def credit(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n,) correctness in [0, 1]: 1 / k if the true class is among the k classes with the largest logit."""
    largest = logits == logits.max(1, keepdims=True)
    return np.asarray(largest[np.arange(len(labels)), labels] / largest.sum(1))


def load_outputs(path: Path | str) -> Outputs:
    """Read a file of logits.

    Raises:
        UserError: no such file, an array missing, of a wrong kind or shape, not finite, labels outside the classes, or
            a stratum of several classes.
    """
    needed = {f"{name}_{part}": kinds for part in NEEDED for name, kinds in (("logits", "fiu"), ("labels", "iu"))}
    arrays = read_npz(Path(path), needed)
    parts = [name.removeprefix("logits_") for name in arrays if name.startswith("logits_")]
    _check_kinds(arrays, path)
    found = Outputs(
        {part: arrays[f"logits_{part}"].astype(np.float64) for part in parts},
        {part: arrays[f"labels_{part}"].astype(np.int64) for part in parts if f"labels_{part}" in arrays},
        parse_json(str(arrays["history"]), f"{path}: history", HistoryTree) if "history" in arrays else None,
        {part: arrays[f"strata_{part}"].astype(np.int64) for part in parts if f"strata_{part}" in arrays},
    )
    _check(found, path)
    return found


def _check_kinds(arrays: Mapping[str, NDArray[Any]], path: Path | str) -> None:
    for name, array in arrays.items():
        if name.startswith("logits_") and array.dtype.kind not in "fiu":
            raise UserError(f"{path}: {name} must hold real numbers, got {array.dtype}.")
        if name.startswith(("labels_", "strata_")) and array.dtype.kind not in "iu":
            raise UserError(f"{path}: {name} must hold whole numbers, got {array.dtype}.")


def _check(found: Outputs, path: Path | str) -> None:
    z = found.logits["forget"]
    classes = z.shape[1] if z.ndim == 2 else 0
    if classes < 2:
        raise UserError(f"{path}: logits_forget must have two classes or more, (n, C), got the shape {z.shape}.")
    for part, z in found.logits.items():
        if part not in found.labels:
            raise UserError(f"{path}: labels_{part} is missing.")
        y = found.labels[part]
        if z.ndim != 2 or z.shape[1] != classes or y.shape != z.shape[:1] or not len(y):
            raise UserError(f"{path}: logits_{part} of shape {z.shape} do not fit labels of shape {y.shape}.")
        if not np.isfinite(z).all():
            raise UserError(f"{path}: logits_{part} hold numbers that are not finite.")
        if y.min() < 0 or y.max() >= classes:
            raise UserError(f"{path}: labels_{part} lie outside 0 to {classes - 1}.")
    if found.strata:
        _check_strata(found, path)


def _check_strata(found: Outputs, path: Path | str) -> None:
    """Refuse strata that some items lack, or that hold items of several classes."""
    for part, y in found.labels.items():
        if part not in found.strata:
            raise UserError(f"{path}: strata_{part} is missing, where other parts have strata.")
        if found.strata[part].shape != y.shape:
            raise UserError(
                f"{path}: strata_{part} of shape {found.strata[part].shape} do not fit labels of shape {y.shape}."
            )
    codes, labels = (np.concatenate([tree[part] for part in found.labels]) for tree in (found.strata, found.labels))
    pairs = np.unique(np.stack([codes, labels]), axis=1)
    shared = pairs[0, 1:][pairs[0, 1:] == pairs[0, :-1]]
    if len(shared):
        raise UserError(f"{path}: the stratum {shared[0]} holds items of several classes; give each class its own.")
