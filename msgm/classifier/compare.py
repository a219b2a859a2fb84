"""``msgm classifier compare``: every method on every request at every seed, against a band of retrained models.

A run folder holds ``models/`` (originals and retrained models), ``outputs/`` (logits of every model, which
``msgm classifier audit`` reads), ``records/`` (numbers and costs) and the report; ``shadows/`` as well, if a metric is
asked for that trains models of its own. What is there and was made with the same settings is kept.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from msgm import threads, traces
from msgm.cards.claims import ORACLES
from msgm.chain import Chain, read_chain
from msgm.classifier.assemble import make_report
from msgm.classifier.config import ClassifierConfig, OriginalSettings, known
from msgm.classifier.data import Split
from msgm.classifier.experiment import Experiment, rekey, seconds_of
from msgm.classifier.measuring import outputs_of
from msgm.classifier.methods import METHODS, Method
from msgm.classifier.metrics import METRICS, Case, Metric
from msgm.classifier.metrics.base import Live
from msgm.classifier.outputs import Outputs, load_outputs
from msgm.classifier.report import print_report, write_views
from msgm.classifier.store import NETWORK
from msgm.data import load_dataset
from msgm.data.duplicates import near_duplicates
from msgm.errors import RunError, UserError
from msgm.folders import locked, place, write_json, write_text
from msgm.study.records import FAILED, SKIPPED, plain, read_record, write_record
from msgm.runs import Run, chosen_device, environment
from msgm.settings import refuse_other
from msgm.study.measuring import measure

FIXED = ("data", "shares", "network", "training", "original", "seed", "split_seed")
"""Settings that all of a run folder shares; requests, methods, metrics, seeds and retrained models may be added."""
Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Reference:
    """One request at one seed: what all its models are measured against.

    Attributes:
        experiment: the experiment at the seed.
        run: the run folder.
        request: its name.
        split: what it makes of the data.
        original: the model before unlearning.
        outputs: the original's.
        band: outputs of all retrained models.
        metrics: what to measure.
    """

    experiment: Experiment
    run: Run
    request: str
    split: Split
    original: nn.Module
    outputs: Outputs
    band: list[Outputs]
    metrics: Sequence[Metric]

    def outputs_at(self, *names: str) -> Path:
        """Return where the outputs of a model lie."""
        return self._at("outputs", *names, ending=".npz")

    def keep(self, outputs: Outputs, *names: str) -> None:
        """Write and register the outputs of a model."""
        part: traces.Part = "retain" if names[0] == "retrains" else "all"
        path = self.outputs_at(*names)
        traces.register(self.run.path, path, f"logits of {' '.join(names)} on all parts", part, self.request)
        outputs.save(path)

    def record_at(self, *names: str) -> Path:
        """Return where the record of a model lies."""
        return self._at("records", *names, ending=".json")

    def _at(self, kind: str, *names: str, ending: str) -> Path:
        return place(self.run.path, kind, f"seed-{self.experiment.seed}", self.request, *names, ending=ending)

    def case(self, target: Outputs, model: nn.Module | None, method: Method | None = None) -> Case:
        """Return a model that ``method`` made as the metrics read it; without the model, logits alone."""
        settings = self.experiment.settings("measure")
        live = None if model is None else Live(model, self.original, self.split, settings, method)
        others = [other for other in self.band if other is not target]
        return Case(target, self.outputs, others, self.split.scope, live)

    def protocol(self, metric: Metric) -> Record:
        """Return what a metric's numbers depend on, apart from the models."""
        return {"settings": _settings(metric), "retrains": len(self.band)}

    def missing(self, record: Record | None) -> list[Metric]:
        """Return the metrics that a record lacks, or has by other settings."""
        if record is None:
            return list(self.metrics)
        has = record["metrics"]
        return [m for m in self.metrics if has.get(m.name, {}).get("protocol") != self.protocol(m)]

    def numbers(self, case: Case, metrics: Sequence[Metric]) -> Record:
        """Return the numbers of ``metrics`` as a record keeps them."""
        return {m.name: {"protocol": self.protocol(m), "numbers": plain(measure(case, [m]))} for m in metrics}


def compare(
    config: ClassifierConfig,
    out: Path | str | None = None,
    only: Sequence[str] | None = None,
    requests: Sequence[str] | None = None,
    device: str = "auto",
    source: Path | str | None = None,
    trained_on: Path | str | None = None,
) -> Run:
    """Run and measure the methods of ``config`` and write the report; what is there already is kept.

    Args:
        config: the experiment.
        out: run folder; by default ``runs/NAME``.
        only: methods to run; by default all. The report shows all that are there.
        requests: requests to run; by default all.
        device: ``auto``, ``cpu`` or ``cuda``.
        source: file of weights of a model that was trained elsewhere, to take in place of the original.
        trained_on: the file that names the items it was trained on.

    Raises:
        UserError: an unknown name, fewer than five retrained models, a request or a network that does not fit the
            data, or a folder that holds another experiment; nothing is written then.
    """
    methods = _chosen(config.rows(), only, "--only", "method")
    chosen = _chosen(config.requests, requests, "--requests", "request")
    if config.retrains < ORACLES:
        raise UserError(f"retrains must be at least {ORACLES}, got {config.retrains}: fewer make no band.")
    config = from_file(config, source, trained_on)
    run = Run(out or Path("runs") / config.name)
    with locked(run.path):
        return _compare(config, run, methods, list(chosen), chosen_device(device))


