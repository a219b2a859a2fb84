"""``msgm compare``: a base model a seed, every row's objective run on it, all measured alike, one report.

The report holds each row's numbers over the seeds, and those of the models that were retrained without the request.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

import torch

from msgm import processes, threads, traces
from msgm.cache import Cache
from msgm.cards.stored import showing
from msgm.chain import merged
from msgm.config import BASE_ROW, Config
from msgm.data import Dataset, load_dataset
from msgm.diffusion import ScoreModel
from msgm.digests import positions_digest
from msgm.errors import RunError, UserError, known
from msgm.evaluation import Bench, Subject, measure
from msgm.evaluation.card import card
from msgm.evaluation.card_views import draw_cards, write_cards
from msgm.evaluation.measuring import check_metrics, comparable, protocol, refuse_obstacles
from msgm.evaluation.metrics.unlearning_ratio import real_numbers
from msgm.evaluation.numbers import band_facts, numbers, over_seeds, standings
from msgm.evaluation.paper import paper_tables
from msgm.evaluation.provenance import provenance
from msgm.evaluation.report import print_table, tables, write_pages
from msgm.evaluation.sweeps import sweep_tables
from msgm.folders import check_names, locked, place, write_json, write_text
from msgm.generator.cells import Cells, given_facts, placed, retrained_cells, row_cells, seeds_of, stored_row
from msgm.generator.jobs import Job, make_bench, run_elsewhere
from msgm.reading import read_json
from msgm.runs import Run, environment, find_model
from msgm.settings import differences
from msgm.study.executors import Workers, executor_of
from msgm.sweep import with_stored_sweeps
from msgm.training.earlier import earlier_chain
from msgm.training.run import finished, load_source, new_model, split_data

TAKEN = ("final", "samples", "png", "shards")
"""What lies in the folder ``samples`` of a run, beside the samples of an evaluation."""


def compare(
    config: Config,
    out: Path | str | None = None,
    only: list[str] | None = None,
    source: Path | str | None = None,
    device: str = "auto",
    fresh_chain: bool = False,
    cache: bool = True,
    jobs: int = 1,
    cluster: str | None = None,
) -> Run:
    """Run and measure the rows of ``config`` and write the report; rows already finished are not run again.

    Args:
        config: the experiment.
        out: compare folder; by default ``runs/NAME``.
        only: names of the rows to run; by default all that are not optional.
        source: run or diffusers folder to take the base model from; by default it is trained.
        device: ``auto``, ``cpu`` or ``cuda``.
        fresh_chain: start a new history: what ``source`` was asked to forget before is data to retain again.
        cache: take models that are retrained without the request from the user's cache, and keep them there.
        jobs: how many models are made and measured at a time, each in a process of its own.
        cluster: address of a dask scheduler whose workers make and measure the models; see ``executor_of``.

    Raises:
        UserError: an unknown row, a base model that does not fit, data that is not that of the base's earlier requests,
            or a folder that holds another comparison; nothing is written then.
    """
    run = Run(out or Path("runs") / config.name)
    with processes.together(device) as where, locked(run.path):
        threads.keep(run.manifest)
        with executor_of(jobs, cluster) as workers:
            job = Job(run.path, source, device, fresh_chain, Cache.of_user() if cache else None)
            return _compare(config, run, only, job, where, workers)


def _compare(
    config: Config, run: Run, only: list[str] | None, job: Job, where: torch.device, workers: Workers | None
) -> Run:
    names = _chosen(config, only)
    config = with_stored_sweeps(config, run.stored_config())
    dataset, split, chain = job.data(config)
    check_metrics(config, dataset, split)
    _check_base(config, run, dataset, job.source)
    processes.wait()  # until all have read what the first is about to write
    _claim(run, config, job.source, job.fresh_chain)
    bench = make_bench(config, run, dataset, split, where, chain)
    elsewhere = partial(run_elsewhere, job, config, workers) if workers else None
    failed = Cells(run, bench, job.source, job.device, where, job.cache).run_all(names, elsewhere)
    if processes.is_first():
        _finish_comparison(run, bench, failed)
    if failed:
        count = "one model" if len(failed) == 1 else f"{len(failed)} models"
        raise RunError(f"{count} failed, and the same command tries again: {_told(failed)}.")
    return run


def _told(failed: dict[str, str]) -> str:
    return "; ".join(f"{label}: {text.rstrip('.')}" for label, text in failed.items())


def _finish_comparison(run: Run, bench: Bench, failed: dict[str, str]) -> None:
    """Write the report of all cells that were measured, now or earlier, and of those that ``failed``.

    Raises:
        RunError: none was measured.
    """
    config = bench.config
    of_rows = [cell for name in config.rows for cell in row_cells(config, name)]
    of_band = retrained_cells(config)
    found = {cell: row for cell in [*of_rows, *of_band] if (row := stored_row(run, cell)) is not None}
    found = dict(zip(found, comparable(list(found.values()), bench), strict=True))
    bases = [Run(run.path / cell.folder) for cell in row_cells(config, BASE_ROW)]
    made = next((base for base in bases if finished(base)), None)
    rows = [found[cell] for cell in of_rows if cell in found]
    if made is None or not rows:
        raise RunError(f"nothing could be measured: {_told(failed)}.")
    manifest = made.finished_manifest()
    cost = {"seconds": manifest["seconds"], "source": manifest["source"]}
    waiting = {cell.label for cell in [*of_rows, *of_band] if cell not in found}
    failed = {label: text for label, text in (_earlier(run).get("failed", {}) | failed).items() if label in waiting}
    finish(run, bench, rows, cost, [found[cell] for cell in of_band if cell in found], failed)


def evaluate(config: Config, sources: list[str], out: Path | str | None = None, device: str = "auto") -> Run:
    """Measure trained models as ``compare`` does, and write the same report.

    Args:
        config: the experiment: data, request and protocol.
        sources: run folders or diffusers folders.
        out: folder of the report; by default the run itself when one run is given, else ``runs/NAME-evaluation``.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UserError: no model in a folder, a model that makes items of another shape, two folders of one name, a metric
            that cannot be measured on the only model, or a folder that holds the report of a comparison; nothing is
            written then.
    """
    names = [Path(source).resolve().name for source in sources]
    alone = len(sources) == 1 and Run(sources[0]).manifest.is_file()
    run = Run(out or (sources[0] if alone else Path("runs") / f"{config.name}-evaluation"))
    check_names(names, "folders to evaluate", TAKEN if alone and not out else ())
    models = {name: find_model(source) for name, source in zip(names, sources, strict=True)}
    with processes.together(device) as where, locked(run.path):
        return _evaluate(config, models, run, where)


def _evaluate(config: Config, models: dict[str, Path], run: Run, where: torch.device) -> Run:
    if run.report.is_file() and read_json(run.report, dict[str, Any]).get("base", "a row") is not None:
        raise UserError(f"{run.path} holds the report of a comparison; give another --out.")
    dataset = load_dataset(config.data)
    chain = merged([earlier_chain(folder, config, dataset) for folder in models.values()])
    split = split_data(config, dataset, chain.requests)
    check_metrics(config, dataset, split)
    for folder in models.values():
        _load_fitting(folder, dataset)
        if len(models) == 1:
            refuse_obstacles(config, split, _maker(folder))
    bench = make_bench(config, run, dataset, split, where, chain)
    rows = []
    for name, folder in models.items():
        if folder.resolve() != run.model.resolve():
            traces.follow(run.path, folder)
        for path in (place(run.samples, name), place(run.samples, name, ending=".png")):
            traces.register(run.path, path, *traces.KNOWN["samples"])
        model = _load_fitting(folder, dataset).to(where)
        subject = Subject(name, model, bench, place(run.samples, name), _maker(folder))
        grid = Path("samples") / f"{name}.png"
        rows.append(measure(subject, placed(subject, given_facts(name, folder), run, grid, folder)))
    return finish(run, bench, rows, None) if processes.is_first() else run


def _maker(folder: Path) -> Run | None:
    """Return the run that a model folder belongs to, if there is one."""
    run = Run(folder.parent)
    return run if folder == run.model else None


def finish(
    run: Run,
    bench: Bench,
    rows: list[dict[str, Any]],
    base: dict[str, Any] | None,
    retrains: Sequence[dict[str, Any]] = (),
    failed: Mapping[str, str] = MappingProxyType({}),
) -> Run:
    """Write the report and its views.

    The protocol of a comparison keeps its lines of metrics that were measured in an earlier call.

    Args:
        run: where to.
        bench: what the models were measured against.
        rows: measured models, one a row and seed.
        base: what the base model cost, in a comparison.
        retrains: measured models that were retrained without the request, from seeds of their own.
        failed: why others were not measured, by their labels.
    """
    request = bench.config.request
    for name in ("samples.png", "report.html"):
        traces.register(run.path, run.path / name, *traces.KNOWN[name])
    earlier = _earlier(run).get("protocol", {}) if base else {}
    report: dict[str, Any] = {
        "title": bench.config.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": bench.config.seed,
        "seeds": seeds_of(bench.config),
        "request": {
            "text": request.describe(),
            "goal": request.goal,
            "target": request.target,
            "forget_digest": positions_digest(run.path, bench.split.train.forget),
        },
        "data": {
            "name": bench.dataset.name,
            "digest": bench.dataset.digest(),
            "items": {
                part: {
                    "retain": len(getattr(bench.split, part).retain),
                    "forget": len(getattr(bench.split, part).forget),
                }
                for part in ("train", "validation", "test")
            },
        },
        "judge": bench.judge.summary(),
        "real": real_numbers(bench),
        "base": base,
        "protocol": earlier | protocol(bench),
        "environment": environment(),
        "retrains": [],
        "failed": dict(failed),
        "artifacts": [],
    }
    made = [row | {"provenance": provenance(run, row, bench.split.train.forget)} for row in (*rows, *retrains)]
    for row in made if base else []:  # some were measured by an earlier command, and are read
        with showing(run.path / row["folder"] / "report.json"):
            numbers(row, report)
    report["rows"] = over_seeds(made[: len(rows)], report)
    report["retrains"] = over_seeds(made[len(rows) :], report)
    for row in report["rows"]:
        row["numbers"] = {heading: found.tree() for heading, found in standings(report, row).items()}
    report["band"] = band_facts(report)
    for row in report["rows"] if base else []:
        with showing(place(run.path, "rows", row["name"], "report.json")):
            tables(report | {"rows": [row]})
            card(report, row)
    report["paper"] = paper_tables(bench.config, report) + sweep_tables(bench.config, report) if base else []
    write_json(run.report, report)
    write_pages(run, report)
    drawn = draw_cards(run, report)
    write_cards(run, report, drawn)
    # Pages and cards hold samples, too: they are listed on the cards, which are therefore written again.
    report["artifacts"] = traces.of_request(traces.holders(run.path), request.describe())
    write_json(run.report, report)
    write_cards(run, report, drawn)
    traces.seal_views(run.path)
    print_table(report)
    return run


def _chosen(config: Config, only: list[str] | None) -> list[str]:
    if BASE_ROW not in config.rows:
        raise UserError(f"rows: compare needs the row {BASE_ROW!r}; the config of a single run has no rows.")
    for name in only or []:
        known(name, list(config.rows), "--only", "row")
    return [name for name, row in config.rows.items() if (name in only if only else not row.optional)]


def _load_fitting(folder: Path, dataset: Dataset) -> ScoreModel:
    model = ScoreModel.load(folder)
    if model.shape != dataset.shape:
        raise UserError(f"{folder} makes items of shape {model.shape}, but the data has {dataset.shape}.")
    return model


def _check_base(config: Config, run: Run, dataset: Dataset, source: Path | str | None) -> None:
    """Refuse a base model that cannot be made or taken, before anything is written."""
    if source is None:
        new_model(config, dataset)
    elif not finished(Run(run.path / "rows" / BASE_ROW)):
        load_source(find_model(source), config, dataset)


def _claim(run: Run, config: Config, source: Path | str | None, fresh_chain: bool) -> None:
    """Make the compare folder, or check that it holds this comparison; rows, metrics and seeds may be added to it."""
    began = {"source": str(source) if source else None, "fresh_chain": fresh_chain}
    stored, wanted = run.stored_config(), config.to_dict() | began
    if stored is not None:
        manifest = run.stored_manifest()
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
    run.create()
    write_text(run.config, config.to_yaml())
    write_json(run.manifest, environment() | began)


class Earlier(TypedDict, total=False):
    """What is read of the report of an earlier call."""

    protocol: dict[str, str]
    failed: dict[str, str]


def _earlier(run: Run) -> Earlier:
    earlier: Earlier = read_json(run.report, Earlier) if run.report.is_file() else {}
    return earlier
