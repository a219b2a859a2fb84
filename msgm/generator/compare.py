"""``msgm compare`` of generators: one base model per seed, every row's objective run on it, one report.

The report holds each row's numbers over the seeds, and those of the models that were retrained without the request.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from msgm import processes
from msgm.cache import Cache
from msgm.cards.views import Card
from msgm.chain import Chain
from msgm.config import BASE_ROW, Config, load_config
from msgm.data import Dataset, load_dataset
from msgm.errors import UserError, known
from msgm.evaluation import Bench
from msgm.evaluation.card import card
from msgm.evaluation.measuring import check_metrics
from msgm.evaluation.report import print_table, write_views
from msgm.folders import write_json, write_text
from msgm.generator.assemble import comparison_report, publish, upgraded
from msgm.generator.cells import Cell, Workshop, band_of
from msgm.runs import Run, environment, find_model
from msgm.settings import Source, differences
from msgm.splits import Split
from msgm.study.engine import Chosen, Domain, Place
from msgm.study.judging import Report, Row
from msgm.study.tuning import Tunable
from msgm.sweep import with_start, with_stored_sweeps, with_sweeps
from msgm.tables import Table
from msgm.training import train, unlearn
from msgm.training.adapters import check_installed
from msgm.training.earlier import earlier_chain
from msgm.training.run import check_conditions, finished, load_source, new_model, split_data


@dataclass(frozen=True, eq=False)
class World:
    """Shared inputs of a comparison's cells.

    Attributes:
        config: the experiment.
        place: where it runs.
        dataset: the data.
        split: its parts.
        chain: earlier forget requests of the base model.
        source: run or diffusers folder that the base model is taken from; None trains one a seed.
        names: of the rows to run.
        cache: of retrained models; None trains them all.
    """

    config: Config
    place: Place
    dataset: Dataset
    split: Split
    chain: Chain
    source: Path | str | None
    names: list[str]
    cache: Cache | None

    @cached_property
    def bench(self) -> Bench:
        """The bench of all models; its judge is trained, or loaded if it exists."""
        device = processes.device(self.place.device)
        bench = Bench.make(self.config, self.place.run, self.dataset, self.split, device, self.chain)
        return replace(bench, retrained=band_of(self.config, self.place.run))


class Generators(Domain[Config, World]):
    """Comparisons of ways to make score-based models forget."""

    name: ClassVar = "generator"
    kind: ClassVar = None
    options: ClassVar = ("only", "source", "device", "fresh_chain", "start", "sweep", "metrics", "cache")
    verbs: ClassVar = {
        "train": ("resume", "device"),
        "unlearn": ("resume", "device", "fresh_chain", "seed"),
        "tune": ("source", "device"),
    }
    metrics: ClassVar = "evaluation.metrics"
    launched: ClassVar = True

    def load(self, source: Source, overrides: Sequence[str] = ()) -> Config:
        return load_config(source, list(overrides))

    def train(self, config: Config, out: Path | str | None = None, **options: Any) -> Run:
        return train(config, out, **options)

    def unlearn(
        self, config: Config, source: Path | str, out: Path | str | None = None, seed: int | None = None, **options: Any
    ) -> Run:
        return unlearn(config if seed is None else replace(config, seed=seed), source, out, **options)

    def compare(
        self,
        config: Config,
        out: Path | str | None = None,
        device: str = "auto",
        only: Sequence[str] | None = None,
        start: Literal["scratch", "finetune"] | None = None,
        sweep: Sequence[str] = (),
        **options: Any,
    ) -> Run:
        rows = None if only is None else list(only)
        config = with_start(config, start) if start else config
        if sweep:
            config, rows = with_sweeps(config, list(sweep), rows)
        names = _chosen(config, rows)
        config = with_stored_sweeps(config, Run(out or Path("runs") / config.name).stored_config())
        return super().compare(config, out, device, only=names, **options)

    def prepare(self, config: Config, place: Place, chosen: Chosen) -> World:
        source = chosen.get("source")
        dataset, chain = load_dataset(config.data), Chain()
        if source is not None:
            chain = earlier_chain(find_model(source), config, dataset, bool(chosen.get("fresh_chain")))
        split = split_data(config, dataset, chain.requests)
        check_metrics(config, dataset, split)
        _check_base(config, place.run, dataset, source)
        for name in chosen["only"]:
            check_installed(config.row_training(config.rows[name]))
        cache = Cache.of_user() if chosen.get("cache", True) else None
        return World(config, place, dataset, split, chain, source, chosen["only"], cache)

    def occupy(self, config: Config, run: Run, chosen: Chosen) -> None:
        source = chosen.get("source")
        began = {"source": str(source) if source else None, "fresh_chain": bool(chosen.get("fresh_chain"))}
        _refuse_other(config, run, began)
        run.create()
        write_text(run.config, config.to_yaml())
        write_json(run.manifest, environment() | began)

    def begin(self, world: World) -> None:
        world.bench  # noqa: B018 - trains the judge, which every cell loads

    def cells(self, world: World) -> list[Cell]:
        workshop = Workshop(world.place.run, world.bench, world.source, world.place.device, world.cache)
        return workshop.cells(world.names)

    def report(self, world: World) -> Report:
        return comparison_report(world.place.run, world.bench)

    def publish(self, run: Run, report: Report) -> None:
        publish(run, report)

    def card(self, report: Report, row: Row) -> Card:
        return card(report, row)

    def write_views(self, run: Run, report: Report) -> None:
        write_views(run, report)

    def print_report(self, report: Report) -> None:
        print_table(report)

    def upgraded(self, report: Report) -> Report:
        return upgraded(report)

    def dry_run(self, config: Config, only: Sequence[str] | None, device: str) -> Table:
        from msgm.generator.dry_run import dry_run

        return dry_run(config, _chosen(config, None if only is None else list(only)), load_dataset(config.data), device)

    def tunable(self, config: Config, run: Run, source: Path | str | None, device: str) -> Tunable:
        from msgm.generator.tuning import GeneratorTuning

        return GeneratorTuning(config, run, source, device)


GENERATORS = Generators()


def _chosen(config: Config, only: list[str] | None) -> list[str]:
    if BASE_ROW not in config.rows:
        raise UserError(f"rows: compare needs the row {BASE_ROW!r}; the config of a single run has no rows.")
    for name in only or []:
        known(name, list(config.rows), "--only", "row")
    return [name for name, row in config.rows.items() if (name in only if only else not row.optional)]


def _check_base(config: Config, run: Run, dataset: Dataset, source: Path | str | None) -> None:
    """Refuse a base model that cannot be trained or read, before anything is written."""
    if source is None:
        check_conditions(new_model(config, dataset), dataset, config.request)
    elif not finished(Run(run.path / "rows" / BASE_ROW)):
        check_conditions(load_source(find_model(source), config, dataset), dataset, config.request)


def _refuse_other(config: Config, run: Run, began: dict[str, Any]) -> None:
    """Refuse a folder that holds another comparison; rows, metrics, seeds and retrained models may be added to it.

    Args:
        config: the experiment.
        run: its folder.
        began: ``source`` and ``fresh_chain``.
    """
    stored, wanted, manifest = run.stored_config(), config.to_dict() | began, run.stored_manifest()
    if "kind" in manifest or "status" in manifest:
        raise UserError(f"{run.path} holds a run of another kind; give another --out.")
    if stored is not None:
        stored |= {"source": manifest.get("source"), "fresh_chain": manifest.get("fresh_chain", False)}
        new_rows = {name: row for name, row in wanted["rows"].items() if name in stored.get("rows", {})}
        for tree in (stored, wanted):
            tree |= {"seeds": None, "retrains": None}  # more may be asked for later
            tree["evaluation"] = {k: v for k, v in tree["evaluation"].items() if k not in ("metrics", "options")}
        changed = differences(stored, wanted | {"rows": new_rows})
        if changed:
            raise UserError(
                f"{run.path} holds a comparison with other settings ({'; '.join(changed[:3])}); give another --out."
            )