def _compare(
    config: ClassifierConfig, run: Run, methods: dict[str, Method], chosen: Sequence[str], where: torch.device
) -> Run:
    dataset = load_dataset(config.data)
    chain = Chain() if config.original.weights is None else Chain(unknown=note_of_file(config))
    seeds = [config.seed + k for k in range(config.seeds)]
    experiments = [Experiment(config, dataset, seed, where, run.path, chain, config.seed) for seed in seeds]
    for experiment in experiments:
        experiment.check()
    claim(run, config)
    rekey(run.path, experiments)
    for number in range(len(experiments)):
        for request in chosen:
            _request(experiments, number, run, request, methods)
    report = make_report(config, run, experiments) | {"artifacts": traces.holders(run.path)}
    write_json(run.report, report)
    write_views(run, report)
    traces.seal_views(run.path)
    print_report(report)
    return run


def from_file(config: ClassifierConfig, source: Path | str | None, trained_on: Path | str | None) -> ClassifierConfig:
    """Return the experiment with the file of weights ``source``, if it is one, as its original.

    Raises:
        UserError: ``trained_on`` without such a file, a source that does not exist, or a file of a model folder
            beside which stands that the model was asked to forget.
    """
    if source is not None and Path(source).is_file():
        owner = next((folder for folder in Path(source).parents[:2] if (folder / NETWORK).is_file()), None)
        chain = None if owner is None else read_chain(owner)
        if owner is not None and chain is not None and (chain.requests or chain.unknown):
            raise UserError(
                f"--from: {source} is part of a model that msgm wrote, and says nothing of what that was asked to "
                f"forget; give its run, {owner.parent}."
            )
        named = config.original.trained_on if trained_on is None else str(trained_on)
        return replace(config, original=OriginalSettings(str(source), named))
    if trained_on is not None:
        raise UserError(f"--trained-on belongs to a file of weights, which --from {source} is not.")
    return config


def note_of_file(config: ClassifierConfig) -> str:
    """Say of a model from a file of weights what is not known of it, and return the first half of it."""
    reason = f"{config.original.weights} is a file of weights: what its model was asked to forget before is not known"
    held = f"the config's training part with seed {config.seed}"
    if config.original.trained_on is not None:
        held = f"what {config.original.trained_on} names and on nothing else"
    parts = "what is held out here (test, nonmembers, tuning)"
    print(f"{reason}; {parts} is unseen only if the model was trained on {held}.", flush=True)
    return reason


def _chosen(entries: dict[str, Any], names: Sequence[str] | None, option: str, what: str) -> dict[str, Any]:
    if not entries:
        raise UserError(f"{what}s: the config names no {what}, so there is nothing to compare.")
    wanted = [known(name, list(entries), option, what) for name in names or entries]
    return {name: entries[name] for name in entries if name in wanted}


def claim(run: Run, config: ClassifierConfig) -> None:
    """Make the run folder, or check that it holds this experiment.

    Raises:
        UserError: it holds one of other data, shares, network, training or seed.
    """
    stored = run.stored_config()
    if stored is not None:
        stored.setdefault("original", asdict(OriginalSettings()))  # msgm 0.1 had none
        stored.setdefault("split_seed", None)  # msgm 0.2 had none
    refuse_other(run.path, stored, config.to_dict(), FIXED)
    threads.keep(run.manifest)
    run.create()
    write_text(run.config, config.to_yaml())
    write_json(run.manifest, environment() | {"kind": "classifier", "seed": config.seed})


def _request(experiments: Sequence[Experiment], at: int, run: Run, request: str, methods: dict[str, Method]) -> None:
    """Run and measure the methods on one request at the seed of one of the experiments.

    The retrained models and their outputs are the first seed's. Each is measured at one of the seeds, in turn, so that
    their spread holds that of the originals.
    """
    experiment = experiments[at]
    seed, split = experiment.seed, experiment.split(request)
    folder = run.path / "models" / f"seed-{seed}"
    traces.register(run.path, folder / "original", *traces.KNOWN["models/*/original"])
    original = experiment.original(folder / "original")
    shared = run.path / "models" / f"seed-{experiments[0].seed}"
    places = [place(shared, request, f"retrain-{number}") for number in range(1, experiment.config.retrains + 1)]
    for where in places:
        traces.register(run.path, where, "a retrained model", "retain", request)
    retrains = [experiments[0].retrain(where, request, number) for number, where in enumerate(places, 1)]
    print(f"seed {seed}, {request}: original and {len(retrains)} retrained models are there", flush=True)
    outputs, device = outputs_of(original, split, experiment.device), experiment.device
    band = [outputs_of(model, split, device) for model in retrains]
    metrics = [_placed(metric, run) for metric in experiment.config.measures()]
    reference = Reference(experiment, run, request, split, original, outputs, band, metrics)
    reference.keep(outputs, "original")
    for number, own in enumerate(band if at == 0 else (), 1):
        reference.keep(own, "retrains", str(number))
    _announce(metrics, len(methods), seconds_of(places[0]))
    for number in range(at, len(retrains), len(experiments)):
        _retrain(reference, number + 1, retrains[number], band[number], seconds_of(places[number]))
    _duplicates(reference)
    for name, method in methods.items():
        _method(reference, name, method)


