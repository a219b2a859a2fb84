"""The cells of a comparison: which models are made, where they lie, and how one is made and measured.

    rows/NAME              a row at the first seed: a run folder, with what was measured in its report.json;
                           rows/do-nothing is the base model
    rows/NAME/seed-N       the same row at seed N, from the base model of that seed
    retrains/retrained-K   the K-th retrained model of the band, K from 1; none where ``retrains`` is 1

A comparison of one seed, an earlier version's among them, is thus the first seed of a larger one: ``seeds`` and
``retrains`` may be raised in a folder, and what is there is kept.

Row and base model of a seed, their samples and their measurements draw from that seed. Retrained models have seeds of
their own. The split of the data and the judge are the same for all.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch

from msgm import processes, traces
from msgm.cache import Cache
from msgm.config import BASE_ROW, ROWS, Config, Row
from msgm.diffusion import ScoreModel
from msgm.diffusion.model import describe
from msgm.errors import Interrupted, RunError, UserError
from msgm.evaluation import Bench, Subject, measure
from msgm.evaluation.measuring import missing_metrics
from msgm.folders import place, write_bytes, write_json, write_text
from msgm.objectives import OBJECTIVES
from msgm.pictures import to_png
from msgm.reading import read_json, read_yaml
from msgm.runs import FinishedManifest, Run, environment, find_model
from msgm.seeding import derive_seed
from msgm.shapes import Count, Seconds
from msgm.training.earlier import extended
from msgm.training.run import finished, fit, load_source, new_model

GRID = 100
UNTRAINED = ("none", "random")
RETRAINED = "unseen-scratch"
"""The row whose settings retrained models have."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One model of a comparison.

    Attributes:
        name: of its row; a retrained model has a name of its own.
        row: how it is made.
        seed: what it is trained, sampled and measured with.
        folder: of the model's run, relative to the comparison.
        label: name in printed lines; with the seed where there are several.
    """

    name: str
    row: Row
    seed: int
    folder: Path
    label: str

    @property
    def is_base(self) -> bool:
        """Whether it is a base model, which rows start from."""
        return self.name == BASE_ROW


def seeds_of(config: Config) -> list[int]:
    """Return the seeds of the rows.

    >>> seeds_of(Config(seed=4, seeds=3))
    [4, 5, 6]
    """
    return [config.seed + number for number in range(config.seeds)]


def row_cells(config: Config, name: str) -> list[Cell]:
    """Return the cells of a row, one a seed."""
    found = []
    for seed in seeds_of(config):
        first = seed == config.seed
        folder = place(Path("rows"), name) if first else place(Path("rows"), name) / f"seed-{seed}"
        label = name if config.seeds == 1 else f"{name}, seed {seed}"
        found.append(Cell(name, config.rows[name], seed, folder, label))
    return found


def retrained_cells(config: Config) -> list[Cell]:
    """Return the cells of the retrained models: none where the row ``unseen-scratch`` is the only one."""
    if config.retrains == 1:
        return []
    row = config.rows.get(RETRAINED, ROWS[RETRAINED])
    row = row if (row.start, row.objective.get("name")) == ("scratch", "unseen") else ROWS[RETRAINED]
    names = [f"retrained-{number}" for number in range(1, config.retrains + 1)]
    # Seeds of 32 bits: they stand in configs and are given on the command line.
    seeds = [derive_seed(config.seed, name) % 2**32 for name in names]
    return [Cell(name, row, seed, Path("retrains") / name, name) for name, seed in zip(names, seeds, strict=True)]


def cells(config: Config, names: list[str]) -> Iterator[Cell]:
    """Return all cells in the order in which they are run: seed by seed, the base model first; then the retrained."""
    chosen = [BASE_ROW, *(name for name in names if name != BASE_ROW)]
    for of_seed in zip(*(row_cells(config, name) for name in chosen), strict=True):
        yield from of_seed
    yield from retrained_cells(config)


Elsewhere = Callable[[Mapping[Cell, bool]], Iterator[tuple[Cell, str | None]]]
"""Runs cells, given with whether they are measured; yields each with why it failed, if it did."""


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
    """What a cell's ``report.json`` says, beside what was measured."""

    name: str
    start: str
    steps: Count
    seconds: Seconds
    lr: float | None
    objective: str | None
    settings: dict[str, Any]
    card: str | None
    weights: str
    cached: NotRequired[dict[str, str] | None]
    measured: dict[str, Any]
    grid: str


def stored_row(run: Run, cell: Cell) -> dict[str, Any] | None:
    """Read what was measured of a cell before, if it was.

    Raises:
        UserError: the file is damaged, or of another row.
    """
    path = Run(run.path / cell.folder).report
    if not path.is_file():
        return None
    row: dict[str, Any] = read_json(path, StoredRow)
    if row["name"] != cell.name:
        raise UserError(f"{path}: name: expected {cell.name!r}, got {row['name']!r}.")
    return row | {"seed": cell.seed}


