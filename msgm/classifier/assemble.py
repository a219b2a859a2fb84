"""From records to report.json: every method's numbers over the seeds, each against its seed's band."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from msgm.cards.claims import ORACLES
from msgm.classifier.band import summarise
from msgm.classifier.config import ClassifierConfig
from msgm.classifier.experiment import Experiment
from msgm.classifier.methods import Method
from msgm.classifier.metrics.base import METRICS
from msgm.folders import place
from msgm.records import read_record
from msgm.runs import Run, environment
from msgm.solves import of_runs

Report = dict[str, Any]
COSTS = ("seconds", "preparation_seconds", "storage_bytes", "examples")
PROTOCOL = {
    "band": f"At least {ORACLES} models retrained on the retain items give a mean and a 95% prediction interval for "
    "one more; each is measured with itself left out of its references. Inside means that a value lies in that "
    "interval; in 5 of 100 numbers a retrained model lies outside by chance.",
    "seeds": "A seed makes the data split, the original, the retrained models and all draws; intervals are 95% "
    "t-intervals over seeds.",
    "retrain": "The row retrain is one further retrained model, not one of the band.",
    "seconds": "From request to answer, measuring excluded; work done before any request is preparation and stands "
    "apart. Time is given as a share of the median seconds of the band's retrained models too.",
    "parts": "The held-out items for tuning, for attacks (nonmembers) and for the test are disjoint.",
}


def make_report(config: ClassifierConfig, run: Run, experiments: Sequence[Experiment]) -> Report:
    """Return the report of all records in ``run`` that were made with the config's settings.

    Args:
        config: the experiment.
        run: its run folder.
        experiments: one a seed.
    """
    first, rows, left_out, requests = experiments[0], [], [], {}
    for request in config.requests:
        digests = {e.seed: e.digest(e.split(request)) for e in experiments}
        bands = {e.seed: _band(config, run, e, request, digests[e.seed]) for e in experiments}
        for name, method in config.rows().items():
            records = {e.seed: _record(run, e, request, name, digests[e.seed]) for e in experiments if bands[e.seed]}
            found = {seed: record for seed, record in records.items() if record is not None}
            left_out += _left_out(request, name, found)
            measured = {seed: record for seed, record in found.items() if "metrics" in record}
            if measured:
                rows.append(_row(config, request, name, method, measured, bands))
        if any(row["request"] == request for row in rows):
            requests[request] = _request(config, run, experiments, request, list(digests.values()))
    parts = {"items": len(first.dataset)} | {part: len(positions) for part, positions in first.parts.items()}
    return {
        "kind": "classifier",
        "title": config.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {"name": first.dataset.name, "digest": first.dataset.digest(), "n": parts},
        "network": config.network,
        "training": asdict(config.training),
        "seeds": [experiment.seed for experiment in experiments],
        "requests": requests,
        "protocol": PROTOCOL | _metric_texts(config),
        "environment": environment() | {"device": str(first.device)},
        "rows": rows,
        "left_out": left_out,
    }


def _request(
    config: ClassifierConfig, run: Run, experiments: Sequence[Experiment], name: str, digests: list[str]
) -> dict[str, Any]:
    """Return what was asked; counts and near-duplicates are the first seed's."""
    first, settings = experiments[0], config.requests[name]
    split = first.split(name)
    record = read_record(_records(run, first, name) / "duplicates.json", first.facts | {"forget": digests[0]})
    return {
        "text": settings.describe(),
        "goal": settings.goal,
        "target": settings.target,
        "scope": split.scope,
        "n": len(split.forget),
        "selected": int(first.selected(name).sum()),
        "n_by_seed": [len(experiment.split(name).forget) for experiment in experiments],
        "forget_digest": digests[0],
        "forget_digests": digests,
        "near_duplicates": None if record is None else _near_duplicates(record),
    }


def _records(run: Run, experiment: Experiment, request: str) -> Path:
    """Return where the records of a request at one seed lie."""
    return place(run.path, "records", f"seed-{experiment.seed}", request)


def _near_duplicates(record: dict[str, Any]) -> dict[str, Any]:
    """Return how near-duplicates were searched, how many were found, and how many of them are retain items."""
    retained = len({pair["other"] for pair in record["pairs"] if pair["part"] == "retain"})
    return {"method": record["method"], "found": record["found"], "retained": retained, "included": False}


