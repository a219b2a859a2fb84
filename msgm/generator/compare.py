"""``msgm compare``: one base model, every row's objective run on it, all measured alike, one report."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

import torch

from msgm import threads, traces
from msgm.cards.stored import showing
from msgm.chain import Chain, merged
from msgm.config import BASE_ROW, Config, Row
from msgm.data import Dataset, load_dataset
from msgm.diffusion import ScoreModel
from msgm.diffusion.model import describe
from msgm.digests import positions_digest
from msgm.errors import UserError, nearest
from msgm.evaluation import Bench, Reality, Subject, measure, train_judge
from msgm.evaluation.card import card
from msgm.evaluation.card_views import write_cards
from msgm.evaluation.measuring import check_metrics, comparable, missing_metrics, protocol, refuse_obstacles
from msgm.evaluation.metrics.unlearning_ratio import real_numbers
from msgm.evaluation.paper import paper_tables
from msgm.evaluation.provenance import provenance
from msgm.evaluation.report import print_table, tables, write_pages
from msgm.evaluation.sweeps import sweep_tables
from msgm.folders import check_names, locked, place, write_bytes, write_json, write_text
from msgm.objectives import OBJECTIVES
from msgm.pictures import to_png
from msgm.reading import read_json, read_yaml
from msgm.runs import FinishedManifest, Run, chosen_device, environment, find_model
from msgm.settings import differences
from msgm.shapes import Count, Seconds
from msgm.splits import Split
from msgm.sweep import with_stored_sweeps
from msgm.training.earlier import earlier_chain, extended
from msgm.training.run import finished, fit, load_source, new_model, split_data

GRID = 100
UNTRAINED = ("none", "random")
TAKEN = ("final", "samples", "png", "shards")
"""What lies in the folder ``samples`` of a run, beside the samples of an evaluation."""


def compare(
    config: Config,
    out: Path | str | None = None,
    only: list[str] | None = None,
    source: Path | str | None = None,
    device: str = "auto",
    fresh_chain: bool = False,
) -> Run:
    """Run and measure the rows of ``config`` and write the report; rows already finished are not run again.

    Args:
        config: the experiment.
        out: compare folder; by default ``runs/NAME``.
        only: names of the rows to run; by default all that are not optional.
        source: run or diffusers folder to take the base model from; by default it is trained.
        device: ``auto``, ``cpu`` or ``cuda``.
        fresh_chain: start a new history: what ``source`` was asked to forget before is data to retain again.

    Raises:
        UserError: an unknown row, a base model that does not fit, data that is not that of the base's earlier requests,
            or a folder that holds another comparison; nothing is written then.
    """
    run = Run(out or Path("runs") / config.name)
    with locked(run.path):
        return _compare(config, run, only, source, device, fresh_chain)


def _compare(
    config: Config, run: Run, only: list[str] | None, source: Path | str | None, device: str, fresh_chain: bool
) -> Run:
    names = _chosen(config, only)
    threads.keep(run.manifest)
    config = with_stored_sweeps(config, run.stored_config())
    where = chosen_device(device)
    dataset = load_dataset(config.data)
    chain = earlier_chain(find_model(source), config, dataset, fresh_chain) if source else Chain()
    split = split_data(config, dataset, chain.requests)
    check_metrics(config, dataset, split)
    _check_base(config, run, dataset, source)
    _claim(run, config, source, fresh_chain)
    bench = make_bench(config, run, dataset, split, where, chain)
    base = base_model(bench, run, source, device)
    for name in names:
        _row(name, bench, run, base, device, where)
    reports = [path for path in (run.path / "rows").glob("*/report.json") if path.parent.name in config.rows]
    rows = sorted(map(_stored_row, reports), key=lambda row: list(config.rows).index(row["name"]))
    manifest = Run(run.path / "rows" / BASE_ROW).finished_manifest()
    cost = {"seconds": manifest["seconds"], "source": manifest["source"]}
    return finish(run, bench, comparable(rows, bench), cost)


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
    with locked(run.path):
        return _evaluate(config, models, run, device)


def _evaluate(config: Config, models: dict[str, Path], run: Run, device: str) -> Run:
    if run.report.is_file() and read_json(run.report, dict[str, Any]).get("base", "a row") is not None:
        raise UserError(f"{run.path} holds the report of a comparison; give another --out.")
    where = chosen_device(device)
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
        rows.append(measure(subject, _placed(subject, _given(name, folder), run, grid, folder)))
    return finish(run, bench, rows, None)


def _maker(folder: Path) -> Run | None:
    """Return the run that a model folder belongs to, if there is one."""
    run = Run(folder.parent)
    return run if folder == run.model else None


def make_bench(
    config: Config, run: Run, dataset: Dataset, split: Split, device: torch.device, chain: Chain | None = None
) -> Bench:
    """Train (or load) the judge, and calibrate the distances; ``chain`` is what the models were asked to forget."""
    folder, settings = run.path / "judge", config.evaluation.judge
    for name in ("judge", "reference"):
        traces.register(run.path, run.path / name, *traces.KNOWN[name])
    judge = train_judge(dataset, split, config.request, settings, config.seed, folder, device)
    reality = Reality.of(dataset, split, device)
    return Bench(config, dataset, split, judge, reality, run.path / "reference", chain or Chain())


def base_model(bench: Bench, run: Run, source: Path | str | None, device: str) -> Path:
    """Return the model folder of the base row: trained on all data, or copied from ``source`` with its chain."""
    row = Run(run.path / "rows" / BASE_ROW)
    experiment = bench.config.for_row(bench.config.rows[BASE_ROW])
    if source is None:
        fit(experiment, row, bench.dataset, bench.split, None, resume=True, device=device)
    elif not finished(row):
        found = find_model(source)
        model = load_source(found, experiment, bench.dataset)
        facts = {"source": str(found), "start": "none", "weights": "as given"}
        _write_untrained(row, model, experiment, facts, bench)
    return row.model


def _write_untrained(row: Run, model: ScoreModel, experiment: Config, facts: dict[str, Any], bench: Bench) -> None:
    """Write the run folder of a model that nothing was done to here."""
    row.create()
    if facts["source"] is not None:
        traces.register(row.path, row.model, "the base model, as it was given")
        traces.follow(row.path, Path(facts["source"]))
    model.chain = extended(bench.chain, experiment, bench.dataset, row.path, from_scratch=False, asked=False)
    model.save(row.model)
    write_text(row.config, replace(experiment, process=describe(model.process)).to_yaml())
    traces.seal(row.path, row.model)
    write_json(row.manifest, environment() | {"status": "finished", "seconds": 0.0} | facts)


def finish(run: Run, bench: Bench, rows: list[dict[str, Any]], base: dict[str, Any] | None) -> Run:
    """Write the report of measured ``rows`` and its views; ``base`` says what the base model cost, in a comparison.

    The protocol of a comparison keeps its lines of metrics that were measured in an earlier call.
    """
    request = bench.config.request
    for name in ("samples.png", "report.html"):
        traces.register(run.path, run.path / name, *traces.KNOWN[name])
    earlier = read_json(run.report, Earlier).get("protocol", {}) if base and run.report.is_file() else {}
    report: dict[str, Any] = {
        "title": bench.config.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": bench.config.seed,
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
        "rows": [row | {"provenance": provenance(run, row, bench.split.train.forget)} for row in rows],
        "artifacts": [],
    }
    for row in report["rows"] if base else []:  # some were measured by an earlier command, and are read
        with showing(place(run.path, "rows", row["name"], "report.json")):
            tables(report | {"rows": [row]})
            card(report, row)
    report["paper"] = paper_tables(bench.config, report) + sweep_tables(bench.config, report) if base else []
    write_json(run.report, report)
    write_pages(run, report)
    report["artifacts"] = traces.of_request(traces.holders(run.path), request.describe())  # the pages among them
    write_json(run.report, report)
    write_cards(run, report)
    traces.seal_views(run.path)
    print_table(report)
    return run


def _chosen(config: Config, only: list[str] | None) -> list[str]:
    if BASE_ROW not in config.rows:
        raise UserError(f"rows: compare needs the row {BASE_ROW!r}; the config of a single run has no rows.")
    for name in only or []:
        if name not in config.rows:
            known = list(config.rows)
            raise UserError(f"--only: unknown row {name!r}; known: {', '.join(known)}.{nearest(name, known)}")
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
    """Make the compare folder, or check that it holds this comparison; rows and metrics may be added to it."""
    began = {"source": str(source) if source else None, "fresh_chain": fresh_chain}
    stored, wanted = run.stored_config(), config.to_dict() | began
    if stored is not None:
        manifest = run.stored_manifest()
        stored |= {"source": manifest.get("source"), "fresh_chain": manifest.get("fresh_chain", False)}
        new_rows = {name: row for name, row in wanted["rows"].items() if name in stored.get("rows", {})}
        for tree in (stored, wanted):
            tree["evaluation"] = {k: v for k, v in tree["evaluation"].items() if k not in ("metrics", "options")}
        changed = differences(stored, wanted | {"rows": new_rows})
        if changed:
            raise UserError(
                f"{run.path} holds a comparison with other settings ({'; '.join(changed[:3])}); give another --out."
            )
    run.create()
    write_text(run.config, config.to_yaml())
    write_json(run.manifest, environment() | began)


class Named(TypedDict):
    """An objective in a run's config; its settings stand beside its name."""

    name: str


