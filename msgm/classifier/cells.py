"""The cells of a comparison of classifiers: originals, retrained models, near-duplicates and every method's model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import nn

from msgm import traces
from msgm.classifier.config import ClassifierConfig
from msgm.classifier.data import Split
from msgm.classifier.experiment import Experiment, cached_of, has, seconds_of
from msgm.classifier.measuring import outputs_of
from msgm.classifier.methods import METHODS, Method
from msgm.classifier.metrics import METRICS, Case, Metric
from msgm.classifier.metrics.base import Live
from msgm.classifier.outputs import Outputs, load_outputs
from msgm.data.duplicates import near_duplicates
from msgm.folders import place
from msgm.runs import Run
from msgm.study.cells import Latest
from msgm.study.measuring import measure
from msgm.study.records import SKIPPED, ModelCell, RecordCell, plain, read_record

Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class World:
    """All that the cells of a comparison need.

    Attributes:
        config: the experiment.
        run: its folder.
        experiments: one a seed.
        methods: rows to run.
        requests: names of the requests to run.
        latest: cache of the ``Reference`` of the request and seed that were measured last.
    """

    config: ClassifierConfig
    run: Run
    experiments: Sequence[Experiment]
    methods: dict[str, Method]
    requests: Sequence[str]
    latest: "Latest[Reference]" = field(default_factory=Latest)

    def measured(self, at: int, request: str, work: Callable[..., Record], *given: Any) -> Record:
        """Return ``work(reference, *given)`` for a request at a seed; the reference is kept until another is needed."""
        return work(self.latest.get((at, request), lambda: Reference(self, at, request)), *given)

    def original_at(self, at: int) -> Path:
        """Return the folder of a seed's original model."""
        return self.run.path / "models" / f"seed-{self.experiments[at].seed}" / "original"

    def original(self, at: int) -> nn.Module:
        """Return a seed's model before unlearning."""
        folder = self.original_at(at)
        traces.register(self.run.path, folder, *traces.KNOWN["models/*/original"])
        return self.experiments[at].original(folder)

    def retrained_at(self, request: str, number: int) -> Path:
        """Return the folder of a retrained model, which is the first seed's; numbers begin at 1."""
        folder = self.run.path / "models" / f"seed-{self.experiments[0].seed}"
        return place(folder, request, f"retrain-{number}")

    def retrained(self, request: str, number: int) -> nn.Module:
        """Return a retrained model."""
        folder = self.retrained_at(request, number)
        traces.register(self.run.path, folder, "a retrained model", "retain", request)
        return self.experiments[0].retrain(folder, request, number)


