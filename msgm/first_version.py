"""Reconstructs chains of runs of msgm's first version, which wrote no ``chain.json``.

There, a run's config names its request, and its manifest the source that it started from, whose own run may be another
request's. A chain is made from these, from the first run to the last.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from msgm.chain import Chain, Entry, read_chain
from msgm.data import Dataset
from msgm.digests import short_digest, stands_for
from msgm.errors import UserError
from msgm.reading import read_json
from msgm.runs import Run

Manifest = dict[str, Any]
Answer = Callable[[Run, Manifest, Chain], Chain]
"""Returns the chain of a run from its manifest and the chain of its source."""


def chain_of(folder: Path, answer: Answer) -> Chain:
    """Return the chain of a model folder; if it has no ``chain.json``, print what is known from its run instead.

    Args:
        folder: model folder.
        answer: returns the chain extended by the request of a first-version run.

    Raises:
        UserError: a damaged chain, or a run of the first version on other data.
    """
    found = read_chain(folder)
    if found is not None:
        return found
    if not _is_of_run(folder):
        return _unknown(f"{folder} has no chain.json: what it was asked to forget before is not known")
    chain = _chain(Run(folder.parent), answer, set())
    asked = "; then ".join(entry.text for entry in chain.requests) or "no request"
    print(f"note: {folder.parent} is of msgm's first version; by its config and manifest it answered: {asked}.")
    return chain


def entry_of(request: Any, mask: NDArray[np.bool_], by: str) -> Entry:
    """Return the entry of a request whose date was not recorded."""
    named = (request.describe(), request.goal, request.target, request.selector())
    return Entry(*named, by, None, np.flatnonzero(mask), "1")


def refuse_other(run: Run, manifest: Manifest, dataset: Dataset, forget: NDArray[np.int64]) -> None:
    """Refuse to take the training items ``forget`` for those that a run forgot, where its digests say otherwise.

    Raises:
        UserError: says which digest differs.
    """
    wrong = {}
    if stands_for(str(manifest.get("forget_digest")), run.path, forget) is False:
        wrong["forget_digest"] = "names other items"
    if dataset.files is None and isinstance(dataset.items, Tensor):  # pictures were read in another way then
        labels = b"" if dataset.labels is None else dataset.labels.tobytes()
        digest = short_digest([dataset.items.numpy().tobytes(), labels])
        if manifest.get("data_digest", digest) != digest:
            wrong["data_digest"] = "is of other data"
    for key, what in wrong.items():
        raise UserError(
            f"{run.path}: its request {what} than when it was made ({key}); give the same data, or start a new "
            "history with --fresh-chain."
        )


def _chain(run: Run, answer: Answer, seen: set[Path]) -> Chain:
    seen.add(run.path.resolve())
    manifest = read_json(run.manifest, dict[str, Any])
    source = manifest.get("source")
    before = Chain() if source is None else _of_source(str(source), run, answer, seen)
    return answer(run, manifest, before)


def _of_source(source: str, run: Run, answer: Answer, seen: set[Path]) -> Chain:
    """Return the chain of a manifest's source, whose path is relative to an unrecorded folder."""
    for start in (Path(), *run.path.resolve().parents):
        for folder in (start / source, start / source / "model"):
            if not folder.is_dir() or folder.parent.resolve() in seen:
                continue
            found = read_chain(folder)
            if found is not None:
                return found
            if _is_of_run(folder):
                return _chain(Run(folder.parent), answer, seen)
    return _unknown(
        f"{run.path} started from {source}, which is no run that is here: what that one was asked to forget is not "
        "known"
    )


def _is_of_run(folder: Path) -> bool:
    """Return whether a model folder is that of a run with its config and manifest."""
    run = Run(folder.parent)
    return folder.name == run.model.name and folder.is_dir() and run.manifest.is_file() and run.config.is_file()


def _unknown(reason: str) -> Chain:
    print(f"note: {reason}.", flush=True)
    return Chain(unknown=reason)
