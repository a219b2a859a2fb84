"""``msgm recommender attributes``: every erasure of an attribute from every model, against fresh attackers.

A cell is one model, attribute and erasure, with all seeds; its record lies below ``records/`` and is kept while its
settings are the same. Two controls are cells too: ``before``, the model as it was fitted, on which attackers must find
the attribute, and ``shuffled-labels``, attackers on the same model who are given permuted values and must be at chance.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from msgm.digests import short_digest
from msgm.errors import UserError
from msgm.folders import check_names
from msgm.recommender.attributes.labels import Labels, chosen, encode, shuffled
from msgm.recommender.compare import FIXED
from msgm.recommender.config import load_experiment
from msgm.recommender.data.base import Interactions, Split, load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.erasure.assemble import KIND, make_report, record_at, shared_facts
from msgm.recommender.erasure.config import CONTROLS, SHUFFLED, AttributeConfig
from msgm.recommender.erasure.erasures import ModelErasure, build_erasure, has_users
from msgm.recommender.erasure.report import print_report, write_views
from msgm.recommender.metrics import Case
from msgm.recommender.metrics.attribute_attackers import check_sizes
from msgm.recommender.models.base import Recommender
from msgm.recommender.originals import Originals
from msgm.recommender.requests import Deletion
from msgm.runs import Run
from msgm.seeding import derive_seed
from msgm.settings import Source
from msgm.study.cells import Latest
from msgm.study.engine import Chosen, Domain, Place, picked
from msgm.study.judging import Report, Row
from msgm.study.measuring import Numbers, measure
from msgm.study.records import RecordCell
from msgm.study.tuning import Tunable


@dataclass(frozen=True, eq=False)
class World:
    """Inputs that the cells of a comparison share: the config, its folder, data, split, and rows and models to run.

    The originals of the model that was used last are cached.
    """

    config: AttributeConfig
    run: Run
    data: Interactions
    split: Split
    labels: Sequence[Labels]
    rows: Mapping[str, dict[str, Any]]
    models: Mapping[str, dict[str, Any]]
    fitted: Latest[Originals] = field(default_factory=Latest)

    def originals(self, model: str) -> Originals:
        """Return a model fitted with every seed."""
        seeds = [self.config.seed + k for k in range(self.config.seeds)]
        return self.fitted.get(model, lambda: Originals(self.models[model], self.split, seeds))


class Attributes(Domain[AttributeConfig, World]):
    """Comparisons of erasures of users' attributes from recommenders."""

    name: ClassVar = "attributes"
    kind: ClassVar = KIND
    options: ClassVar = ("only", "models")
    fixed: ClassVar = FIXED
    blas_threads: ClassVar = 1  # so that seconds compare, and a busy machine does not make them worse

    def load(self, source: Source, overrides: Sequence[str] = ()) -> AttributeConfig:
        return load_experiment(AttributeConfig, source, list(overrides))

    def tunable(self, config: AttributeConfig, run: Run, source: Path | str | None, device: str) -> Tunable:
        from msgm.recommender.erasure.tuning import AttributeTuning

        return AttributeTuning(config, run)

    def prepare(self, config: AttributeConfig, place: Place, chosen: Chosen) -> World:
        rows = picked(config.erasures, chosen.get("only"), "--only", "erasure")
        models = picked(config.models, chosen.get("models"), "--models", "model")
        for model, settings in models.items():
            if not has_users(settings["name"]):
                raise UserError(
                    f"models.{model}: {settings['name']} has no user embeddings to take an attribute out of; "
                    "use als, bpr, lightgcn, mf or mult-vae."
                )
        data = load_interactions(config.data)
        labels = asked_labels(config, data)
        return World(config, place.run, data, load_split(config.split, data), labels, rows, models)

    def cells(self, world: World) -> Iterator[RecordCell]:
        for model in world.models:
            yield from _cells(world, model)

    def report(self, world: World) -> Report:
        return make_report(world.config, world.run, world.data, world.labels)

    def upgraded(self, report: Report) -> Report:
        return report

    def card(self, report: Report, row: Row) -> None:
        return None

    def write_views(self, run: Run, report: Report) -> None:
        write_views(run, report)

    def print_report(self, report: Report) -> None:
        print_report(report)