@dataclass(frozen=True, eq=False)
class Reference:
    """The original and the retrained models of one request at one seed, which its cells are measured against; lazy.

    Retrained models are trained at the first seed only. They are measured against the originals of all seeds in turn,
    so that the band includes the spread between originals.

    Attributes:
        world: of the comparison.
        at: number of the seed, from 0.
        request: its name.
    """

    world: World
    at: int
    request: str

    @property
    def experiment(self) -> Experiment:
        """The experiment at the seed."""
        return self.world.experiments[self.at]

    @cached_property
    def split(self) -> Split:
        """The data split of the request."""
        return self.experiment.split(self.request)

    @cached_property
    def metrics(self) -> list[Metric]:
        """What to measure."""
        return [_placed(metric, self.world.run) for metric in self.world.config.measures()]

    @cached_property
    def original(self) -> nn.Module:
        """The model before unlearning."""
        return self.world.original(self.at)

    @cached_property
    def outputs(self) -> Outputs:
        """The original's outputs, which are kept."""
        found = outputs_of(self.original, self.split, self.experiment.device)
        self.keep(found, "original")
        return found

    @cached_property
    def retrained(self) -> list[nn.Module]:
        """The retrained models of the band."""
        numbers = range(1, self.world.config.retrains + 1)
        models = [self.world.retrained(self.request, number) for number in numbers]
        _announce(self.metrics, len(self.world.methods), seconds_of(self.world.retrained_at(self.request, 1)))
        return models

    @cached_property
    def band(self) -> list[Outputs]:
        """The outputs of all retrained models; those of the first seed are kept."""
        found = [outputs_of(model, self.split, self.experiment.device) for model in self.retrained]
        for number, own in enumerate(found if self.at == 0 else (), 1):
            self.keep(own, "retrains", str(number))
        return found

    def outputs_at(self, *names: str) -> Path:
        """Return where the outputs of a model lie."""
        return self._at("outputs", *names, ending=".npz")

    def keep(self, outputs: Outputs, *names: str) -> None:
        """Write and register the outputs of a model."""
        part: traces.Part = "retain" if names[0] == "retrains" else "all"
        path, run = self.outputs_at(*names), self.world.run.path
        traces.register(run, path, f"logits of {' '.join(names)} on all parts", part, self.request)
        outputs.save(path)

    def record_at(self, *names: str) -> Path:
        """Return where the record of a model lies."""
        return self._at("records", *names, ending=".json")

    def _at(self, kind: str, *names: str, ending: str) -> Path:
        return place(self.world.run.path, kind, f"seed-{self.experiment.seed}", self.request, *names, ending=ending)

    def case(self, target: Outputs, model: nn.Module | None, method: Method | None = None) -> Case:
        """Return the ``Case`` of a model made by ``method``; where ``model`` is None, it holds only the logits."""
        settings = self.experiment.settings("measure")
        live = None if model is None else Live(model, self.original, self.split, settings, method)
        others = [other for other in self.band if other is not target]
        return Case(target, self.outputs, others, self.split.scope, live)

    def protocol(self, metric: Metric) -> Record:
        """Return the settings that a metric's numbers depend on, apart from the models."""
        return {"settings": _settings(metric), "retrains": self.world.config.retrains}

    def missing(self, record: Record | None) -> list[Metric]:
        """Return the metrics that a record lacks, or holds for other settings."""
        has = (record or {}).get("metrics", {})
        return [m for m in self.metrics if has.get(m.name, {}).get("protocol") != self.protocol(m)]

    def numbers(self, case: Case, metrics: Sequence[Metric]) -> Record:
        """Return the numbers of ``metrics`` as a record keeps them."""
        return {m.name: {"protocol": self.protocol(m), "numbers": plain(measure(case, [m]))} for m in metrics}


@dataclass(frozen=True, eq=False)
class MeasuredCell(RecordCell):
    """A cell whose stored record may lack some metrics, or hold them for other settings."""

    reference: Reference

    def kept(self) -> bool:
        found = read_record(self.place, self.facts)
        return super().kept() and found is not None and ("reason" in found or not self.reference.missing(found))


def model_cells(world: World) -> Iterator[ModelCell]:
    """Yield the cells that train the originals and the retrained models, which all other cells read."""
    for at, experiment in enumerate(world.experiments):
        folder = world.original_at(at)
        yield ModelCell(
            _original_label(experiment),
            partial(has, folder, experiment.facts),
            partial(_told, partial(world.original, at), folder),
        )
    first = world.experiments[0]
    for request in world.requests:
        split = first.split(request)
        for number in range(1, world.config.retrains + 1):
            folder = world.retrained_at(request, number)
            yield ModelCell(
                _retrained_label(first, request, number),
                partial(has, folder, first.retrain_facts(split, number)),
                partial(_told, partial(world.retrained, request, number), folder),
            )


def _told(make: Callable[[], nn.Module], folder: Path) -> str:
    """Call ``make`` and return the training time of the model in ``folder`` as text."""
    make()
    return f"{'taken from the cache, where it took ' if cached_of(folder) else ''}{seconds_of(folder):.3f} s"


def _original_label(experiment: Experiment) -> str:
    return f"seed {experiment.seed}: original"


def _retrained_label(first: Experiment, request: str, number: int) -> str:
    return f"seed {first.seed}, {request}: training retrained model {number}"


