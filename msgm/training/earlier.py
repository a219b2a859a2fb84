"""The chain of a generator's forget requests: read before a request, and extended after it."""

from pathlib import Path

from msgm import first_version
from msgm.chain import Chain, Entry, read_chain
from msgm.config import Config, load_config
from msgm.data import DATASETS, Dataset
from msgm.digests import folder_key, model_key
from msgm.errors import UserError
from msgm.objectives import OBJECTIVES
from msgm.plugins import load_received
from msgm.runs import Run


def earlier_chain(folder: Path, config: Config, dataset: Dataset, fresh: bool = False) -> Chain:
    """Return the chain of the model in ``folder``, checked against the present data.

    Args:
        folder: model folder.
        config: the experiment, which says how the data is split.
        dataset: its data.
        fresh: start a new chain deliberately; it records which earlier requests it drops.

    Raises:
        UserError: a damaged chain, or data that is not the chain's.
    """
    if fresh:
        return (read_chain(folder) or Chain(unknown="what a model without chain.json was asked")).started_anew()
    found = chain_of(folder, dataset, config)
    found.check(dataset, split_facts(config, dataset), model_key(folder), folder)
    return found


def chain_of(folder: Path, dataset: Dataset, own: Config | None = None) -> Chain:
    """Return the chain of a model folder; errors as in ``first_version.chain_of``.

    Args:
        folder: model folder.
        dataset: its data.
        own: the user's own experiment; code that a received run names is run only if this names it too, or on trust.
    """

    def answer(run: Run, manifest: first_version.Manifest, before: Chain) -> Chain:
        config = load_config(load_received(run.path, own=None if own is None else own.to_dict()))
        return _answered(run, config, manifest, before, dataset)

    return first_version.chain_of(folder, answer)


def split_facts(config: Config, dataset: Dataset) -> dict[str, float | int]:
    """Return the settings that say which items are held out."""
    return DATASETS.build(config.data).split_facts(dataset)


def extended(
    chain: Chain, config: Config, dataset: Dataset, folder: Path, from_scratch: bool, asked: bool = True
) -> Chain:
    """Return the chain of a model that was made in the run ``folder`` by the config's objective or edit.

    Args:
        chain: of the model that it started from.
        config: the experiment: request, and objective or edit.
        dataset: its data.
        folder: run folder that the model is written to; its key is made there.
        from_scratch: whether the model started from random weights.
        asked: whether the objective was run; one that trains on all data answers no request either.
    """
    facts = split_facts(config, dataset)
    if not asked or not config.forgets:
        return chain.over(dataset, facts, folder_key(folder) if chain.requests else None)
    entry = Entry.of(config.request, dataset.forget_mask(config.request), answered_by(config.method, from_scratch))
    return chain.extended(entry, dataset, facts, folder_key(folder))


def answered_by(name: str, from_scratch: bool) -> str:
    """Return the chain's text on the objective that answered a request."""
    return f"{name} from random weights" if from_scratch else name


def _answered(run: Run, config: Config, manifest: first_version.Manifest, before: Chain, dataset: Dataset) -> Chain:
    """Return the chain of a run that the first version wrote."""
    start = manifest.get("start")
    name = config.objective["name"]
    facts = split_facts(config, dataset)
    if start not in ("scratch", "finetune") or OBJECTIVES.entries[name].data == "all":
        return before.over(dataset, facts, None)
    try:
        mask = dataset.forget_mask(config.request)
        split = DATASETS.build(config.data).split_by(dataset, mask)
    except UserError as error:
        raise UserError(f"{run.path}: its request cannot be read now: {error} --fresh-chain starts anew.") from error
    first_version.refuse_other(run, manifest, dataset, split.train.forget)
    entry = first_version.entry_of(config.request, mask, answered_by(name, start == "scratch"))
    chain = Chain((*before.requests, entry), unknown=before.unknown, anew=before.anew)
    return chain.over(dataset, facts, None)
