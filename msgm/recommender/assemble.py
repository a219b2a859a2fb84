"""From the records of a comparison to its report: one row a model, request and method, means over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from msgm import __version__
from msgm.folders import place
from msgm.recommender.config import DRAWN, RecommenderConfig
from msgm.recommender.data.base import Interactions
from msgm.recommender.ladder import LADDER
from msgm.recommender.measuring import row_numbers
from msgm.recommender.methods import METHODS
from msgm.recommender.models.base import EXACTNESS
from msgm.recommender.scenario import Scenario
from msgm.runs import Run
from msgm.solves import of_runs
from msgm.study.records import find_record
from msgm.study.rows import judged_report, left_out
from msgm.tuned import tuning_protocol

Report = dict[str, Any]


def make_report(config: RecommenderConfig, run: Run, data: Interactions, scenarios: Mapping[str, Scenario]) -> Report:
    """Return the report of all records that the folder holds for rows of ``config``."""
    seeds = [config.seed + k for k in range(config.seeds)]
    records, others = _records(config, run, data)
    refits = {cell[:2]: record for cell, record in records.items() if cell[2] == "retrain" and "runs" in record}
    rows = [
        _row(config, seeds, cell, record, refits.get(cell[:2])) for cell, record in records.items() if "runs" in record
    ]
    report = {
        "kind": "recommender",
        "title": config.name,
        "data": data_facts(config.data["name"], data),
        "seeds": seeds,
        "models": {name: settings for name, settings in config.models.items() if settings is not None},
        "requests": {name: _request(config, name, scenario) for name, scenario in scenarios.items()},
        "protocol": _protocol(config) | tuning_protocol(config.tuned),
        "rows": rows,
        "left_out": left_out(records, ("model", "request", "method")),
        "other_settings": others,
    }
    return judged_report(report, config.retrains, LADDER)


def data_facts(name: str, data: Interactions) -> dict[str, Any]:
    """Return the facts on the data for a report."""
    return {
        "name": name,
        "digest": data.digest(),
        "users": data.shape[0],
        "items": data.shape[1],
        "interactions": data.matrix.nnz,
    }


def record_at(run: Run, model: str, request: str, method: str) -> Path:
    """Return where the record of a cell lies."""
    return place(run.path, "records", model, request, method, ending=".json")


def shared_facts(config: RecommenderConfig, run: Run, data: Interactions, model: str, request: str) -> dict[str, Any]:
    """Return the facts that all records of a model and a request depend on."""
    drawn = {"drawn by": "seed, kind and name"} if config.requests[request].way() in DRAWN else {}
    return drawn | {
        "msgm": __version__,
        "data": data.digest(),
        "split": config.split,
        "model": config.models[model],
        "request": config.stored(run.path)["requests"][request],
        "seeds": [config.seed, config.seeds, config.retrains],
        "metrics": [{"name": metric.name} | vars(metric) for metric in config.measures()],
    }


def _records(
    config: RecommenderConfig, run: Run, data: Interactions
) -> tuple[dict[tuple[str, str, str], dict[str, Any]], int]:
    """Return the comparable records by (model, request, method), in the config's order, and the number of others.

    Records made with other settings of model, request or data are not comparable; they are only counted.

    A method's own settings may differ from the config's: its record states them.
    """
    found, others = {}, 0
    for model in (name for name, settings in config.models.items() if settings is not None):
        for request in config.requests:
            facts = shared_facts(config, run, data, model, request)
            for method in (name for name, settings in config.methods.items() if settings is not None):
                place = record_at(run, model, request, method)
                record = find_record(place, facts)
                if record is not None:
                    found[model, request, method] = record
                elif place.is_file():
                    others += 1
    return found, others


def _request(config: RecommenderConfig, name: str, scenario: Scenario) -> dict[str, Any]:
    request, together = config.requests[name], scenario.together
    return {
        "text": request.describe(),
        "goal": request.goal,
        "target": request.target,
        "users": len(together.users),
        "items": len(together.items),
        "cells": int(together.mask(scenario.split.train).sum()),
        "requests": len(scenario.stream),
    }


def _row(
    config: RecommenderConfig,
    seeds: Sequence[int],
    cell: tuple[str, str, str],
    record: dict[str, Any],
    refit: dict[str, Any] | None,
) -> dict[str, Any]:
    model, request, method = cell
    runs, settings = record["runs"], record["made"]["method"]
    means = {key: fmean(run[key] for run in runs) for key in ("seconds", "preparation_seconds", "touched")}
    return {
        "model": model,
        "method": method,
        "request": request,
        "exactness": max((run["exactness"] for run in runs), key=EXACTNESS.index),
        **means,
        "fit_seconds": fmean(record["fit_seconds"]),
        "refit_seconds": None if refit is None else fmean(run["seconds"] for run in refit["runs"]),
        "storage_bytes": max(run["storage_bytes"] for run in runs),
        **row_numbers(seeds, [run["numbers"] for run in runs], record["retrain_band"], config.measures()),
        "settings": {key: value for key, value in settings.items() if key != "name"},
        "card": METHODS.entries[settings["name"]].describe(),
        "facts": runs[0]["facts"] | _latency(runs),
        **of_runs(run["facts"] for run in runs),
        "latencies": runs[0]["latencies"],
    }


def _latency(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median and the 95th percentile of the seconds of a stream's requests, over all seeds."""
    seconds = [second for run in runs for second in run["latencies"]]
    if not seconds:
        return {}
    return {"latency_median": float(np.median(seconds)), "latency_p95": float(np.quantile(seconds, 0.95))}


def _protocol(config: RecommenderConfig) -> dict[str, str]:
    split = ", ".join(f"{key} {value}" for key, value in config.split.items())
    return {
        "split": f"{split}; requests are drawn from training cells alone",
        "seeds": f"{config.seeds}: of the fits and the methods; data, split and requests are the same for all",
        "retrain": "the row retrain is a further one, with another seed for each seed",
        "seconds": "wall time of the answer, on one thread; shards and other preparation apart in "
        "preparation_seconds; a stream's is the sum over its requests, but of do-nothing and retrain, which answer it "
        "at once",
        "planted profiles": "the original is fitted with them; retrained models never saw them",
    }
