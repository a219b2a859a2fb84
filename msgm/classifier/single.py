"""``msgm classifier train`` and ``unlearn``: one model in one run folder.

The folder holds ``model/`` and, for every request concerned, ``outputs/REQUEST/``: the logits that
``msgm classifier audit`` reads.
"""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import nn

from msgm import traces
from msgm.cards.history import history, history_lines
from msgm.chain import Chain, read_chain
from msgm.classifier.compare import CLASSIFIERS, FIXED, from_file, note_of_file
from msgm.classifier.config import ClassifierConfig, OriginalSettings, load_config
from msgm.classifier.data import Examples
from msgm.classifier.earlier import earlier_chain, tested
from msgm.classifier.experiment import Experiment, is_kept, seconds_of
from msgm.classifier.measuring import outputs_of
from msgm.classifier.methods.sisa import Sisa
from msgm.classifier.methods.steps import GradientMethod
from msgm.classifier.metrics.scores import forgotten_classes
from msgm.classifier.outputs import Outputs
from msgm.classifier.sisa import Ensemble
from msgm.classifier.store import SHARDS, load_classifier, save_classifier
from msgm.classifier.training import check_outputs
from msgm.data import load_dataset
from msgm.devices import chosen_device
from msgm.digests import positions_digest, read_key
from msgm.errors import UserError, known
from msgm.folders import locked, place, whole_folder, write_json, write_text
from msgm.plugins import load_received
from msgm.reading import read_json
from msgm.runs import Run, environment
from msgm.settings import differences
from msgm.shapes import Count
from msgm.study.records import plain


def train(config: ClassifierConfig, out: Path | str | None = None, device: str = "auto") -> Run:
    """Train the original model of an experiment into a run folder; one that is there is kept.

    Args:
        config: the experiment; its seed makes the split and the weights.
        out: run folder; by default ``runs/NAME-original``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        UserError: a network that does not fit the data, or a folder that holds another experiment.
    """
    run = Run(out or Path("runs") / f"{config.name}-original")
    with locked(run.path):
        return _train(config, run, device)


def _train(config: ClassifierConfig, run: Run, device: str) -> Run:
    experiment = _experiment(config, chosen_device(device), run)
    experiment.check()
    _refuse_answered(run, {})
    CLASSIFIERS.occupy(config, run, {})
    traces.register(run.path, run.model, *traces.KNOWN["models/*/original"])
    model = experiment.original(run.model)
    for request in config.requests:
        _save(outputs_of(model, experiment.split(request), experiment.device), run, request, "original")
    facts = {
        "data_digest": experiment.dataset.digest(),
        "data_omissions": experiment.dataset.omissions(),
        "seconds": seconds_of(run.model),
    }
    facts |= {"seed": config.seed, "device": str(experiment.device)}
    write_json(run.manifest, environment() | {"kind": "classifier"} | facts)
    return run


def unlearn(
    config: ClassifierConfig,
    source: Path | str,
    method: str,
    request: str | None = None,
    seed: int | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    fresh_chain: bool = False,
    trained_on: Path | str | None = None,
) -> Run:
    """Make a trained model forget, into a run folder of its own.

    What ``source`` was asked to forget before stays forgotten: no method sees such an item.

    Args:
        config: the experiment: requests and methods; the rest must be that of ``source``.
        source: folder of ``train`` or ``unlearn``, whose seed is that of the split; or a file of weights of the
            config's network (.safetensors, or ``torch.save(model.state_dict())``), trained elsewhere on the config's
            training part.
        method: row of the config. SISA continues with the ensemble of a ``source`` that it made.
        request: name in the config; None takes its only one.
        seed: of the method's draws; None takes the source's.
        out: run folder; by default ``runs/NAME-METHOD-REQUEST``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        fresh_chain: start a new history: items of earlier requests are items to retain again, and cards say so.
        trained_on: of a file of weights, the file that names the items it was trained on.

    Raises:
        UserError: no such model, method or request, an experiment of other data, network or training, data that is not
            that of earlier requests, or an ``out`` that holds an original or is the source.
        RunError: the method's weights became non-finite.
    """
    request = _only_request(config, request)
    known(method, list(config.rows()), "--method", "method")
    run = Run(out or Path("runs") / f"{config.name}-{method}-{request}")
    _check_out(run, source, config.requests[request].describe())
    with locked(run.path):
        config = from_file(config, source, trained_on)
        given = _given(config, source, request, chosen_device(device), fresh_chain)
        return _unlearn(config, source, given, method, request, seed, run)


