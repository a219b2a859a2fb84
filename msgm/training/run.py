"""Training and unlearning as runs: a folder with its settings, manifest, checkpoints and model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from msgm import threads, traces
from msgm.cache import Cache
from msgm.chain import Chain, Entry, gone_before
from msgm.config import Config
from msgm.data import DATASETS, Dataset, load_dataset
from msgm.diffusion import GUIDANCE, ScoreModel, Sharded
from msgm.diffusion.description import describe
from msgm.diffusion.guidance.stored import FOLDER as GUIDANCE_FOLDER
from msgm.diffusion.guidance.stored import guidance_beside
from msgm.diffusion.networks import TextNetwork
from msgm.digests import positions_digest
from msgm.errors import UserError
from msgm.folders import locked, write_json
from msgm.objectives import OBJECTIVES
from msgm.objectives.edits import EDITS
from msgm.requests import ForgetRequest
from msgm.runs import Run, environment, find_model
from msgm.seeding import derive_seed
from msgm.settings import differences
from msgm.splits import Split
from msgm.training.adapters import refuse_from_scratch
from msgm.training.deleting import Deleter, deletion_config, is_sharded, refuse_shards
from msgm.training.earlier import earlier_chain, extended
from msgm.training.editing import Editor
from msgm.training.guiding import Guider, refuse_guidance
from msgm.training.occupying import device_name, occupy, peak_memory
from msgm.training.occupying import finished as finished
from msgm.training.prompting import unlearn_prompts
from msgm.training.prompts import prompted
from msgm.training.retrained import is_shared, shared
from msgm.training.shards import FOLDER as SHARDS
from msgm.training.trainer import Trainer


def train(config: Config, out: Path | str | None = None, resume: bool = False, device: str = "auto") -> Run:
    """Train a model from random weights with the config's objective.

    Example:
        >>> run = train(msgm.load_config({}, [*tiny, "training.steps=2"]), out / "base")
        base: standard, 2 steps on ...
        >>> run.finished_manifest()["start"]
        'scratch'

    Args:
        config: the experiment.
        out: run folder; by default ``runs/NAME``.
        resume: go on with a run that was stopped.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        UserError: a folder that holds another run, data that does not fit, and what ``Trainer`` raises.
    """
    if config.edit:
        raise UserError(f"edit.name: {config.method!r} edits a trained model; use unlearn, which takes one.")
    refuse_shards(config)
    refuse_guidance(config)
    dataset, split = load_data(config)
    return fit(config, Run(out or Path("runs") / config.name), dataset, split, None, resume, device)


def unlearn(
    config: Config,
    source: Path | str,
    out: Path | str | None = None,
    resume: bool = False,
    device: str = "auto",
    fresh_chain: bool = False,
) -> Run:
    """Fine-tune a trained model with the config's objective and the overrides of its section ``finetune``.

    Example:
        >>> config = msgm.load_config({}, [*tiny, "objective.name=unseen", "finetune.steps=2"])
        >>> run = unlearn(config, compared / "rows" / "do-nothing", out / "unlearned")
        unlearned: unseen, 2 steps on ...
        >>> run.finished_manifest()["start"]
        'finetune'

    A config with an edit makes that, and training follows where its objective is not one of all data. Without data
    (``data: {}``) the edit reads prompts, of a text-to-image model. From a sharded generator the request's items are
    deleted: the shards that hold one are trained again without it, with the settings that they were trained with, and
    ``out`` gets copies of the others.

    What ``source`` was asked to forget before stays forgotten: no such item is trained on.

    Args:
        config: the experiment.
        source: a run folder, or a diffusers folder.
        out: run folder; by default ``runs/NAME-OBJECTIVE``, or ``runs/NAME-EDIT``.
        resume: go on with a run that was stopped.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        fresh_chain: start a new history: items of earlier requests are items to retain again, and the card says so.

    Raises:
        UserError: an objective that forgets nothing, no model in ``source``, a model of another process or item
            shape, data that is not that of earlier requests, an ``out`` that is the source, and what ``train`` raises.
    """
    refuse_guidance(config)
    found = find_model(source)
    if is_sharded(found):
        config = deletion_config(config, found, fresh_chain)
    else:
        refuse_shards(config)
    if not config.forgets:
        known = ", ".join(key for key, entry in OBJECTIVES.entries.items() if entry.data != "all")
        raise UserError(
            f"objective.name: {config.method!r} trains on the forget set too; to unlearn, choose one of {known}, an "
            f"edit.name of {', '.join(EDITS.entries)}, or --from a sharded generator, which is a row's folder."
        )
    run = Run(out or Path("runs") / f"{config.name}-{config.method}")
    if found.resolve() == run.model.resolve():
        raise UserError(f"--out: {run.path} holds the model of --from, which would be lost; give another folder.")
    if not config.data:
        return unlearn_prompts(config, run, found, resume, device, fresh_chain)
    dataset = load_dataset(config.data)
    chain = earlier_chain(found, config, dataset, fresh_chain)
    split = split_data(config, dataset, chain.requests)
    tuned = replace(config, training=config.finetuning(), finetune={})
    return fit(tuned, run, dataset, split, found, resume, device, chain)


def load_data(config: Config) -> tuple[Dataset, Split]:
    """Load the config's data set and split it by its request, the first one; an objective of all data needs none."""
    dataset = load_dataset(config.data)
    if not config.forgets and not config.request.named:
        return dataset, DATASETS.build(config.data).split_by(dataset, np.zeros(len(dataset), dtype=bool))
    return dataset, split_data(config, dataset)


