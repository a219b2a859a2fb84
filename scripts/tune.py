"""Try settings of one row on the validation part and print what each gives.

The test part is not touched: likelihoods are of validation items, and the rates of samples of another seed than the
reports'. Example: ``python scripts/tune.py configs/digits/vp.yaml --from runs/digits-vp obtuse alpha=.8,.9 every=1``.
Names after the row are settings of its objective; those that it does not have are training settings (steps, lr).
"""

import argparse
import itertools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from msgm.config import Config, load_config
from msgm.data import load_dataset
from msgm.diffusion import ScoreModel
from msgm.evaluation import Bench, Subject, measure
from msgm.generator.compare import make_bench
from msgm.objectives import OBJECTIVES
from msgm.runs import Run, chosen_device, find_model
from msgm.splits import Split
from msgm.training import fit
from msgm.training.earlier import earlier_chain
from msgm.training.run import split_data

VALIDATION_SEED = 1000


def main() -> None:
    """Parse the grid, then fine-tune and measure every point of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config")
    parser.add_argument("--from", dest="source", required=True)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("row", help="a row of the config")
    parser.add_argument("grid", nargs="*", metavar="SETTING=VALUE,VALUE")
    options = parser.parse_args()
    config = load_config(options.config)
    config = replace(config, seed=config.seed + VALIDATION_SEED)
    base = find_model(options.source)
    where = chosen_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        dataset = load_dataset(config.data)
        chain = earlier_chain(base, config, dataset)
        split = split_data(config, dataset, chain.requests)
        bench = validation_bench(make_bench(config, Run(folder), dataset, split, where, chain))
        show("base", measure(Subject("base", ScoreModel.load(base).to(where), bench)))
        for point in points(options.grid):
            name = " ".join(f"{key}={value}" for key, value in point.items())
            run = Run(Path(folder) / name.replace("/", "_"))
            changed = experiment(config, options.row, point)
            fit(changed, run, bench.dataset, bench.split, base, resume=False, device=options.device, chain=chain)
            show(name, measure(Subject(name, ScoreModel.load(run.model).to(where), bench)))


def validation_bench(bench: Bench) -> Bench:
    """Return the bench with the validation part in the test part's place."""
    split = bench.split
    return replace(bench, split=Split(split.train, split.validation, split.validation))


def points(grid: list[str]) -> list[dict[str, str]]:
    """Return every combination of ``name=value,value`` settings."""
    names = [entry.split("=")[0] for entry in grid]
    return [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(e.split("=")[1].split(",") for e in grid))
    ]


def experiment(config: Config, name: str, point: dict[str, str]) -> Config:
    """Return the row ``name`` with the settings of one grid point."""
    row = config.rows[name]
    values = {key: yaml.safe_load(value) for key, value in point.items()}
    own = {key: value for key, value in values.items() if key in row.objective}
    training = {key: float(value) if key == "lr" else value for key, value in values.items() if key not in own}
    objective = OBJECTIVES.resolve(row.objective | own)
    return config.for_row(replace(row, objective=objective, training=row.training | training))


def show(name: str, numbers: dict[str, Any]) -> None:
    """Print one line."""
    nll = numbers["nll"]
    ratio, closed = numbers["unlearning_ratio"], numbers["unlearning_ratio_closed_set"]
    print(
        f"{name:30s} UR {100 * ratio['value']:5.2f}%  "
        f"closed-set {100 * closed['value']:5.2f}%  junk {100 * numbers['junk_rate']:5.1f}%  "
        f"copy {100 * numbers['copy_rate']:4.1f}%  "
        f"NLL retain {nll['retain']['mean']:.3f}  forget {nll['forget']['mean']:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
