"""``msgm recommender attributes``: every way to take an attribute out of every model, against fresh attackers.

A cell is one model, attribute and way, with all seeds; its record lies below ``records/`` and is kept while its
settings are the same. Two controls are cells too: ``before``, the model as it was fitted, on which attackers must find
the attribute, and ``shuffled-labels``, attackers on the same model who are given permuted values and must be at chance.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from msgm.errors import UserError
from msgm.folders import check_names, locked, write_json
from msgm.recommender.attribute_assemble import KIND, make_report, record_at, shared_facts
from msgm.recommender.attribute_config import CONTROLS, SHUFFLED, AttributeConfig
from msgm.recommender.attribute_report import print_report, write_views
from msgm.recommender.attribute_ways import Original, Way, build_way, has_users
from msgm.recommender.attributes.labels import Labels, chosen, encode, shuffled
from msgm.recommender.compare import EXPECTED, Cell, Record, chosen_rows, claim, reason_record
from msgm.recommender.data.base import Interactions, Split, load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.metrics import Case
from msgm.recommender.metrics.attribute_attackers import check_sizes
from msgm.recommender.models import MODELS
from msgm.recommender.models.base import Recommender
from msgm.recommender.requests import Deletion
from msgm.runs import Run
from msgm.seeding import derive_seed
from msgm.study.measuring import Numbers, measure
from msgm.traces import seal_views


@dataclass(frozen=True, eq=False)
class ErasureCell(Cell):
    """One model, attribute and row: a way, which takes out ``erased``, or a control, which has none."""

    row: str
    attribute: str
    way: Way | None
    erased: list[str]


@dataclass(eq=False)
class Bench:
    """One row of models on the data: fitted with every seed when it is first needed."""

    config: AttributeConfig
    settings: Record
    data: Interactions
    split: Split

    @cached_property
    def originals(self) -> dict[int, Original]:
        """The fitted models, by seed of the experiment."""
        seeds = [self.config.seed + k for k in range(self.config.seeds)]
        return {seed: self._fit(derive_seed(seed, "fit")) for seed in seeds}

    def _fit(self, seed: int) -> Original:
        model = MODELS.build(self.settings)
        start = perf_counter()
        model.fit(self.split.train, seed, self.split.train_times)
        return Original(model, perf_counter() - start, seed, self.split)

    def run(self, cell: ErasureCell) -> Record:
        """Return the record of a cell; one that cannot be run is recorded with its reason."""
        try:
            return {"runs": [self._run(cell, seed, original) for seed, original in self.originals.items()]}
        except EXPECTED as error:
            return reason_record(error)

    def _run(self, cell: ErasureCell, seed: int, original: Original) -> Record:
        values = {name: self.data.attributes[name] for name in cell.erased}
        model, seconds = original.model, 0.0
        dropped = int((self.data.attributes[cell.attribute] == "").sum())
        if cell.way is not None:
            made = cell.way.erase(original, values, derive_seed(seed, "erasure"))
            model, seconds, dropped = made.model, made.seconds, made.dropped[cell.attribute]
        data = self._shuffled(cell.attribute, seed) if cell.row == SHUFFLED else self.data
        numbers = self._numbers(model, original.model, data, cell.attribute, seed)
        return {"seconds": seconds, "fit_seconds": original.seconds, "dropped": dropped, "numbers": numbers}

    def _shuffled(self, attribute: str, seed: int) -> Interactions:
        """Return the data with the attribute's values dealt out anew among the users who have one."""
        (labels,) = encode({attribute: self.data.attributes[attribute]})
        dealt = shuffled(labels, np.random.default_rng(derive_seed(seed, "shuffled", attribute)))
        # The class number of users without a value, -1, picks the empty text at the end.
        texts = np.array([*labels.values, ""])[dealt.codes]
        return replace(self.data, attributes={attribute: texts})

    def _numbers(
        self, model: Recommender, original: Recommender, data: Interactions, attribute: str, seed: int
    ) -> Numbers:
        case = Case(model, original, [], Deletion(), self.split, data)
        found = measure(case, [self.config.ranking()])
        for surface in self.config.surfaces:
            attacked = measure(case, [self.config.attackers(attribute, surface, seed)])
            found["chance"] = attacked.pop("attribute_chance")
            found |= {name.replace("attribute", surface): value for name, value in attacked.items()}
        return found