def split_data(config: Config, dataset: Dataset, asked: Sequence[Entry] = ()) -> Split:
    """Split the data by the config's request, for a model whose chain has the requests ``asked``."""
    mask = dataset.forget_mask(config.request)
    return DATASETS.build(config.data).split_by(dataset, mask, gone_before(mask, asked))


def fit(
    config: Config,
    run: Run,
    dataset: Dataset,
    split: Split,
    source: Path | None,
    resume: bool,
    device: str = "auto",
    chain: Chain | None = None,
    cache: Cache | None = None,
) -> Run:
    """Train as ``config`` says, from random weights or from the model folder ``source``, into ``run``.

    Example:
        >>> config = msgm.load_config({}, [*tiny, "training.steps=2"])
        >>> run = fit(config, msgm.Run(out / "base"), *load_data(config), source=None, resume=False)
        base: standard, 2 steps on ...
        >>> run.model.is_dir()
        True

    ``chain`` holds the requests before this one, whose items ``split`` keeps apart as gone. A model that is retrained
    without the request is read from ``cache``, or trained and added to it.
    """
    with locked(run.path):
        return _fit(config, run, dataset, split, source, resume, device, chain or Chain(), cache)


def _fit(
    config: Config,
    run: Run,
    dataset: Dataset,
    split: Split,
    source: Path | None,
    resume: bool,
    device: str,
    chain: Chain,
    cache: Cache | None,
) -> Run:
    threads.keep(run.manifest)
    model = new_model(config, dataset) if source is None or config.shards else load_source(source, config, dataset)
    prompted(model, dataset, config.request.concept)
    check_conditions(model, dataset, config.request)
    config = replace(config, process=describe(model.process))
    trainer = _trainer(config, model, dataset, split, source, run, device)
    main, wait = trainer.accelerator.is_main_process, trainer.accelerator.wait_for_everyone
    if main:
        occupy(run, config, source, resume)
    wait()
    if finished(run):
        return run
    kept, taken = None, dict[str, Any]()
    if cache is not None and source is None and is_shared(config):
        kept = shared(cache, config, dataset, split, chain, trainer.accelerator, run)
    if main:
        manifest = _manifest(config, trainer, source, dataset, split)
        announce(trainer.label, config.method, trainer)
        _register(run, trainer, source, str(manifest["request"]))
        taken = kept.take() if kept else {}
        write_json(run.manifest, manifest | taken)
        from_scratch = source is None and not config.shards
        model.chain = extended(chain, config, dataset, run.path, from_scratch, asked=not config.guidance)
    wait()
    trainer.train()
    trainer.save()
    if main:
        done: dict[str, object] = {
            "seconds": round(trainer.state.seconds, 2),
            "peak_memory_mb": peak_memory(trainer.accelerator.device),
        }
        done["drawn"] = dict(trainer.drawn)
        if isinstance(trainer, Deleter):
            traces.register(run.path, run.path / SHARDS, *traces.KNOWN[SHARDS], str(manifest["request"]))
        traces.seal(run.path, run.model, run.adapter, run.path / GUIDANCE_FOLDER, run.path / SHARDS)
        write_json(run.manifest, manifest | done | trainer.findings() | taken | {"status": "finished"})
        if kept and not taken:
            kept.keep(manifest | done)
    wait()
    return run


def _trainer(
    config: Config, model: ScoreModel, dataset: Dataset, split: Split, source: Path | None, run: Run, device: str
) -> Trainer:
    """Return what makes the run: a trainer, the editor of an edit, or what prepares guidance."""
    seed = derive_seed(config.seed, "finetune" if source else "scratch")
    given = (dataset, split.train, config.training, seed, run, device, run.path.name, config.request.means)
    concept = config.request.concept
    if config.edit:
        objective = OBJECTIVES.build(config.objective) if config.follows else None
        return Editor(model, EDITS.build(config.edit), *given, objective, concept)
    if config.shards:
        return Deleter(model, config, *given, source)
    if config.guidance:
        return Guider(model, GUIDANCE.build(config.guidance), *given, concept)
    return Trainer(model, OBJECTIVES.build(config.objective), *given, concept)


