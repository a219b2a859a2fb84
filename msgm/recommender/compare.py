"""Comparisons of recommenders: every method on every model and request, against models refitted to retained cells.

Models are not saved, as data, settings and seed determine them: a resumed comparison fits them again. Saved are the
records of the cells (one model, request and method each, with all seeds), below ``records/``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from msgm.errors import UserError
from msgm.folders import place
from msgm.recommender.assemble import make_report, record_at, shared_facts
from msgm.recommender.config import RecommenderConfig, load_config
from msgm.recommender.data.base import Interactions, Split, load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.keyed import key_records
from msgm.recommender.methods import METHODS, Method
from msgm.recommender.metrics import Case
from msgm.recommender.models.base import EXACTNESS, Recommender
from msgm.recommender.originals import Originals, retrained
from msgm.recommender.report import VIEWS
from msgm.recommender.scenario import Scenario, make_scenario
from msgm.runs import Run
from msgm.seeding import derive_seed
from msgm.settings import Source
from msgm.solves import of_runs
from msgm.study.cells import Latest
from msgm.study.engine import Chosen, Domain, Place, picked
from msgm.study.judging import CONTROLS, Report
from msgm.study.measuring import measure, measure_retrains
from msgm.study.records import RecordCell
from msgm.study.tuning import Tunable

FIXED = ("data", "split", "seed", "plugins")
"""Settings that all of a run folder shares; models, methods, requests, metrics and seeds may be added."""


@dataclass(frozen=True, eq=False)
class World:
    """All that the cells of a comparison need.

    Attributes:
        config: the experiment.
        run: its folder.
        data: the interactions.
        scenarios: data, split and deletion of every request.
        models: rows of the config to run.
        methods: rows of the config's methods to run.
        requests: names of the requests to run.
        fitted: cache of the last model's originals, by split; requests that plant profiles have their own split.
        latest: cache of the last ``References``.
    """

    config: RecommenderConfig
    run: Run
    data: Interactions
    scenarios: Mapping[str, Scenario]
    models: Sequence[str]
    methods: Mapping[str, Method]
    requests: Sequence[str]
    fitted: Latest[dict[Split, Originals]] = field(default_factory=Latest)
    latest: "Latest[References]" = field(default_factory=Latest)

    def references(self, model: str, request: str) -> "References":
        """Return the ``References`` of a model and request, from the cache if they were used last."""
        return self.latest.get((model, request), lambda: self._references(model, request))

    def _references(self, model: str, request: str) -> "References":
        config, scenario = self.config, self.scenarios[request]
        seeds = [config.seed + k for k in range(config.seeds)]
        fresh = Originals(config.models[model] or {}, scenario.split, seeds)
        originals = self.fitted.get(model, dict).setdefault(scenario.split, fresh)
        return References(config, scenario, originals)


@dataclass(frozen=True, eq=False)
class References:
    """The original and the retrained models of one model and request, which its rows are measured against; lazy.

    Attributes:
        config: the experiment.
        scenario: the request.
        originals: the models fitted to all training cells.
    """

    config: RecommenderConfig
    scenario: Scenario
    originals: Originals

    @cached_property
    def cases(self) -> list[Case]:
        """The ``Case`` of every seed's original, for metrics."""
        scenario, fitted = self.scenario, self.originals.fitted
        retrains = retrained(fitted[0].model, scenario.together, self.config.seed, self.config.retrains)
        return [
            Case(one.model, one.model, retrains, scenario.together, scenario.split, scenario.data) for one in fitted
        ]

    @cached_property
    def shared(self) -> dict[str, Any]:
        """Fields that all records share: seconds of the fits, and the numbers of the retrained models."""
        metrics = self.config.measures()
        return {
            "fit_seconds": [one.seconds for one in self.originals.fitted],
            "retrain_band": [measure_retrains(case, metrics) for case in self.cases],
        }

    def record(self, method: Method) -> dict[str, Any]:
        """Make every seed's original forget by a method, measure it, and return the record."""
        runs, metrics = [], self.config.measures()
        for seed, case in zip(self.originals.seeds, self.cases, strict=True):
            model, cost = answer(method, case.original, self.scenario, derive_seed(seed, "method"))
            target = Case(model, case.original, case.retrains, case.deletion, case.split, case.data)
            runs.append(cost | {"numbers": measure(target, metrics)})
        return {"runs": runs} | self.shared