@dataclass(frozen=True)
class Cells:
    """Makes and measures the cells of a comparison.

    Attributes:
        run: the folder of the comparison.
        bench: what all models are measured against.
        source: run or diffusers folder that the base model of every seed is taken from; None trains one a seed.
        device: ``auto``, ``cpu`` or ``cuda``.
        where: the device that it means here.
        cache: of retrained models; None trains them all.
    """

    run: Run
    bench: Bench
    source: Path | str | None
    device: str
    where: torch.device
    cache: Cache | None

    def run_all(self, names: list[str], elsewhere: Elsewhere | None = None) -> dict[str, str]:
        """Make and measure all cells, those that are there already aside.

        Args:
            names: of the rows.
            elsewhere: runs cells in other processes; None runs them here, one after the other.

        Returns:
            why cells failed, by their labels: a failure ends its own cell alone.

        Raises:
            RunError: a cell failed, among several processes of a launch.
            UserError: bad input, such as a damaged file; nothing is tried after that.
            OSError: a file that cannot be written.
        """
        config, given = self.bench.config, self.source is not None
        # A base model that is given is one for all seeds.
        wanted = [cell for cell in cells(config, names) if not (given and cell.is_base and cell.seed != config.seed)]
        due = {cell: not cell.is_base or BASE_ROW in names for cell in wanted}
        failed: dict[str, str] = {}
        for cell, fault in (elsewhere or self._attempted)(due):
            if fault is not None:
                failed[cell.label] = fault
                print(f"{cell.label}: failed: {fault}", flush=True)
        return failed

    def _attempted(self, due: Mapping[Cell, bool]) -> Iterator[tuple[Cell, str | None]]:
        for cell, measured in due.items():
            yield cell, self.attempt(cell, measured)

    def attempt(self, cell: Cell, measured: bool) -> str | None:
        """Make a cell, and measure it if it is to be; return why it failed, if it did. Raises as ``run_all``."""
        try:
            self._run(cell, measured)
        except (UserError, OSError, Interrupted):
            raise
        except Exception as error:  # objectives, metrics and plugins fail each in their own way
            if processes.sharing() > 1:  # others may wait for this one, and go on only when it has ended
                raise RunError(f"{cell.label}: {reason(error)}") from error
            return reason(error)
        return None

    def _run(self, cell: Cell, measured: bool) -> None:
        """Make and measure one model, unless its report is there."""
        target, bench = Run(self.run.path / cell.folder), self.bench.at(cell.seed)
        known, made = stored_row(self.run, cell), finished(target)
        due = measured and (known is None or bool(missing_metrics(known, bench)))
        processes.wait()  # until all have read what the first may write from here on
        if cell.is_base and not made:
            self._make_base(cell, target, bench)
        elif due and not made:
            self._make(cell, target, bench)
        processes.wait()  # until the first has written the model
        if not due:
            if measured:
                print(f"{cell.label}: already measured", flush=True)
            return
        subject = Subject(cell.label, ScoreModel.load(target.model).to(self.where), bench, target.path, target)
        grid = cell.folder / "samples" / "final.png"
        row = placed(subject, known or _facts(cell, bench.config, target), self.run, grid, target.model)
        measure(subject, row, keep=lambda found: write_json(target.report, found))

    def _make_base(self, cell: Cell, target: Run, bench: Bench) -> None:
        """Train the base model of a seed on all data, or copy the one that was given, with its chain."""
        experiment = bench.config.for_row(cell.row)
        if self.source is None:
            fit(experiment, target, bench.dataset, bench.split, None, resume=True, device=self.device)
            return
        found = find_model(self.source)
        facts = {"source": str(found), "start": "none", "weights": "as given"}
        _write_untrained(target, load_source(found, experiment, bench.dataset), experiment, facts, bench)

    def _make(self, cell: Cell, target: Run, bench: Bench) -> None:
        """Train the row's model, or draw its random weights."""
        experiment = bench.config.for_row(cell.row)
        if cell.row.start == "random":
            facts = {"source": None, "start": "random", "weights": "random"}
            _write_untrained(target, new_model(experiment, bench.dataset), experiment, facts, bench)
        elif cell.row.start in ("scratch", "finetune"):
            source = self._base(cell.seed) if cell.row.start == "finetune" else None
            fit(experiment, target, bench.dataset, bench.split, source, True, self.device, bench.chain, self.cache)

    def _base(self, seed: int) -> Path:
        config = self.bench.config
        found = {cell.seed: Run(self.run.path / cell.folder) for cell in row_cells(config, BASE_ROW)}
        base = found[config.seed if self.source is not None else seed]
        if not finished(base):
            raise RunError("the base model that it starts from failed.")
        return base.model


def reason(error: Exception) -> str:
    """Return why a cell failed, in one sentence; what nobody foresaw is printed in full on the standard error."""
    if isinstance(error, RunError):
        return str(error)
    if isinstance(error, MemoryError):
        return "the machine has no memory left for this; take smaller batches or less data."
    traceback.print_exception(error, file=sys.stderr)
    first = next(iter(str(error).splitlines()), "").rstrip(".")
    return f"{type(error).__name__}: {first}." if first else f"{type(error).__name__}."


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


def placed(subject: Subject, row: dict[str, Any], run: Run, grid: Path, model: Path) -> dict[str, Any]:
    """Write the model's sample grid to ``grid``; return ``row`` with where its files lie, from the run on."""
    if "grid" not in row:
        write_bytes(run.path / grid, to_png(subject.samples[:GRID], subject.bench.dataset.levels))
    places = {"folder": subject.folder or run.path, "model": model}
    return row | {"grid": str(grid)} | {key: os.path.relpath(path, run.path) for key, path in places.items()}


def _facts(cell: Cell, config: Config, target: Run) -> dict[str, Any]:
    """Return what a cell is: its objective, start, steps and seconds."""
    manifest = target.finished_manifest()
    if cell.row.start in UNTRAINED:
        return _facts_of_given(cell.name, manifest["weights"], cell.row.start)
    settings = config.row_training(cell.row)
    return _facts_of_run(cell.name, cell.row.objective, cell.row.start, settings.steps, settings.lr, manifest)


def given_facts(name: str, folder: Path) -> dict[str, Any]:
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
        "cached": manifest.get("cached"),
        "weights": manifest["weights"],
    }
