"""``msgm recommender compare``: every method on every model and request, against models fitted to what is left.

Models are fitted again when a comparison goes on, for they are a function of the data, their settings and a seed;
what is kept are the records of the cells (one model, request and method each), below ``records/``. A cell whose record
was made with the same settings is not run again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from msgm.errors import RunError, UserError
from msgm.folders import locked, write_json, write_text
from msgm.recommender.assemble import make_report, record_at, shared_facts
from msgm.recommender.config import CONTROLS, Experiment, RecommenderConfig, known
from msgm.recommender.data.base import Interactions, load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.keyed import key_records
from msgm.recommender.methods import METHODS, Method
from msgm.recommender.metrics import Case
from msgm.recommender.models import MODELS
from msgm.recommender.models.base import EXACTNESS, Recommender
from msgm.recommender.report import print_report, write_views
from msgm.recommender.scenario import Scenario, make_scenario
from msgm.records import FAILED, SKIPPED, read_record, write_record
from msgm.runs import Run, environment
from msgm.seeding import derive_seed
from msgm.settings import refuse_other
from msgm.solves import of_runs
from msgm.study.measuring import measure, measure_retrains
from msgm.traces import seal_views

FIXED = ("data", "split", "seed", "plugins")
"""Settings that all of a run folder shares; models, methods, requests, metrics and seeds may be added."""
EXPECTED = (RunError, ArithmeticError, MemoryError, ValueError)
"""What a cell may fail with; the comparison goes on, and the report says why."""
Record = dict[str, Any]


@dataclass(frozen=True)
class Chosen:
    """Rows to run, by their names."""

    models: list[str]
    methods: dict[str, Method]
    requests: list[str]


@dataclass(eq=False)
class Bench:
    """One row of models: fits it as often as it is needed, and no more.

    Attributes:
        config: the experiment.
        model: name of the row.
        fitted: the models of all seeds with their seconds, by the request that planted profiles, if one did.
    """

    config: RecommenderConfig
    model: str
    fitted: dict[str, list[tuple[Recommender, float]]] = field(default_factory=dict)

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds of the experiment."""
        return [self.config.seed + k for k in range(self.config.seeds)]

    def originals(self, request: str, scenario: Scenario) -> list[tuple[Recommender, float]]:
        """Return the model fitted to all training cells, with the seconds that took, one for every seed."""
        key = request if scenario.planted else ""
        if key not in self.fitted:
            self.fitted[key] = [self._fit(scenario, derive_seed(seed, "fit")) for seed in self.seeds]
        return self.fitted[key]

    def _fit(self, scenario: Scenario, seed: int) -> tuple[Recommender, float]:
        model, split = MODELS.build(self.config.models[self.model]), scenario.split
        start = perf_counter()
        model.fit(split.train, seed, split.train_times)
        return model, perf_counter() - start


@dataclass(frozen=True, eq=False)
class Cell:
    """One row's work: where its record lies, what it depends on, and what to call it."""

    place: Path
    facts: Record
    label: str

    def record(self) -> Record | None:
        """Return the record that is there and can be kept; what failed is tried again."""
        found = read_record(self.place, self.facts)
        return None if found is not None and found.get("status") == FAILED else found

    def keep(self, record: Record) -> None:
        """Write the record and say how the cell went."""
        write_record(self.place, self.facts, record)
        runs = record.get("runs", [])
        seconds = sum(run["seconds"] for run in runs) / max(len(runs), 1)
        print(f"{self.label}: {record.get('reason') or f'{seconds:.3f} s'}", flush=True)


@dataclass(frozen=True, eq=False)
class MethodCell(Cell):
    """One model, request and method."""

    method: Method


def compare(
    config: RecommenderConfig,
    out: Path | str | None = None,
    only: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    requests: Sequence[str] | None = None,
) -> Run:
    """Run and measure the methods of ``config`` and write the report; what is there already is kept.

    Args:
        config: the experiment.
        out: run folder; by default ``runs/NAME``.
        only: methods to run; by default all. The report shows all that are there.
        models: models to run; by default all.
        requests: requests to run; by default all.

    Raises:
        UserError: an unknown name, a request that does not fit the data, or a folder that holds another experiment;
            nothing is written then.
    """
    methods = chosen_rows(config.rows(), only, "--only", "method")
    chosen = Chosen(
        list(chosen_rows(config.models, models, "--models", "model")),
        methods,
        list(chosen_rows(config.requests, requests, "--requests", "request")),
    )
    run = Run(out or Path("runs") / config.name)
    with locked(run.path):
        return _compare(config, run, chosen)


def _compare(config: RecommenderConfig, run: Run, chosen: Chosen) -> Run:
    data = load_interactions(config.data)
    split = load_split(config.split, data)
    scenarios = {name: make_scenario(entry, data, split, config.seed, name) for name, entry in config.requests.items()}
    claim(run, config, "recommender")
    key_records(run.path)
    with threadpool_limits(limits=1):  # so that seconds compare, and a busy machine does not make them worse
        for model in chosen.models:
            bench = Bench(config, model)
            for request in chosen.requests:
                if model in (config.requests[request].models or config.models):
                    _pair(bench, run, data, request, scenarios[request], chosen)
    report = make_report(config, run, data, scenarios)
    write_json(run.report, report)
    write_views(run, report)
    seal_views(run.path)
    print_report(report)
    return run


def chosen_rows(entries: Mapping[str, Any], names: Sequence[str] | None, option: str, what: str) -> dict[str, Any]:
    """Return the entries that ``names`` pick, those set to null left out; all where no name is given."""
    given = {name: entry for name, entry in entries.items() if entry is not None}
    if not given:
        raise UserError(f"{what}s: the config names no {what}, so there is nothing to compare.")
    wanted = [known(name, list(given), option, what) for name in names or given]
    return {name: given[name] for name in given if name in wanted}