def cells(reference: Reference) -> Iterator[RecordCell]:
    """Yield the cells of one request at one seed: some of the retrained models, near-duplicates, and the methods."""
    world, experiment, request = reference.world, reference.experiment, reference.request
    label, measured = f"seed {experiment.seed}, {request}", partial(world.measured, reference.at, request)
    first, retrains = world.experiments[0], experiment.config.retrains
    models = [_retrained_label(first, request, number) for number in range(1, retrains + 1)]
    models.append(_original_label(experiment))
    for number in range(reference.at + 1, retrains + 1, len(world.experiments)):
        where = reference.record_at("retrains", str(number))
        facts = experiment.retrain_facts(reference.split, number)
        work = partial(measured, _measure_retrained, number, where, facts)
        yield MeasuredCell(f"{label}: retrained model {number}", where, facts, work, reference, after=models)
    facts = experiment.facts | {"forget": experiment.digest(reference.split)}
    where = reference.record_at("duplicates")
    yield RecordCell(f"{label}: near-duplicates", where, facts, partial(measured, _duplicates))
    for name, method in world.methods.items():
        where = reference.record_at("methods", name)
        own = facts | {"method": experiment.config.methods[name]}
        work = partial(measured, _answer, name, method, where, own)
        after = models if reference.split.scope in method.card.scopes else ()
        yield MeasuredCell(f"{label}: {name}", where, own, work, reference, after=after)


def _measure_retrained(reference: Reference, number: int, where: Path, facts: Record) -> Record:
    """Measure one retrained model against the others: only the metrics that its record lacks."""
    record = read_record(where, facts) or {}
    own, model = reference.band[number - 1], reference.retrained[number - 1]
    case = reference.case(own, model, METHODS.build({"name": "retrain"}))
    found = reference.numbers(case, reference.missing(record))
    folder = reference.world.retrained_at(reference.request, number)
    made = {"seconds": seconds_of(folder), "cached": cached_of(folder)}
    return made | {"metrics": record.get("metrics", {}) | found}


def _duplicates(reference: Reference) -> Record:
    split = reference.split
    parts = {name: part.indices for name, part in split.parts().items()}
    found = near_duplicates(split.retain.dataset, parts, split.nonmembers.indices, reference.experiment.device)
    return {"method": found.method, "found": found.found, "pairs": [vars(pair) for pair in found.pairs]}


def _answer(reference: Reference, name: str, method: Method, where: Path, facts: Record) -> Record:
    """Run the method and measure its model, or add missing metrics to its record if they need only the saved logits."""
    if reference.split.scope not in method.card.scopes:
        return {"status": SKIPPED, "reason": f"it is meant for {' and '.join(method.card.scopes)} requests"}
    record = read_record(where, facts)
    if record is None or "reason" in record or any(metric.live for metric in reference.missing(record)):
        return _unlearn(reference, name, method)
    kept = load_outputs(reference.outputs_at("methods", name))
    found = reference.numbers(reference.case(kept, None), reference.missing(record))
    return record | {"metrics": record["metrics"] | found}


def _unlearn(reference: Reference, name: str, method: Method) -> Record:
    experiment, split = reference.experiment, reference.split
    made = method.unlearn(reference.original, split, experiment.settings("method"))
    target = outputs_of(made.model, split, experiment.device)
    reference.keep(target, "methods", name)
    found = reference.numbers(reference.case(target, made.model, method), reference.metrics)
    artefacts = plain({key: value for key, value in made.artefacts.items() if not key.startswith("_")})
    return vars(made.cost) | {"artefacts": artefacts, "metrics": found}


def _settings(metric: Metric) -> dict[str, Any]:
    """Return a metric's settings without ``folder``, which does not affect its numbers."""
    own = {key: getattr(metric, key) for key in metric.__dataclass_fields__ if key != "folder"}  # type: ignore[attr-defined]
    return {key: value for key, value in METRICS.resolve({"name": metric.name} | own).items() if key != "folder"}


def _placed(metric: Metric, run: Run) -> Metric:
    """Return the metric; if it trains shadow models, its ``folder`` is set to ``shadows`` in the run folder."""
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