class Steps(TypedDict):
    """What is read of the training in a run's config."""

    steps: Count
    lr: float


class Trained(TypedDict):
    """What is read of the config of a run that a comparison is given."""

    objective: Named
    training: Steps


class StoredRow(TypedDict):
    """What a row's ``report.json`` says, beside what was measured."""

    name: str
    start: str
    steps: Count
    seconds: Seconds
    lr: float | None
    objective: str | None
    settings: dict[str, Any]
    card: str | None
    weights: str
    measured: dict[str, Any]
    grid: str


class Earlier(TypedDict, total=False):
    """What is read of the report of an earlier call."""

    protocol: dict[str, str]


def _stored_row(path: Path) -> dict[str, Any]:
    """Read a row that was measured before.

    Raises:
        UserError: the file is damaged, or of another row.
    """
    row: dict[str, Any] = read_json(path, StoredRow)
    if row["name"] != path.parent.name:
        raise UserError(f"{path}: name: expected {path.parent.name!r}, got {row['name']!r}.")
    return row


def _row(name: str, bench: Bench, run: Run, base: Path, device: str, where: torch.device) -> None:
    """Run and measure one row, unless its report is there."""
    config, row = bench.config, bench.config.rows[name]
    target = Run(place(run.path, "rows", name))
    known = _stored_row(target.report) if target.report.is_file() else {}
    if known and not missing_metrics(known, bench):
        print(f"{name}: already measured", flush=True)
        return
    if not finished(target):
        _make(config, row, target, bench, base, device)
    subject = Subject(name, ScoreModel.load(target.model).to(where), bench, target.path, target)
    grid = Path("rows") / name / "samples" / "final.png"
    placed = _placed(subject, known or _facts(name, row, config, target), run, grid, target.model)
    measure(subject, placed, keep=lambda found: write_json(target.report, found))