def _unlearn(
    config: ClassifierConfig, source: Path | str, given: "Given", method: str, request: str, seed: int | None, run: Run
) -> Run:
    experiment, chosen = given.experiment, config.rows()[method]
    if isinstance(given.model, Ensemble) and not isinstance(chosen, Sisa):
        raise UserError(f"--method {method}: {source} is an ensemble of shards, which only sisa goes on with.")
    check_outputs(experiment.build(experiment.seed), Examples.of(experiment.dataset, experiment.parts["train"]))
    split = experiment.split(request)
    own = given.seed if seed is None else seed
    traces.register(run.path, run.model, "the model after unlearning, made from the original")
    traces.follow(run.path, Run(source).model if Path(source).is_dir() else Path(source))
    with whole_folder(run.model) as folder:
        if isinstance(given.model, Ensemble):
            shutil.copytree(Run(source).model / SHARDS, folder / SHARDS)
        settings = replace(experiment.settings("method", own), folder=folder / SHARDS)
        made = chosen.unlearn(given.model, split, settings)
        chain = experiment.answered(request, method, run.path)
        stored = _keep(experiment, made.model, folder, chain)
    traces.seal(run.path, run.model)
    before = outputs_of(given.model, split, experiment.device)
    after = outputs_of(made.model, split, experiment.device)
    earlier = tested(made.model, experiment, split, request)
    _save(before, run, request, "source" if experiment.chain.requests else "original")
    _save(replace(after, history=history(chain, earlier)), run, request, method)
    print(f"accuracy before and after, in {made.cost.seconds:.2f} s: {_accuracies(before, after)}")
    for line in history_lines(earlier):
        print(line)
    artefacts = plain({key: value for key, value in made.artefacts.items() if not key.startswith("_")})
    write_text(run.config, replace(config, seed=experiment.seed, original=experiment.config.original).to_yaml())
    rate = {"lr": chosen.rate(settings)} if isinstance(chosen, GradientMethod) else {}
    facts = {
        "method": config.methods[method] | rate,
        "request": config.requests[request].describe(),
        "source": str(source),
        "data_digest": experiment.dataset.digest(),
    }
    facts |= {
        "forget_digest": positions_digest(run.path, split.forget.indices),
        "cost": asdict(made.cost),
        "artefacts": artefacts,
    }
    facts |= {"model_stored": stored, "device": str(experiment.device), "history": history(chain, earlier)}
    write_json(run.manifest, environment() | {"kind": "classifier", "seed": own} | facts)
    return run


@dataclass(frozen=True, eq=False)
class Given:
    """The experiment and the model that a request starts from.

    Attributes:
        experiment: of the model that is given, with its chain and the one request.
        model: the model.
        seed: of its draws.
    """

    experiment: Experiment
    model: nn.Module
    seed: int


def _given(
    config: ClassifierConfig, source: Path | str, request: str, device: torch.device, fresh_chain: bool
) -> Given:
    """Return the model that ``source`` holds, with the experiment that it was trained in."""
    dataset = load_dataset(config.data)
    asked = replace(config, requests={request: config.requests[request]})
    if Path(source).is_file():
        experiment = Experiment(asked, dataset, config.seed, device, chain=Chain(unknown=note_of_file(config)))
        return Given(experiment, experiment.given(), config.seed)
    given = Run(source)
    if not given.config.is_file() or not given.model.is_dir():
        raise UserError(
            f"--from: {source} holds no trained classifier; make one with msgm classifier train, or give a file of "
            "weights."
        )
    trained = load_config(load_received(given.path, FIXED, config.to_dict()))
    if config.original == OriginalSettings():  # what the first request was told of a model trained elsewhere
        config, asked = (replace(one, original=trained.original) for one in (config, asked))
    _same_experiment(trained, config, source)
    model = load_classifier(given.model, config.network)
    chain = earlier_chain(given.model, config, dataset, fresh_chain)
    seed = chain.split_seed(trained.seed, given.path)
    experiment = Experiment(asked, dataset, seed, device, chain=chain)
    chain.check(dataset, experiment.split_facts, read_key(given.path), given.path)
    return Given(experiment, model, read_json(given.manifest, Seeded)["seed"] if isinstance(model, Ensemble) else seed)