def compare_erasures(
    config: AttributeConfig,
    out: Path | str | None = None,
    only: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
) -> Run:
    """Run and measure the erasures of ``config`` and write the report; what is there already is kept.

    Args:
        config: the experiment.
        out: run folder; by default ``runs/NAME``.
        only: erasures to run, besides the controls; by default all. The report shows all that are there.
        models: models to run; by default all.

    Raises:
        UserError: an unknown name, a model without user embeddings, an attribute that the data do not have or that has
            one value, or a folder that holds another experiment; nothing is written then.
    """
    rows = chosen_rows(config.erasures, only, "--only", "erasure")
    wanted = chosen_rows(config.models, models, "--models", "model")
    for model, settings in wanted.items():
        if not has_users(settings["name"]):
            raise UserError(
                f"models.{model}: {settings['name']} has no user embeddings to take an attribute out of; "
                "use als, bpr, lightgcn, mf or mult-vae."
            )
    run = Run(out or Path("runs") / config.name)
    with locked(run.path):
        return _compare(config, run, rows, wanted)


def _compare(config: AttributeConfig, run: Run, rows: dict[str, Record], wanted: dict[str, Record]) -> Run:
    data = load_interactions(config.data)
    labels = asked_labels(config, data)
    split = load_split(config.split, data)
    claim(run, config, KIND)
    with threadpool_limits(limits=1):  # so that seconds compare, and a busy machine does not make them worse
        for model, settings in wanted.items():
            bench = Bench(config, settings, data, split)
            for cell in _cells(bench, run, model, rows, labels):
                if cell.record() is None:
                    cell.keep(bench.run(cell))
                else:
                    print(f"{cell.label}: kept", flush=True)
    report = make_report(config, run, data, labels)
    write_json(run.report, report)
    write_views(run, report)
    seal_views(run.path)
    print_report(report)
    return run


def asked_labels(config: AttributeConfig, data: Interactions) -> list[Labels]:
    """Return the attributes to take out.

    Raises:
        UserError: the data have none, or not the one asked for; or it has one value, or too few users of one.
    """
    if not data.attributes:
        hint = "; data.attributes names a file of them" if "attributes" in config.data else ""
        raise UserError(f"data {config.data['name']!r} has no attribute of users to take out{hint}.")
    names = [config.attribute] if config.attribute else sorted(data.attributes)
    check_names(names, "attributes of the data")
    found = encode(chosen(data.attributes, names))
    for labels in found:
        check_sizes(labels, config.folds)
    return found


def _cells(
    bench: Bench, run: Run, model: str, rows: Mapping[str, Record], labels: Sequence[Labels]
) -> list[ErasureCell]:
    """Return the cells of one model: the controls, and the ways that are for it."""
    ways = {row: build_way(settings) for row, settings in rows.items()}
    names, shared = [each.name for each in labels], shared_facts(bench.config, bench.data, model)
    ways = {
        row: way
        for row, way in ways.items()
        if way.is_for(bench.settings["name"]) and (len(names) > 1 or not way.several)
    }
    cells = []
    for attribute in names:
        for row in [*CONTROLS, *ways]:
            way = ways.get(row)
            erased = names if way is not None and way.several else [attribute]
            facts = shared | {"attribute": attribute, "erased": {name: _digest(bench.data, name) for name in erased}}
            facts |= {"erasure": rows.get(row, row)}
            place, label = record_at(run, model, attribute, row), f"{model}, {attribute}: {row}"
            cells.append(ErasureCell(place, facts, label, row, attribute, way, erased))
    return cells


def _digest(data: Interactions, attribute: str) -> str:
    """Return a short hash of an attribute's values."""
    return hashlib.sha256("\n".join(data.attributes[attribute].tolist()).encode()).hexdigest()[:16]