class Recommenders(Domain[RecommenderConfig, World]):
    """Comparisons of ways to make recommenders forget."""

    name: ClassVar = "recommender"
    kind: ClassVar = "recommender"
    options: ClassVar = ("only", "models", "requests", "metrics")
    verbs: ClassVar = {"train": ("model",)}
    views: ClassVar = VIEWS
    fixed: ClassVar = FIXED
    blas_threads: ClassVar = 1  # so that seconds compare, and a busy machine does not make them worse

    def load(self, source: Source, overrides: Sequence[str] = ()) -> RecommenderConfig:
        return load_config(source, list(overrides))

    def train(
        self, config: RecommenderConfig, out: Path | str | None = None, model: str | None = None, **options: Any
    ) -> Run:
        from msgm.recommender.fitting import fit

        folder = out or place(Path("runs"), config.name, model or "model", key="model")
        return Run(fit(config, model, Path(folder)))

    def unlearn(
        self, config: RecommenderConfig, source: Path | str, out: Path | str | None = None, **options: Any
    ) -> Run:
        raise UserError("unlearn: recommenders forget while they are served: see msgm.recommender and msgm.compare.")

    def tunable(self, config: RecommenderConfig, run: Run, source: Path | str | None, device: str) -> Tunable:
        from msgm.recommender.tuning import RecommenderTuning

        return RecommenderTuning(config, run)

    def prepare(self, config: RecommenderConfig, place: Place, chosen: Chosen) -> World:
        methods = picked(config.rows(), chosen.get("only"), "--only", "method")
        models = list(picked(config.models, chosen.get("models"), "--models", "model"))
        requests = list(picked(config.requests, chosen.get("requests"), "--requests", "request"))
        data = load_interactions(config.data)
        split = load_split(config.split, data)
        scenarios = {
            name: make_scenario(entry, data, split, config.seed, name) for name, entry in config.requests.items()
        }
        return World(config, place.run, data, scenarios, models, methods, requests)

    def begin(self, world: World) -> None:
        key_records(world.run.path)

    def cells(self, world: World) -> Iterator[RecordCell]:
        for model in world.models:
            for request in world.requests:
                if model in (world.config.requests[request].models or world.config.models):
                    yield from _cells(world, model, request)

    def report(self, world: World) -> Report:
        return make_report(world.config, world.run, world.data, world.scenarios)

    def stored(self, config: RecommenderConfig, run: Run) -> dict[str, Any]:
        return config.stored(run.path)


RECOMMENDERS = Recommenders()


def _cells(world: World, model: str, request: str) -> Iterator[RecordCell]:
    """Yield the cells of one model on one request: the methods that the request selects and that support the model."""
    config = world.config
    facts = shared_facts(config, world.run, world.data, model, request)
    wanted, settings = config.requests[request].methods, config.models[model] or {}
    for name, method in world.methods.items():
        if (not wanted or name in wanted or name in CONTROLS) and _is_for(method, settings):
            yield RecordCell(
                f"{model}, {request}: {name}",
                record_at(world.run, model, request, name),
                facts | {"method": config.methods[name]},
                partial(_record, world, model, request, method),
                shares=f"{model}, {request}",
            )


def _record(world: World, model: str, request: str, method: Method) -> dict[str, Any]:
    return world.references(model, request).record(method)


def _is_for(method: Method, model: Mapping[str, Any]) -> bool:
    return not method.card.models or model["name"] in method.card.models


def answer(method: Method, model: Recommender, scenario: Scenario, seed: int) -> tuple[Recommender, dict[str, Any]]:
    """Return the unlearned model and the cost.

    A stream is answered request by request. Where the first answer is a model of another kind, such as a sharded one,
    its own ``forget`` answers the rest. The controls answer a stream at once: doing nothing costs nothing, and a refit
    for every request would end in the same model.
    """
    at_once = method.name in CONTROLS
    stream = [scenario.together] if at_once else scenario.stream
    current, ask = model, method
    parts: list[dict[str, Any]] = []
    for number, deletion in enumerate(stream):
        made = ask.unlearn(current, deletion, derive_seed(seed, number))
        parts.append(vars(made.answer) | {"preparation": made.preparation_seconds, "storage": made.storage_bytes})
        if made.model.name != current.name:
            ask = METHODS.build({"name": "native"})
        current = made.model
    return current, _cost(parts, scenario, at_once)


def _cost(parts: Sequence[Mapping[str, Any]], scenario: Scenario, at_once: bool) -> dict[str, Any]:
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
