"""What a generator was asked to forget before: its folder's chain, or what a run of the first version says of it.

The first version wrote no ``chain.json``. There, a run's config names the request, and its manifest the source that it
started from, whose own run may be another request's; the chain is made from these, from the first to the last.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from msgm.chain import Chain, Entry, read_chain
from msgm.config import Config, load_config
from msgm.data import DATASETS, Dataset
from msgm.digests import folder_key, read_key, stands_for
from msgm.errors import UserError
from msgm.objectives import OBJECTIVES
from msgm.reading import read_json
from msgm.runs import Run


def earlier_chain(folder: Path, config: Config, dataset: Dataset, fresh: bool = False) -> Chain:
    """Return what the model in ``folder`` was asked to forget, checked against the data that is here now.

    Args:
        folder: model folder.
        config: the experiment, which says how the data is split.
        dataset: its data.
        fresh: start a chain anew, on purpose; the new one names what it leaves behind.

    Raises:
        UserError: a damaged chain, or data that is not the chain's.
    """
    if fresh:
        found = read_chain(folder) or Chain(unknown="a model without chain.json")
        return found.started_anew()
    found = chain_of(folder, dataset)
    facts = DATASETS.build(config.data).split_facts(dataset)
    found.check(dataset, facts, read_key(folder.parent), folder)
    return found


def chain_of(folder: Path, dataset: Dataset) -> Chain:
    """Return the chain of a model folder; where it has none, what is known instead is printed.

    Raises:
        UserError: a damaged chain, or a run of the first version on other data.
    """
    found = read_chain(folder)
    if found is not None:
        return found
    if not _is_run(folder):
        reason = f"{folder} has no chain.json: what it was asked to forget before is not known"
        print(f"note: {reason}.", flush=True)
        return Chain(unknown=reason)
    chain = _first_version(Run(folder.parent), dataset, set())
    asked = "; then ".join(entry.text for entry in chain.requests) or "no request"
    print(f"note: {folder.parent} is of msgm's first version; by its config and manifest it answered: {asked}.")
    return chain


def extended(
    chain: Chain, config: Config, dataset: Dataset, folder: Path, from_scratch: bool, asked: bool = True
) -> Chain:
    """Return the chain of a model that was made in the run ``folder`` by the config's objective.

    Args:
        chain: of the model that it started from.
        config: the experiment: request and objective.
        dataset: its data.
        folder: run folder that the model is written to; its key is made there.
        from_scratch: whether the model started from random weights.
        asked: whether the objective ran at all; one that trains on all data answers no request either.
    """
    facts, name = DATASETS.build(config.data).split_facts(dataset), config.objective["name"]
    if not asked or OBJECTIVES.entries[name].data == "all":
        return chain.over(dataset, facts, folder_key(folder) if chain.requests else None)
    by = f"{name} from random weights" if from_scratch else name
    entry = Entry.of(config.request, dataset.forget_mask(config.request), by)
    return chain.extended(entry, dataset, facts, folder_key(folder))


def _is_run(folder: Path) -> bool:
    """Return whether a model folder is that of a run with its config and manifest."""
    run = Run(folder.parent)
    return folder.name == run.model.name and run.manifest.is_file() and run.config.is_file()


def _first_version(run: Run, dataset: Dataset, seen: set[Path]) -> Chain:
    """Return the chain that config and manifest of a run without ``chain.json`` give, its sources' first."""
    seen.add(run.path.resolve())
    manifest = read_json(run.manifest)
    source, start = manifest.get("source"), manifest.get("start")
    before = Chain() if source is None else _of_source(str(source), run, dataset, seen)
    config = load_config(run.config)
    name = config.objective["name"]
    if start not in ("scratch", "finetune") or OBJECTIVES.entries[name].data == "all":
        return before
    mask, by = _named(run, config, dataset, manifest), f"{name} from random weights" if start == "scratch" else name
    request = config.request
    entry = Entry(
        request.describe(), request.goal, request.target, request.selector(), by, None, np.flatnonzero(mask), "1"
    )
    facts = DATASETS.build(config.data).split_facts(dataset)
    chain = Chain((*before.requests, entry), unknown=before.unknown, anew=before.anew)
    return chain.over(dataset, facts, None)


def _of_source(source: str, run: Run, dataset: Dataset, seen: set[Path]) -> Chain:
    """Return the chain of the model folder ``source`` that a manifest names, relative to a folder nobody recorded."""
    for start in (Path(), *run.path.resolve().parents):
        folder = start / source
        if not folder.is_dir() or folder.parent.resolve() in seen:
            continue
        found = read_chain(folder)
        if found is not None:
            return found
        if _is_run(folder):
            return _first_version(Run(folder.parent), dataset, seen)
    reason = f"{run.path} started from {source}, which is not here: what that one was asked to forget is not known"
    print(f"note: {reason}.", flush=True)
    return Chain(unknown=reason)


def _named(run: Run, config: Config, dataset: Dataset, manifest: dict[str, object]) -> NDArray[np.bool_]:
    """Return the items that a run of the first version forgot, if its digests say that they are the same ones now."""
    try:
        mask = dataset.forget_mask(config.request)
        split = DATASETS.build(config.data).split(dataset, config.request)
    except UserError as error:
        raise UserError(
            f"{run.path}: its request cannot be read any more: {error} --fresh-chain starts anew."
        ) from error
    wrong = {}
    given = manifest.get("forget_digest")
    if given is not None and stands_for(str(given), run.path, split.train.forget) is False:
        wrong["forget_digest"] = "names other items"
    if dataset.files is None and isinstance(dataset.items, Tensor):  # pictures were read in another way then
        labels = b"" if dataset.labels is None else dataset.labels.tobytes()
        digest = _digest(dataset.items.numpy().tobytes() + labels)
        if manifest.get("data_digest", digest) != digest:
            wrong["data_digest"] = "is of other data"
    for key, what in wrong.items():
        raise UserError(
            f"{run.path}: its request {what} than when it was made ({key}); give the same data, or start a new "
            "history with --fresh-chain."
        )
    return mask


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