def claim(run: Run, config: Experiment, kind: str) -> None:
    """Make the run folder of an experiment of this kind, or refuse one that holds another experiment."""
    refuse_other(run.path, run.stored_config(), config.to_dict(), FIXED)
    if run.manifest.is_file() and run.stored_manifest().get("kind") != kind:
        raise UserError(f"{run.path} holds a run of another kind; give another --out.")
    run.create()
    write_text(run.config, config.to_yaml(run.path))
    write_json(run.manifest, environment() | {"kind": kind, "seed": config.seed})


def _pair(bench: Bench, run: Run, data: Interactions, request: str, scenario: Scenario, chosen: Chosen) -> None:
    """Run and measure what is missing of one model on one request."""
    cells = _cells(bench.config, run, data, bench.model, request, chosen.methods)
    missing = [cell for cell in cells if cell.record() is None]
    for cell in cells:
        if cell not in missing:
            print(f"{cell.label}: kept", flush=True)
    if not missing:
        return
    try:
        originals = bench.originals(request, scenario)
        retrains = _retrains(bench, originals[0][0], scenario)
    except EXPECTED as error:
        for cell in missing:
            cell.keep(reason_record(error))
        return
    metrics = bench.config.measures()
    cases = [Case(model, model, retrains, scenario.together, scenario.split, scenario.data) for model, _ in originals]
    shared = {
        "fit_seconds": [seconds for _, seconds in originals],
        "retrain_band": [measure_retrains(case, metrics) for case in cases],
    }
    for cell in missing:
        cell.keep(_run(bench, cell, scenario, cases, shared))


def _cells(
    config: RecommenderConfig, run: Run, data: Interactions, model: str, request: str, methods: Mapping[str, Method]
) -> list[MethodCell]:
    """Return the cells of one model on one request: methods of the request's own choice that are for the model."""
    facts = shared_facts(config, run, data, model, request)
    wanted = config.requests[request].methods
    return [
        MethodCell(
            record_at(run, model, request, name),
            facts | {"method": config.methods[name]},
            f"{model}, {request}: {name}",
            method,
        )
        for name, method in methods.items()
        if (not wanted or name in wanted or name in CONTROLS) and _is_for(method, config.models[model])
    ]


def _is_for(method: Method, model: Mapping[str, Any]) -> bool:
    return not method.card.models or model["name"] in method.card.models


def _retrains(bench: Bench, original: Recommender, scenario: Scenario) -> list[Recommender]:
    """Return the models fitted to what is left, with seeds of their own."""
    retrain = METHODS.build({"name": "retrain"})
    seeds = [derive_seed(bench.config.seed, "band", k) for k in range(bench.config.retrains)]
    return [retrain.unlearn(original, scenario.together, seed).model for seed in seeds]


def _run(bench: Bench, cell: MethodCell, scenario: Scenario, cases: Sequence[Case], shared: Record) -> Record:
    """Run one cell with all seeds and return its record; a method that cannot is recorded with its reason."""
    runs, metrics = [], bench.config.measures()
    try:
        for seed, case in zip(bench.seeds, cases, strict=True):
            model, cost = answer(cell.method, case.original, scenario, derive_seed(seed, "method"))
            target = Case(model, case.original, case.retrains, case.deletion, case.split, case.data)
            runs.append(cost | {"numbers": measure(target, metrics)})
    except EXPECTED as error:
        return reason_record(error)
    return {"runs": runs} | shared


def answer(method: Method, model: Recommender, scenario: Scenario, seed: int) -> tuple[Recommender, Record]:
    """Return the model that was made to forget, and what it cost.

    A stream is answered request by request. Where the first answer is a model of another kind, such as one in shards,
    that model's own way answers the others. The controls answer a stream at once: doing nothing costs nothing, and a
    refit for every request would end in the same model.
    """
    at_once = method.name in CONTROLS
    stream = [scenario.together] if at_once else scenario.stream
    current, ask = model, method
    parts: list[Record] = []
    for number, deletion in enumerate(stream):
        made = ask.unlearn(current, deletion, derive_seed(seed, number))
        parts.append(vars(made.answer) | {"preparation": made.preparation_seconds, "storage": made.storage_bytes})
        if made.model.name != current.name:
            ask = METHODS.build({"name": "native"})
        current = made.model
    return current, _cost(parts, scenario, at_once)


def _cost(parts: Sequence[Record], scenario: Scenario, at_once: bool) -> Record:
    """Return the cost of a stream: sums, the weakest exactness and solve, and the first answer's other facts."""
    stream = {"answered": "at once" if at_once else "one by one"} if len(scenario.stream) > 1 else {}
    solve = of_runs(part["facts"] for part in parts)["solve"]
    return {
        "seconds": sum(part["seconds"] for part in parts),
        "preparation_seconds": sum(part["preparation"] for part in parts),
        "touched": sum(part["touched"] for part in parts),
        "storage_bytes": max(part["storage"] for part in parts),
        "exactness": max((part["exactness"] for part in parts), key=EXACTNESS.index),
        "facts": parts[0]["facts"] | stream | ({"solve": solve} if solve else {}),
        "latencies": [] if at_once or not stream else [part["seconds"] for part in parts],
    }


def reason_record(error: BaseException) -> Record:
    """Return the record of a cell that has no numbers."""
    if isinstance(error, UserError):
        return {"status": SKIPPED, "reason": str(error)}
    text = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
    return {"status": FAILED, "reason": text}
