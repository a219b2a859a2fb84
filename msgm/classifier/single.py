"""``msgm classifier train`` and ``unlearn``: one model in one run folder.

The folder holds ``model/`` and, for every request concerned, ``outputs/REQUEST/``: the logits that
``msgm classifier audit`` reads.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from msgm.classifier.compare import FIXED, claim
from msgm.classifier.config import ClassifierConfig, known, load_config
from msgm.classifier.experiment import Experiment, is_kept, seconds_of
from msgm.classifier.measuring import outputs_of
from msgm.classifier.methods.steps import GradientMethod
from msgm.classifier.metrics.scores import forgotten_classes
from msgm.classifier.networks import CLASSIFIERS, build
from msgm.classifier.outputs import Outputs
from msgm.classifier.store import drop_classifier, filled, load_classifier, save_classifier
from msgm.data import load_dataset
from msgm.digests import positions_digest
from msgm.errors import UserError
from msgm.folders import locked, place, write_json, write_text
from msgm.plugins import load_received
from msgm.records import plain
from msgm.runs import Run, chosen_device, environment
from msgm.settings import differences


def train(config: ClassifierConfig, out: Path | str | None = None, device: str = "auto") -> Run:
    """Train the original model of an experiment into a run folder; one that is there is kept.

    Args:
        config: the experiment; its seed makes the split and the weights.
        out: run folder; by default ``runs/NAME-original``.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UserError: a network that does not fit the data, or a folder that holds another experiment.
    """
    run = Run(out or Path("runs") / f"{config.name}-original")
    with locked(run.path):
        return _train(config, run, device)


def _train(config: ClassifierConfig, run: Run, device: str) -> Run:
    experiment = _experiment(config, chosen_device(device))
    experiment.check()
    claim(run, config)
    model = experiment.original(run.model)
    for request in config.requests:
        outputs_of(model, experiment.split(request), experiment.device).save(_outputs(run, request, "original"))
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
) -> Run:
    """Make a trained model forget, into a run folder of its own.

    Args:
        config: the experiment: requests and methods; the rest must be that of ``source``.
        source: folder of ``train``, whose seed is that of the split; or a file of weights of the config's network
            (.safetensors, or ``torch.save(model.state_dict())``), trained elsewhere on the config's training part.
        method: row of the config.
        request: name in the config; None takes its only one.
        seed: of the method's draws; None takes the source's.
        out: run folder; by default ``runs/NAME-METHOD-REQUEST``.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UserError: no such model, method or request, an experiment of other data, network or training, or an ``out``
            that holds an original.
        RunError: the method's weights became non-finite.
    """
    request = _only_request(config, request)
    known(method, list(config.rows()), "--method", "method")
    run = Run(out or Path("runs") / f"{config.name}-{method}-{request}")
    with locked(run.path):
        return _unlearn(config, source, method, request, seed, run, device)


def _unlearn(
    config: ClassifierConfig, source: Path | str, method: str, request: str, seed: int | None, run: Run, device: str
) -> Run:
    trained, model = _given(config, source)
    if is_kept(run.model):
        raise UserError(f"--out: {run.path} holds a trained original, which is not overwritten; give another folder.")
    experiment = _experiment(trained, chosen_device(device))
    experiment.config.requests[request] = config.requests[request]
    experiment.check()
    split = experiment.split(request)
    own = trained.seed if seed is None else seed
    chosen, settings = config.rows()[method], experiment.settings("method", own)
    made = chosen.unlearn(model, split, settings)
    run.create()
    before = outputs_of(model, split, experiment.device)
    after = outputs_of(made.model, split, experiment.device)
    before.save(_outputs(run, request, "original"))
    after.save(_outputs(run, request, method))
    print(f"accuracy before and after, in {made.cost.seconds:.2f} s: {_accuracies(before, after)}")
    stored = _keep(experiment, made.model, run)
    artefacts = plain({key: value for key, value in made.artefacts.items() if not key.startswith("_")})
    write_text(run.config, config.to_yaml())
    rate = {"lr": chosen.rate(settings)} if isinstance(chosen, GradientMethod) else {}
    facts = {
        "method": config.methods[method] | rate,
        "request": config.requests[request].describe(),
        "source": str(source),
    }
    facts |= {
        "forget_digest": positions_digest(run.path, split.forget.indices),
        "cost": asdict(made.cost),
        "artefacts": artefacts,
    }
    facts |= {"model_stored": stored, "device": str(experiment.device)}
    write_json(run.manifest, environment() | {"kind": "classifier", "seed": own} | facts)
    return run


def _given(config: ClassifierConfig, source: Path | str) -> tuple[ClassifierConfig, nn.Module]:
    """Return the experiment that a model was trained in, and the model."""
    if Path(source).is_file():
        print(
            f"{source} is a file of weights: what is held out here (test, nonmembers, tuning) is unseen only if the "
            f"model was trained on the config's training part with seed {config.seed}.",
            flush=True,
        )
        from msgm.evaluation.vision.weights import read_state

        dataset = load_dataset(config.data)
        network = CLASSIFIERS.build(config.network)
        model = build(network, dataset.shape, len(dataset.classes), config.seed)
        return config, filled(model, read_state(Path(source), "--from"), Path(source).name)
    given = Run(source)
    if not given.config.is_file() or not given.model.is_dir():
        raise UserError(
            f"--from: {source} holds no trained classifier; make one with msgm classifier train, or give a file of "
            "weights."
        )
    trained = load_config(load_received(given.path, FIXED, config.to_dict()))
    _same_experiment(trained, config, source)
    return trained, load_classifier(given.model, config.network)


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


def _experiment(config: ClassifierConfig, device: torch.device) -> Experiment:
    return Experiment(config, load_dataset(config.data), config.seed, device)


def _outputs(run: Run, request: str, name: str) -> Path:
    return place(run.path, "outputs", request, name, ending=".npz")


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


def _keep(experiment: Experiment, model: nn.Module, run: Run) -> bool:
    """Save a model if it is of the experiment's own network; of an ensemble, say, the outputs alone are kept."""
    drop_classifier(run.model)
    own = experiment.build(0).state_dict()
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in model.state_dict().items()}:
        return False
    dataset = experiment.dataset
    save_classifier(model, run.model, experiment.config.network, dataset.shape, len(dataset.classes))
    return True
