"""The cells of a comparison of generators: which models are made, their folders, and making and measuring one.

    rows/NAME              a row at the first seed: a run folder, with what was measured in its report.json;
                           rows/do-nothing is the base model
    rows/NAME/seed-N       the same row at seed N, from the base model of that seed
    retrains/retrained-K   the K-th retrained model of the band, K from 1; none where ``retrains`` is 1

A comparison of one seed, also an earlier version's, is thus the first seed of a larger one: ``seeds`` and ``retrains``
may be raised in a folder, and existing models are kept.

Row and base model of a seed, their samples and their measurements draw from that seed. Retrained models have seeds of
their own. The split of the data and the judge are the same for all.
"""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch

from msgm import processes, traces
from msgm.cache import Cache
from msgm.config import BASE_ROW, FROM_BASE, Config
from msgm.diffusion import ScoreModel
from msgm.diffusion.description import describe
from msgm.diffusion.guidance import load_guided
from msgm.errors import UserError
from msgm.evaluation import Bench, Subject, measure
from msgm.evaluation.asking import known_classes
from msgm.evaluation.bench import Retrained
from msgm.evaluation.measuring import metrics_of, missing_metrics
from msgm.folders import place, write_bytes, write_json, write_text
from msgm.generator.facts import facts_of
from msgm.pictures import to_png
from msgm.reading import read_json
from msgm.rows import ROWS, Row
from msgm.runs import Run, environment, find_model
from msgm.seeding import derive_seed
from msgm.shapes import Count, Seconds
from msgm.training.earlier import extended
from msgm.training.run import finished, fit, load_source, new_model

GRID = 100
COLUMNS = 10
FAILED = "failed.json"
RETRAINED = "unseen-scratch"
"""The row whose settings retrained models have."""


@dataclass(frozen=True, eq=False)
class Model:
    """One model of a comparison.

    Attributes:
        name: of its row; a retrained model has a name of its own.
        row: how it is made.
        seed: of its training, sampling and measuring.
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


def row_models(config: Config, name: str) -> list[Model]:
    """Return the models of a row, one a seed."""
    found = []
    for seed in seeds_of(config):
        first = seed == config.seed
        folder = place(Path("rows"), name) if first else place(Path("rows"), name) / f"seed-{seed}"
        label = name if config.seeds == 1 else f"{name}, seed {seed}"
        found.append(Model(name, config.rows[name], seed, folder, label))
    return found


def retrained_models(config: Config) -> list[Model]:
    """Return the retrained models: none where the row ``unseen-scratch`` is the only one."""
    if config.retrains == 1:
        return []
    row = config.rows.get(RETRAINED, ROWS[RETRAINED])
    row = row if (row.start, row.objective.get("name")) == ("scratch", "unseen") else ROWS[RETRAINED]
    names = [f"retrained-{number}" for number in range(1, config.retrains + 1)]
    # Seeds of 32 bits: they stand in configs and are given on the command line.
    seeds = [derive_seed(config.seed, name) % 2**32 for name in names]
    return [Model(name, row, seed, Path("retrains") / name, name) for name, seed in zip(names, seeds, strict=True)]


def band_of(config: Config, run: Run) -> tuple[Retrained, ...]:
    """Return where the retrained models of a comparison are, trained or not."""
    return tuple(
        Retrained(model.name, Run(run.path / model.folder).model, model.seed) for model in retrained_models(config)
    )


def models(config: Config, names: list[str]) -> Iterator[Model]:
    """Return all models in the order of training: seed by seed, the base model first; then the retrained models."""
    chosen = [BASE_ROW, *(name for name in names if name != BASE_ROW)]
    for of_seed in zip(*(row_models(config, name) for name in chosen), strict=True):
        yield from of_seed
    yield from retrained_models(config)


class StoredRow(TypedDict):
    """Keys of a cell's ``report.json``, beside its measurements."""

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
    edited: NotRequired[dict[str, Any] | None]
    found: NotRequired[dict[str, Any] | None]
    deletion: NotRequired[dict[str, Any] | None]
    drawn: NotRequired[dict[str, int] | None]
    measured: dict[str, Any]
    grid: str