def _retrain(reference: Reference, number: int, model: nn.Module, own: Outputs, seconds: float) -> None:
    """Measure one model of the band against the others."""
    names = ("retrains", str(number))
    facts = reference.experiment.retrain_facts(reference.split, number)
    record = read_record(reference.record_at(*names), facts)
    missing = reference.missing(record)
    if missing:
        found = reference.numbers(reference.case(own, model, METHODS.build({"name": "retrain"})), missing)
        known_numbers = record["metrics"] if record else {}
        write_record(reference.record_at(*names), facts, {"seconds": seconds, "metrics": known_numbers | found})


def _duplicates(reference: Reference) -> None:
    facts = reference.experiment.facts | {"forget": reference.experiment.digest(reference.split)}
    path = reference.record_at("duplicates")
    if read_record(path, facts) is None:
        split = reference.split
        parts = {name: part.indices for name, part in split.parts().items()}
        device = reference.experiment.device
        found = near_duplicates(split.retain.dataset, parts, split.nonmembers.indices, device)
        pairs = [vars(pair) for pair in found.pairs]
        write_record(path, facts, {"method": found.method, "found": found.found, "pairs": pairs})


def _method(reference: Reference, name: str, method: Method) -> None:
    """Run and measure one method, as far as its record lacks it."""
    experiment, split = reference.experiment, reference.split
    settings = experiment.config.methods[name]
    facts = experiment.facts | {"forget": experiment.digest(split), "method": settings}
    path, label = reference.record_at("methods", name), f"seed {experiment.seed}, {reference.request}: {name}"
    record = read_record(path, facts)
    if record is not None and record.get("status") == FAILED:
        record = None  # what made it fail, such as a plugin's code, may have been mended
    if record is not None and ("reason" in record or not reference.missing(record)):
        print(f"{label}: kept", flush=True)
        return
    if split.scope not in method.card.scopes:
        reason = f"it is meant for {' and '.join(method.card.scopes)} requests"
        record = {"status": SKIPPED, "reason": reason}
    elif record is not None and not any(metric.live for metric in reference.missing(record)):
        kept = load_outputs(reference.outputs_at("methods", name))
        found = reference.numbers(reference.case(kept, None), reference.missing(record))
        record = record | {"metrics": record["metrics"] | found}
    else:
        record = _run(reference, name, method)
    write_record(path, facts, record)
    print(f"{label}: {record.get('reason') or '{:.2f} s'.format(record['seconds'])}", flush=True)


def _run(reference: Reference, name: str, method: Method) -> Record:
    """Unlearn, measure, and return the record; a method that cannot is recorded with its reason."""
    experiment, split = reference.experiment, reference.split
    try:
        made = method.unlearn(reference.original, split, experiment.settings("method"))
        target = outputs_of(made.model, split, experiment.device)
    except UserError as error:
        return {"status": SKIPPED, "reason": str(error)}
    except RunError as error:
        return {"status": FAILED, "reason": str(error)}
    reference.keep(target, "methods", name)
    found = reference.numbers(reference.case(target, made.model, method), reference.metrics)
    artefacts = plain({key: value for key, value in made.artefacts.items() if not key.startswith("_")})
    return vars(made.cost) | {"artefacts": artefacts, "metrics": found}


def _settings(metric: Metric) -> dict[str, Any]:
    """Return a metric's settings, but for the folder of its models, on which no number depends."""
    own = {key: getattr(metric, key) for key in metric.__dataclass_fields__ if key != "folder"}  # type: ignore[attr-defined]
    return {key: value for key, value in METRICS.resolve({"name": metric.name} | own).items() if key != "folder"}


def _placed(metric: Metric, run: Run) -> Metric:
    """Return a metric that trains models of its own with a place below the run folder to keep their logits."""
    if getattr(metric, "folder", None) != "":
        return metric
    traces.register(run.path, run.path / "shadows", *traces.KNOWN["shadows"])
    placed: Metric = replace(metric, folder=str(run.path / "shadows"))  # type: ignore[type-var]
    return placed


def _announce(metrics: Sequence[Metric], methods: int, training: float) -> None:
    """Print what the metrics that train models of their own will cost, from the seconds of one training."""
    for metric in metrics:
        needed = metric.needed()
        if needed.trained or needed.unlearned:
            seconds = needed.seconds(training, training)
            print(
                f"{metric.name}: {needed.trained} models to train and {needed.unlearned} to unlearn for each of "
                f"{methods} methods and for the band, where they are not there yet; up to {seconds:.0f} s each, if a "
                "method takes no longer than retraining",
                flush=True,
            )
