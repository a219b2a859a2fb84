"""``msgm evaluate``: measures trained models like the rows of ``msgm compare``, with the same report."""

import os
from pathlib import Path
from typing import Any

import torch

from msgm import processes, traces
from msgm.chain import merged
from msgm.config import Config
from msgm.data import Dataset, load_dataset
from msgm.diffusion import ScoreModel
from msgm.diffusion.guidance import load_guided
from msgm.errors import UserError
from msgm.evaluation import Bench, Subject, measure
from msgm.evaluation.measuring import check_metrics, refuse_obstacles
from msgm.evaluation.report import print_table
from msgm.folders import check_names, locked, place
from msgm.generator.assemble import make_report, publish
from msgm.generator.cells import placed
from msgm.generator.facts import given_facts
from msgm.reading import read_json
from msgm.runs import Run, find_model, refuse_served
from msgm.training.earlier import earlier_chain
from msgm.training.run import split_data

TAKEN = ("final", "samples", "png", "shards")
"""What lies in the folder ``samples`` of a run, beside the samples of an evaluation."""


def evaluate(config: Config, sources: list[str], out: Path | str | None = None, device: str = "auto") -> Run:
    """Measure trained models as ``compare`` does, and write the same report.

    Args:
        config: the experiment: data, request and protocol.
        sources: run folders or diffusers folders.
        out: folder of the report; by default the run itself when one run is given, else ``runs/NAME-evaluation``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

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
    refuse_served(run.path)
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
    bench = Bench.make(config, run, dataset, split, where, chain)
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
    if processes.is_first():
        report = make_report(run, bench, rows, None)
        report["comparisons"] = _comparisons(models, run)
        publish(run, report)
        traces.seal_views(run.path)
        print_table(report)
    return run


def _comparisons(models: dict[str, Path], run: Run) -> dict[str, str]:
    """Return, by name of a model, the comparison that it is a row of, where that has retrained models of its own."""
    found = dict[str, str]()
    for name, folder in models.items():
        above = [path.parent for path in folder.resolve().parents if path.name == "rows"]
        whole = next((path for path in above if (path / "retrains").is_dir()), None)
        if whole is not None:
            found[name] = os.path.relpath(whole, run.path.resolve())
    return found


def _maker(folder: Path) -> Run | None:
    """Return the run that a model folder belongs to, if there is one."""
    run = Run(folder.parent)
    return run if folder == run.model else None


def _load_fitting(folder: Path, dataset: Dataset) -> ScoreModel:
    model = load_guided(folder)
    if model.shape != dataset.shape:
        raise UserError(f"{folder} makes items of shape {model.shape}, but the data has {dataset.shape}.")
    return model