class Seeded(TypedDict):
    """The keys that are read from the manifest of an ensemble's run."""

    seed: Count


def _check_out(run: Run, source: Path | str, asked: str) -> None:
    """Refuse an output folder whose model would be overwritten."""
    if is_kept(run.model):
        raise UserError(f"--out: {run.path} holds a trained original, which is not overwritten; give another folder.")
    if Path(source).resolve().is_relative_to(run.path.resolve()):
        raise UserError(f"--out: {run.path} holds the model of --from, which would be lost; give another folder.")
    request = {"source": str(source), "request": asked}
    _refuse_answered(run, request)


def _refuse_answered(run: Run, again: dict[str, str]) -> None:
    """Refuse a folder whose model answered a request, unless it is the same request from the same source.

    Args:
        run: the folder.
        again: manifest entries that identify a rerun of the same command.
    """
    chain, stored = read_chain(run.model), run.stored_manifest()
    same = again and all(stored.get(key) == value for key, value in again.items())
    if chain is not None and chain.requests and stored and not same:
        raise UserError(
            f"--out: {run.path} holds a model that was asked to forget, {chain.requests[-1].text}, and would be lost; "
            "give another folder."
        )


def _accuracies(before: Outputs, after: Outputs) -> str:
    """Return accuracies as text; on test items those of forgotten classes are left out, as in the report's table."""
    gone = forgotten_classes(before)
    kept = {
        part: ~np.isin(before.labels[part], gone if part == "test" else []) for part in ("forget", "retain", "test")
    }
    names = {"test": "test (classes to retain)"} if len(gone) else {}
    return ", ".join(
        f"{names.get(part, part)} " + " -> ".join(f"{100 * o.right(part)[rows].mean():.1f}%" for o in (before, after))
        for part, rows in kept.items()
    )


def _experiment(config: ClassifierConfig, device: torch.device, run: Run) -> Experiment:
    return Experiment(config, load_dataset(config.data), config.seed, device, run.path)


def _outputs(run: Run, request: str, name: str) -> Path:
    return place(run.path, "outputs", request, name, ending=".npz")


def _save(outputs: Outputs, run: Run, request: str, name: str) -> None:
    """Write and register the outputs of a model."""
    path = _outputs(run, request, name)
    traces.register(run.path, path, f"logits of {name} on all parts", "all", request)
    outputs.save(path)


def _same_experiment(trained: ClassifierConfig, config: ClassifierConfig, source: Path | str) -> None:
    sections = [key for key in FIXED if key != "seed"]
    old, new = trained.to_dict(), config.to_dict()
    changed = differences({key: old[key] for key in sections}, {key: new[key] for key in sections})
    if changed:
        raise UserError(f"--from: {source} was trained with other settings ({'; '.join(changed[:3])}).")


def _only_request(config: ClassifierConfig, name: str | None) -> str:
    names = list(config.requests)
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise UserError(f"--request: say which; the config has {', '.join(names) or 'none'}.")
    return known(name, names, "--request", "request")


def _keep(experiment: Experiment, model: nn.Module, folder: Path, chain: Chain) -> bool:
    """Save a model of the experiment's own network, or an ensemble of such; other models keep only their outputs."""
    shapes = {name: value.shape for name, value in experiment.build(0).state_dict().items()}
    for one in model.models if isinstance(model, Ensemble) else [model]:
        if {name: value.shape for name, value in one.state_dict().items()} != shapes:
            return False
    dataset = experiment.dataset
    save_classifier(model, folder, experiment.config.network, dataset.shape, len(dataset.classes), chain)
    return True