ATTRIBUTES = Attributes()


@dataclass(frozen=True, eq=False)
class Erasing:
    """One model, attribute and row: an erasure, which takes out ``erased``, or a control, which has none."""

    world: World
    model: str
    row: str
    attribute: str
    erasure: ModelErasure | None
    erased: Sequence[str]

    @property
    def originals(self) -> Originals:
        """The model before the attribute is taken out, one a seed."""
        return self.world.originals(self.model)

    def record(self) -> dict[str, Any]:
        """Run and measure it with all seeds."""
        return {"runs": [self._run(number) for number in range(len(self.originals.seeds))]}

    def _run(self, number: int) -> dict[str, Any]:
        seed, original = self.originals.seeds[number], self.originals.fitted[number]
        values = {name: self.world.data.attributes[name] for name in self.erased}
        model, seconds = original.model, 0.0
        dropped = int((self.world.data.attributes[self.attribute] == "").sum())
        if self.erasure is not None:
            made = self.erasure.erase(original, values, derive_seed(seed, "erasure"))
            model, seconds, dropped = made.model, made.seconds, made.dropped[self.attribute]
        numbers = self._numbers(model, original.model, seed)
        return {"seconds": seconds, "fit_seconds": original.seconds, "dropped": dropped, "numbers": numbers}

    def _shuffled(self, seed: int) -> Interactions:
        """Return the data with the attribute's values randomly permuted among the users who have one."""
        data, attribute = self.world.data, self.attribute
        (labels,) = encode({attribute: data.attributes[attribute]})
        dealt = shuffled(labels, np.random.default_rng(derive_seed(seed, "shuffled", attribute)))
        # The class number of users without a value, -1, picks the empty text at the end.
        texts = np.array([*labels.values, ""])[dealt.codes]
        return replace(data, attributes={attribute: texts})

    def _numbers(self, model: Recommender, original: Recommender, seed: int) -> Numbers:
        config = self.world.config
        data = self._shuffled(seed) if self.row == SHUFFLED else self.world.data
        case = Case(model, original, [], Deletion(), self.world.split, data)
        found = measure(case, [config.ranking()])
        for surface in config.surfaces:
            attacked = measure(case, [config.attackers(self.attribute, surface, seed)])
            found["chance"] = attacked.pop("attribute_chance")
            found |= {name.replace("attribute", surface): value for name, value in attacked.items()}
        return found


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


def _cells(world: World, model: str) -> Iterator[RecordCell]:
    """Yield the cells of one model: the controls, and the erasures that are for it."""
    names, shared = [each.name for each in world.labels], shared_facts(world.config, world.data, model)
    erasures = {row: build_erasure(settings) for row, settings in world.rows.items()}
    erasures = {
        row: erasure
        for row, erasure in erasures.items()
        if erasure.is_for(world.models[model]["name"]) and (len(names) > 1 or not erasure.several)
    }
    for attribute in names:
        for row in [*CONTROLS, *erasures]:
            erasure = erasures.get(row)
            erased = names if erasure is not None and erasure.several else [attribute]
            facts = shared | {
                "attribute": attribute,
                "erased": {name: _values_digest(world.data, name) for name in erased},
            }
            facts |= {"erasure": world.rows.get(row, row)}
            work = Erasing(world, model, row, attribute, erasure, erased)
            label = f"{model}, {attribute}: {row}"
            where, shares = record_at(world.run, model, attribute, row), f"{model}, {attribute}"
            yield RecordCell(label, where, facts, work.record, shares=shares)


def _values_digest(data: Interactions, attribute: str) -> str:
    return short_digest(["\n".join(data.attributes[attribute].tolist()).encode()])