def _make(config: Config, row: Row, target: Run, bench: Bench, base: Path, device: str) -> None:
    """Train the row's model, or draw its random weights; the base row has its model already."""
    if row.start == "random":
        facts = {"source": None, "start": "random", "weights": "random"}
        _write_untrained(target, new_model(config, bench.dataset), config.for_row(row), facts, bench)
    elif row.start in ("scratch", "finetune"):
        source = base if row.start == "finetune" else None
        fit(config.for_row(row), target, bench.dataset, bench.split, source, True, device, bench.chain)


def _placed(subject: Subject, row: dict[str, Any], run: Run, grid: Path, model: Path) -> dict[str, Any]:
    """Write the model's sample grid to ``grid``; return ``row`` with where its files lie, from the run on."""
    if "grid" not in row:
        write_bytes(run.path / grid, to_png(subject.samples[:GRID], subject.bench.dataset.levels))
    places = {"folder": subject.folder or run.path, "model": model}
    return row | {"grid": str(grid)} | {key: os.path.relpath(path, run.path) for key, path in places.items()}


def _facts(name: str, row: Row, config: Config, target: Run) -> dict[str, Any]:
    """Return what a row is: its objective, start, steps and seconds."""
    manifest = target.finished_manifest()
    if row.start in UNTRAINED:
        return _facts_of_given(name, manifest["weights"], row.start)
    settings = config.row_training(row)
    return _facts_of_run(name, row.objective, row.start, settings.steps, settings.lr, manifest)


def _given(name: str, folder: Path) -> dict[str, Any]:
    """Return what is known of a model made elsewhere, from its run folder if it has one."""
    run = Run(folder.parent)
    if folder != run.model or not run.manifest.is_file() or not run.config.is_file():
        return _facts_of_given(name, "as given")
    config: Trained = read_yaml(run.config, Trained)
    manifest, training = run.finished_manifest(), config["training"]
    objective: dict[str, Any] = {**config["objective"]}
    return _facts_of_run(name, objective, manifest["start"], training["steps"], training["lr"], manifest)


def _facts_of_given(name: str, weights: str, start: str = "none") -> dict[str, Any]:
    """Return the facts of a model that nothing was done to."""
    nothing: dict[str, Any] = {
        "objective": None,
        "settings": {},
        "card": None,
        "start": start,
        "steps": 0,
        "lr": None,
        "seconds": 0.0,
    }
    return {"name": name, **nothing, "weights": weights}


def _facts_of_run(
    name: str, objective: dict[str, Any], start: str, steps: int, lr: float, manifest: FinishedManifest
) -> dict[str, Any]:
    """Return the facts of a model that ``objective`` was run on."""
    if start in UNTRAINED:
        return _facts_of_given(name, manifest["weights"], start)
    known = objective["name"] in OBJECTIVES.entries
    return {
        "name": name,
        "objective": objective["name"],
        "settings": OBJECTIVES.build(objective).effective() if known else objective,
        "card": OBJECTIVES.entries[objective["name"]].describe() if known else None,
        "start": start,
        "steps": steps,
        "lr": lr,
        "seconds": manifest["seconds"],
        "weights": manifest["weights"],
    }
