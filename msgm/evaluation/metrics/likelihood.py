"""Likelihoods of held-out retain and forget items."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from msgm.data import Dataset
from msgm.diffusion.likelihood import Likelihoods, measure_likelihoods
from msgm.evaluation.arrays import write_arrays
from msgm.evaluation.asking import own
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column, Metric, Report, Row
from msgm.progress import Progress
from msgm.reading import Arrays

VALUES = "nll.npz"
NO_DENSITY = "not_tested"
"""Key of the reason why a model has no likelihood."""


def _cell(part: str, row: Row, _: Report) -> str:
    if NO_DENSITY in row["nll"]:
        return "none"
    found = row["nll"][part]
    if found["mean"] is None:
        return f"diverged on {found['non_finite']}"
    error = found.get("solver_error")
    solver = "" if error is None else f"; solver {error:.1g}"
    return f"{found['mean']:.2f} ({found['median']:.2f}){solver}"


@METRICS.register("nll")
@dataclass(frozen=True)
class NegativeLogLikelihood(Metric):
    """NLL by the probability-flow ODE, mean (median), as ``evaluation.likelihood`` says.

    A model whose samples are guided by more than a field of eps has none, and its row says why.

    With a folder the values themselves are kept in ``nll.npz``: ``retain`` and ``forget``, (n, repeats) float64, and
    ``retain_indices`` and ``forget_indices``, (n,), the items' numbers in the data set.

    Example:
        >>> found = NegativeLogLikelihood().measure(subject)["nll"]
        >>> found["unit"], found["retain"]["n"], found["forget"]["n"]
        ('bits/dim', 4, 4)
    """

    table = "Overview"
    columns = [  # noqa: RUF012
        Column("NLL retain", "lower", lambda row, report: _cell("retain", row, report)),
        Column("NLL forget", "", lambda row, report: _cell("forget", row, report)),
    ]

    def measure(self, subject: Subject) -> dict[str, Any]:
        if subject.no_density:
            return {"nll": {NO_DENSITY: subject.no_density}}
        bench = subject.bench
        data, config = bench.dataset, bench.config
        settings = config.evaluation.likelihood
        found: dict[str, Any] = {"unit": nll_unit(data), "forget_part": forget_part(bench)}
        kept: Arrays = {}
        parts = nll_indices(bench)
        sets = [data.take(indices) for indices in parts.values()]
        asked = [own(subject.model, data, indices) for indices in parts.values()]
        with Progress(f"{subject.name}: nll of {sum(map(len, sets))} items") as progress:
            how = (data.levels, settings, config.seed, progress.update)
            values = measure_likelihoods(subject.model, sets, *how, asked)
        for (name, indices), measured in zip(parts.items(), values, strict=True):
            found[name] = summary(measured.per_item) | errors(measured)
            found["protocol"] = measured.protocol
            kept |= {name: measured.values.numpy(), f"{name}_indices": indices}
        found |= {"weights": subject.weights, "t_min": subject.model.process.t_min, "settings": asdict(settings)}
        if subject.folder is not None:
            write_arrays(subject.folder / VALUES, kept)
        return {"nll": found}

    @classmethod
    def numbers(cls, row: Row, report: Report) -> dict[str, float | None]:
        if NO_DENSITY in row["nll"]:
            return {}
        return {f"NLL {part}": row["nll"][part]["mean"] for part in ("retain", "forget")}

    def protocol(self, bench: Bench) -> dict[str, str]:
        levels, dims = bench.dataset.levels, int(np.prod(bench.dataset.shape))
        scale = f", uniform dequantisation of {levels} levels" if levels else ""
        items = (
            "test items" if forget_part(bench) == "test" else "test items to retain and of the training items to forget"
        )
        settings = bench.config.evaluation.likelihood
        halved = settings.halved
        error = (
            f"; solver: the largest |r_{settings.steps} - r_{halved.steps}| of values by {settings.steps} and "
            f"{halved.steps} steps, over the first {settings.error_items} of them"
            if halved
            else ""
        )
        solver = settings.describe(dims, levels)
        return {"NLL": f"{nll_unit(bench.dataset)} of the first {items}, mean (median){scale}; {solver}{error}"}


def nll_unit(dataset: Dataset) -> str:
    """Return the unit of the likelihoods: bits/dim for images of levels, nats for vectors."""
    return "bits/dim" if dataset.levels else "nats"


def forget_part(bench: Bench) -> str:
    """Return which part the forget items of the likelihood come from: train if the request names no test item."""
    return "test" if len(bench.split.test.forget) else "train"


def nll_indices(bench: Bench) -> dict[str, NDArray[np.int64]]:
    """Return the items whose likelihood is taken."""
    count, split = bench.config.evaluation.nll_items, bench.split
    forget = split.test.forget if forget_part(bench) == "test" else bench.dataset.distinct(split.train.forget)
    return {"retain": split.test.retain[:count], "forget": forget[:count]}


def errors(measured: Likelihoods) -> dict[str, float | None]:
    """Return the standard error due to noise and probes, the solver's error, and the evaluations per item."""
    draws, solver = measured.draw_error, measured.largest_solver_error
    return {
        "draw_error": draws if math.isfinite(draws) else None,
        "solver_error": solver if math.isfinite(solver) else None,
        "evaluations": float(measured.evaluations.mean()),
    }


def summary(values: Tensor) -> dict[str, Any]:
    """Return mean, median, standard error and n of ``values``; the former are null when one of them is not finite."""
    n, bad = len(values), int((~values.isfinite()).sum())
    if bad:
        return {"mean": None, "median": None, "standard_error": None, "n": n, "non_finite": bad}
    error = values.std().item() / n**0.5 if n > 1 else None
    return {"mean": values.mean().item(), "median": values.median().item(), "standard_error": error, "n": n}