class Failure(TypedDict):
    """Contents of ``failed.json`` of a model that could not be made or measured."""

    reason: str


def stored_row(run: Run, model: Model) -> dict[str, Any] | None:
    """Read a model's stored measurements, if any.

    Raises:
        UserError: the file is damaged, or of another row.
    """
    path = Run(run.path / model.folder).report
    if not path.is_file():
        return None
    row: dict[str, Any] = read_json(path, StoredRow)
    if row["name"] != model.name:
        raise UserError(f"{path}: name: expected {model.name!r}, got {row['name']!r}.")
    return row | {"seed": model.seed}


def stored_failure(run: Run, model: Model) -> str | None:
    """Read the stored reason why a model could not be made or measured, if any."""
    path = run.path / model.folder / FAILED
    failure: Failure | None = read_json(path, Failure) if path.is_file() else None
    return failure and failure["reason"]


@dataclass(frozen=True)
class Workshop:
    """Makes and measures the models of a comparison.

    Attributes:
        run: the folder of the comparison.
        bench: what all models are measured against.
        source: run or diffusers folder that the base model of every seed is taken from; None trains one a seed.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        cache: of retrained models; None trains them all.
    """

    run: Run
    bench: Bench
    source: Path | str | None
    device: str
    cache: Cache | None

    def cells(self, names: list[str]) -> list["Cell"]:
        """Return the cells of the rows ``names`` and of the retrained models; base models are always among them."""
        config, given = self.bench.config, self.source is not None
        # A base model that is given is one for all seeds.
        wanted = [m for m in models(config, names) if not (given and m.is_base and m.seed != config.seed)]
        cells = [Cell(self, model, not model.is_base or BASE_ROW in names) for model in wanted]
        if not any(metric.beside_retrained for metric in metrics_of(config)):
            return cells
        first = [Cell(self, model, False) for model in retrained_models(config)]
        labels = tuple(cell.label for cell in first)
        return first + [replace(cell, beside=labels) if cell.measured else cell for cell in cells]

    def base(self, seed: int) -> Model:
        """Return the base model that rows of a seed start from."""
        config = self.bench.config
        found = {model.seed: model for model in row_models(config, BASE_ROW)}
        return found[config.seed if self.source is not None else seed]