def announce(label: str, method: str, trainer: Trainer) -> None:
    """Print what is about to be done: objective, steps, device and items; edits and guidance make no steps."""
    part, where = trainer.part, device_name(trainer.accelerator.device)
    items = f"{len(part.retain)} retain and {len(part.forget)} forget items of {trainer.dataset.name}"
    items += f", without {len(part.gone)} forgotten before" if len(part.gone) else ""
    steps = f", {trainer.settings.steps} steps" if trainer.makes_steps else ""
    print(f"{label}: {method}{steps} on {where}; {items}", flush=True)


def _register(run: Run, trainer: Trainer, source: Path | None, request: str) -> None:
    """Register in the folder's ``traces.json`` the files that training will write, and the items that they saw."""
    anew = source is None or isinstance(trainer, Deleter)
    part: traces.Part = "retain" if anew and trainer.objective.data == "retain" else "all"
    if isinstance(trainer, Guider):
        traces.register(run.path, run.path / GUIDANCE_FOLDER, *traces.KNOWN[GUIDANCE_FOLDER])
    adapter = [run.adapter] if trainer.settings.adapter is not None else []
    for path in (run.model, *adapter, run.checkpoints, run.course, run.samples):
        traces.register(run.path, path, traces.KNOWN[path.name][0], part, request)
    if source is not None:
        traces.follow(run.path, source)


def new_model(config: Config, dataset: Dataset) -> ScoreModel:
    """Return a model with random weights, whose chain the run writes.

    Raises:
        UserError: an adapter of it, and what ``ScoreModel.new`` raises.
    """
    refuse_from_scratch(config.training)
    return replace(ScoreModel.new(config.network, config.process, dataset.shape, config.seed), sealed=None)


def load_source(source: Path, config: Config, dataset: Dataset) -> ScoreModel:
    """Load the model to start from, and check that it fits the config and the data."""
    if guidance_beside(source) is not None:
        raise UserError(
            f"{source} has the weights of its base model, of which only the samples are guided; start from that model."
        )
    model = ScoreModel.load(source)
    if isinstance(model, Sharded):
        raise UserError(
            f"{source} holds models of shards, which forget by deletion and are not fine-tuned; delete from it with "
            "msgm unlearn CONFIG --from RUN, or start from another model."
        )
    wanted = config.process["name"]
    if model.process.name != wanted:
        raise UserError(f"{source} holds a model of process {model.process.name!r}, but process.name is {wanted!r}.")
    if model.shape != dataset.shape:
        raise UserError(f"{source} makes items of shape {model.shape}, but the data has {dataset.shape}.")
    classes = config.network.get("classes", 0)
    if model.classes != classes and not isinstance(model.network, TextNetwork):
        raise UserError(
            f"{source} holds a model of {model.classes} classes (0: unconditional), but network.classes is {classes}; "
            f"set network.classes={model.classes}, or start from another model."
        )
    if differences(config.process, describe(model.process)):
        print(f"note: the settings of process {wanted!r} are taken from {source}, not from the config.")
    return model


def check_conditions(model: ScoreModel, dataset: Dataset, request: ForgetRequest | None) -> None:
    """Check that a request means what the model has, and that a conditional one knows the data's labels or prompts.

    Raises:
        UserError: a request that means a condition of an unconditional model, data without labels, or with more
            classes or prompts than the model has.
    """
    if request is not None:
        request.check_means(model.classes)
    if model.classes:
        labels = dataset.asks
        if labels is None:
            raise UserError(f"network.classes: a class-conditional network needs labels, and {dataset.name} has none.")
        if labels.max() >= model.classes:
            kind = "prompts" if dataset.prompts else "classes"
            raise UserError(f"network.classes: {dataset.name} has {labels.max() + 1} {kind}, got {model.classes}.")


def _manifest(
    config: Config, trainer: Trainer, source: Path | None, dataset: Dataset, split: Split
) -> dict[str, object]:
    accelerator = trainer.accelerator
    return environment() | {
        "status": "running",
        "source": str(source) if source else None,
        "start": _start(config, source),
        "request": config.request.describe(),
        "objective": config.method,
        "seed": config.seed,
        "device": device_name(accelerator.device),
        "processes": accelerator.num_processes,
        "effective_batch": config.training.batch_size,
        "parameters": trainer.base.parameter_count(),
        "weights": _weights(config),
        "data_digest": dataset.digest(),
        "data_omissions": dataset.omissions(),
        "forget_digest": positions_digest(trainer.run.path, split.train.forget),
        "items": {kind: len(getattr(split.train, kind)) for kind in ("retain", "forget", "gone")},
    }


def _start(config: Config, source: Path | None) -> str:
    if config.shards:
        return "shards"
    if config.edit or config.guidance:
        return "edit" if config.edit else "guide"
    return "finetune" if source else "scratch"


def _weights(config: Config) -> str:
    if config.guidance:
        return "untouched"
    return "edited" if config.edit and not config.follows else config.training.weights
