"""A comparison as other processes take it up: each runs one of its cells at a time, against the same judge."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch

from msgm import processes, traces
from msgm.cache import Cache
from msgm.chain import Chain
from msgm.config import Config, load_config
from msgm.data import Dataset, load_dataset
from msgm.evaluation import Bench, Reality, train_judge
from msgm.generator.cells import Cell, Cells, cells
from msgm.runs import Run, chosen_device, find_model
from msgm.splits import Split
from msgm.study.executors import Task, Workers, run
from msgm.training.earlier import earlier_chain
from msgm.training.run import split_data


@dataclass(frozen=True)
class Job:
    """What the cells of a comparison depend on, beside its config.

    Attributes:
        folder: of the comparison.
        source: run or diffusers folder that the base model is taken from; None trains one a seed.
        device: ``auto``, ``cpu`` or ``cuda``.
        fresh_chain: whether what ``source`` was asked to forget before is data to retain again.
        cache: of retrained models; None trains them all.
    """

    folder: Path
    source: Path | str | None
    device: str
    fresh_chain: bool
    cache: Cache | None

    def data(self, config: Config) -> tuple[Dataset, Split, Chain]:
        """Return the data, how it is split, and what the base model was asked before."""
        dataset = load_dataset(config.data)
        chain = earlier_chain(find_model(self.source), config, dataset, self.fresh_chain) if self.source else Chain()
        return dataset, split_data(config, dataset, chain.requests), chain


def run_elsewhere(
    job: Job, config: Config, workers: Workers, due: Mapping[Cell, bool]
) -> Iterator[tuple[Cell, str | None]]:
    """Run cells in other processes, each row after the base model that it starts from.

    Args:
        job: the comparison.
        config: its experiment.
        workers: where its cells run.
        due: the cells, and whether they are measured.

    Yields:
        Each cell, and why it failed, if it did.
    """
    text, labels = json.dumps(config.to_dict()), {cell.label: cell for cell in due}
    bases = {cell.seed: cell.label for cell in due if cell.is_base}
    first = bases.get(config.seed)

    def after(cell: Cell) -> str | None:
        if cell.is_base or cell.row.start != "finetune":
            return None
        return first if job.source is not None else bases.get(cell.seed)

    tasks = [
        Task(cell.label, partial(_run_cell, job, text, str(cell.folder), measured), after(cell))
        for cell, measured in due.items()
    ]
    for count, (label, fault) in enumerate(run(workers, job.folder, tasks), start=1):
        print(f"{label}: {'failed' if fault else 'done'}, {count} of {len(tasks)} models", flush=True)
        yield labels[label], fault


def _run_cell(job: Job, config: str, folder: str, measured: bool) -> str | None:
    """Run the cell of a folder in this process, for another one; return why it failed, if it did."""
    found = _taken_up(job, config)
    settings = found.bench.config
    cell = next(cell for cell in cells(settings, list(settings.rows)) if str(cell.folder) == folder)
    return found.attempt(cell, measured)


@lru_cache(maxsize=1)
def _taken_up(job: Job, config: str) -> Cells:
    """Return the cells of a comparison that another process began; kept from one cell to the next."""
    settings = load_config(json.loads(config))
    dataset, split, chain = job.data(settings)
    made, where = Run(job.folder), chosen_device(job.device)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # the other process told it already
        bench = make_bench(settings, made, dataset, split, where, chain)
    return Cells(made, bench, job.source, job.device, where, job.cache)


def make_bench(
    config: Config, run: Run, dataset: Dataset, split: Split, device: torch.device, chain: Chain | None = None
) -> Bench:
    """Train (or load) the judge, and calibrate the distances; ``chain`` is what the models were asked to forget."""
    folder, settings = run.path / "judge", config.evaluation.judge
    for name in ("judge", "reference"):
        traces.register(run.path, run.path / name, *traces.KNOWN[name])
    with processes.first_before_others():
        judge = train_judge(dataset, split, config.request, settings, config.seed, folder, device)
    reality = Reality.of(dataset, split, device)
    return Bench(config, dataset, split, judge, reality, run.path / "reference", chain or Chain())