def _band(
    config: ClassifierConfig, run: Run, experiment: Experiment, request: str, forget: str
) -> list[dict[str, Any]]:
    """Return the records of the retrained models that are there, in the report's form."""
    folder = _records(run, experiment, request) / "retrains"
    found = []
    for number in range(1, config.retrains + 1):
        facts = experiment.facts | {"forget": forget, "retrain": number}
        record = read_record(folder / f"{number}.json", facts)
        if record is not None:
            numbers = _numbers(config, record)
            entry = {"seed": experiment.seed, "retrain": number, "seconds": record["seconds"], "metrics": numbers}
            found.append(entry)
    return found


def _record(run: Run, experiment: Experiment, request: str, name: str, forget: str) -> dict[str, Any] | None:
    settings = experiment.config.methods[name]
    path = place(_records(run, experiment, request), "methods", name, ending=".json")
    return read_record(path, experiment.facts | {"forget": forget, "method": settings})


def _numbers(config: ClassifierConfig, record: dict[str, Any]) -> dict[str, float | None]:
    """Return a record's numbers of the config's metrics, by their own names."""
    trees = [record["metrics"].get(metric.name, {}).get("numbers", {}) for metric in config.measures()]
    return {name: value for tree in trees for name, value in tree.items()}


def _row(
    config: ClassifierConfig,
    request: str,
    name: str,
    method: Method,
    records: dict[int, dict[str, Any]],
    bands: dict[int, list[dict[str, Any]]],
) -> dict[str, Any]:
    values = {seed: _numbers(config, record) for seed, record in records.items()}
    own_bands = [[entry["metrics"] for entry in bands[seed]] for seed in records]
    costs = {key: fmean(record[key] for record in records.values()) for key in COSTS}
    retrain = median(entry["seconds"] for seed in records for entry in bands[seed])
    return {
        "method": name,
        "request": request,
        **costs,
        "retrain_seconds": retrain,
        "settings": {key: value for key, value in config.methods[name].items() if key != "name"},
        "card": method.describe(),
        "family": method.card.family,
        "metrics": _described(summarise(list(values.values()), own_bands)),
        "retrain_band": [entry for seed in records for entry in bands[seed]],
        "artefacts": next(iter(records.values()))["artefacts"],
        **of_runs(record["artefacts"] for record in records.values()),
        "per_seed": [
            {"seed": seed, "metrics": values[seed]} | {key: record[key] for key in (*COSTS, "artefacts")}
            for seed, record in records.items()
        ],
    }


def _described(summary: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the summaries with each number's text, section and direction."""
    numbers = {name: number for metric in METRICS.entries.values() for name, number in metric.numbers.items()}
    return {name: tree | asdict(numbers[name]) for name, tree in summary.items()}


def _left_out(request: str, name: str, records: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each reason for which a method was not measured, with the seeds where it was so."""
    reasons: dict[tuple[str, str], list[int]] = {}
    for seed, record in records.items():
        if "reason" in record:
            reasons.setdefault((record["status"], record["reason"]), []).append(seed)
    return [
        {"method": name, "request": request, "status": status, "reason": reason, "seeds": seeds}
        for (status, reason), seeds in reasons.items()
    ]


def _metric_texts(config: ClassifierConfig) -> dict[str, str]:
    """Return what each measured number is."""
    return {name: number.text for metric in config.measures() for name, number in metric.numbers.items()}


def inside_share(row: dict[str, Any], constant: Sequence[str] = ()) -> float | None:
    """Return the share of a row's numbers that lie inside their band, averaged over seeds; 1 is like a retrained model.

    Args:
        row: of a report.
        constant: names to leave out, as they are the same for every model.
    """
    judged = [m for name, m in row["metrics"].items() if m["inside"] is not None and name not in constant]
    return float(np.mean([m["inside"] / m["seeds"] for m in judged])) if judged else None


def constants(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the numbers that at each seed are the same in every row and band: they tell no model from another."""
    names = dict.fromkeys(name for row in rows for name in row["metrics"])
    return [name for name in names if all(len(found) == 1 for found in _values(rows, name).values())]


def _values(rows: Sequence[dict[str, Any]], name: str) -> dict[int, set[float | None]]:
    """Return all values of a number, by seed."""
    found: dict[int, set[float | None]] = {}
    for row in rows:
        for entry in (*row["per_seed"], *row["retrain_band"]):
            found.setdefault(entry["seed"], set()).add(entry["metrics"].get(name))
    return found