@dataclass(frozen=True, eq=False)
class Cell:
    """Makes and measures one model.

    Attributes:
        workshop: of the comparison.
        model: to make.
        measured: whether it is also measured; optional for a base model, and left to another cell for a retrained one
            that all are compared with.
        beside: labels of the cells that make the models that it is compared with.
    """

    workshop: Workshop
    model: Model
    measured: bool
    beside: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The model's label, and of a retrained model that is made alone that it is."""
        alone = not self.measured and not self.model.is_base
        return f"{self.model.label}, to compare with" if alone else self.model.label

    @property
    def wanted(self) -> bool:
        """Whether it is measured."""
        return self.measured

    @property
    def group(self) -> str:
        """Its own: models share only files."""
        return self.label

    @property
    def after(self) -> Collection[str]:
        """The base model that it starts from, and the models that it is compared with."""
        starts = not self.model.is_base and self.model.row.start in FROM_BASE
        return (self.workshop.base(self.model.seed).label, *self.beside) if starts else self.beside

    @property
    def target(self) -> Run:
        """The run folder of the model."""
        return Run(self.workshop.run.path / self.model.folder)

    @property
    def bench(self) -> Bench:
        """The bench at its seed."""
        return self.workshop.bench.at(self.model.seed)

    def kept(self) -> bool:
        """Return whether the model was measured as far as it is to be; of one that is only made, whether it exists.

        The numbers of a model whose folder was removed afterwards are kept.
        """
        if not self.measured:
            return finished(self.target)
        row = stored_row(self.workshop.run, self.model)
        return row is not None and not missing_metrics(row, self.bench)

    def run(self) -> str:
        """Make the model unless it exists, and measure the metrics that it lacks."""
        run, target, bench = self.workshop.run, self.target, self.bench
        made = finished(target)
        known = stored_row(run, self.model) if made else None  # a model that is made anew has no numbers yet
        processes.wait()  # until all have read what the first may write from here on
        if not made:
            self._make(target, bench)
        processes.wait()  # until the first has written the model
        if self.measured:
            model = load_guided(target.model).to(processes.device(self.workshop.device))
            subject = Subject(self.model.label, model, bench, target.path, target)
            grid = self.model.folder / "samples" / "final.png"
            facts = known or facts_of(self.model.name, self.model.row, target)
            row = placed(subject, facts, run, grid, target.model)
            measure(subject, row, keep=lambda found: write_json(target.report, found))
        if processes.writes():
            (target.path / FAILED).unlink(missing_ok=True)
        return "measured" if self.measured else "made"

    def fail(self, reason: dict[str, Any]) -> None:
        """Store the reason why the model was not made or not measured."""
        write_json(self.target.path / FAILED, {"reason": reason["reason"]})

    def _base(self) -> Path:
        return Run(self.workshop.run.path / self.workshop.base(self.model.seed).folder).model

    def _make(self, target: Run, bench: Bench) -> None:
        """Train the model, copy the one that was given, or draw random weights."""
        workshop, row = self.workshop, self.model.row
        experiment = bench.config.for_row(row)
        if self.model.is_base and workshop.source is not None:
            found = find_model(workshop.source)
            facts: dict[str, Any] = {"source": str(found), "start": "none", "weights": "as given"}
            _write_untrained(target, load_source(found, experiment, bench.dataset), experiment, facts, bench)
        elif self.model.is_base:
            fit(experiment, target, bench.dataset, bench.split, None, resume=True, device=workshop.device)
        elif row.start == "random":
            facts = {"source": None, "start": "random", "weights": "random"}
            _write_untrained(target, new_model(experiment, bench.dataset), experiment, facts, bench)
        elif row.start in ("scratch", "shards", *FROM_BASE):
            source = self._base() if row.start in FROM_BASE else None
            given = (bench.dataset, bench.split, source, True, workshop.device, bench.chain, workshop.cache)
            fit(experiment, target, *given)


def _write_untrained(row: Run, model: ScoreModel, experiment: Config, facts: dict[str, Any], bench: Bench) -> None:
    """Write the run folder of a model that is not trained here."""
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
    """Write the model's sample grid to ``grid``; return ``row`` with the paths of its files relative to the run."""
    if "grid" not in row:
        write_bytes(run.path / grid, _picture(subject))
    places = {"folder": subject.folder or run.path, "model": model}
    return row | {"grid": str(grid)} | {key: os.path.relpath(path, run.path) for key, path in places.items()}


def _picture(subject: Subject) -> bytes:
    """Return a picture of the model's first samples; of a conditional model a row a class, or some prompts."""
    data, asked = subject.bench.dataset, list(known_classes(subject.model, subject.bench.dataset))
    if not asked:
        return to_png(subject.samples[:GRID], data.levels)
    if data.prompts:
        asked = _first_prompts(subject.bench)
        samples = subject.asked_for(asked, len(asked) * COLUMNS)
    else:
        samples = subject.asked
    rows = [samples[place :: len(asked)][:COLUMNS] for place in range(min(len(asked), len(samples)))]
    return to_png(torch.cat(rows), data.levels, min(map(len, rows)))


def _first_prompts(bench: Bench) -> list[int]:
    """Return the numbers of the prompts that a picture has rows of: those to forget, and the data's first ones."""
    concept, prompts = bench.config.request.concept, bench.dataset.prompts
    forgotten = concept.forget if concept else []
    return sorted(range(len(prompts)), key=lambda number: prompts[number] not in forgotten)[:COLUMNS]
