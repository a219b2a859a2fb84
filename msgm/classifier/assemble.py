"""From records to report.json: every method's numbers over the seeds, each against its seed's band."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any

from msgm.classifier.config import ClassifierConfig
from msgm.classifier.experiment import Experiment
from msgm.classifier.ladder import LADDER
from msgm.classifier.methods import Method
from msgm.classifier.metrics.base import METRICS, Number
from msgm.folders import place
from msgm.runs import Run
from msgm.solves import of_runs
from msgm.strata import controls
from msgm.study.records import read_record
from msgm.study.rows import described, judged_report, left_out_at
from msgm.tuned import tuning_protocol

Report = dict[str, Any]
COSTS = ("seconds", "preparation_seconds", "storage_bytes", "examples")
PROTOCOL = {
    "retrained models": "Each is measured with itself left out of its references, and against the seeds' originals in "
    "turn.",
    "seeds": "A seed makes the original and all draws; the data split, the items drawn to be forgotten and the "
    "retrained models are the same for all seeds. Intervals are 95% t-intervals over seeds.",
    "retrain": "The row retrain is one further retrained model, not one of the band.",
    "seconds": "From request to answer, measuring excluded; work done before any request is preparation and stands "
    "apart. Time is given as a share of the median seconds of the band's retrained models too; those of models "
    "from the cache are of when they were trained.",
    "controls": "Attacks on membership compare items with held-out ones (nonmembers) of the same class and the same "
    "source, which is what the data's groups name, such as a patient; these weigh so that both sides have the same "
    "classes and sources in the same shares.",
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
        band = _band(config, run, experiments, request)
        for name, method in config.rows().items():
            records = {e.seed: _record(run, e, request, name, digests[e.seed]) for e in experiments}
            found = {seed: record for seed, record in records.items() if record is not None}
            left_out += left_out_at(found, method=name, request=request)
            measured = {seed: record for seed, record in found.items() if "metrics" in record}
            if measured and band:
                rows.append(_row(config, request, name, method, measured, band))
        if any(row["request"] == request for row in rows):
            requests[request] = _request(config, run, experiments, request, list(digests.values()))
    parts = {"items": len(first.dataset)} | {part: len(positions) for part, positions in first.parts.items()}
    report = {
        "kind": "classifier",
        "title": config.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {"name": first.dataset.name, "digest": first.dataset.digest(), "n": parts},
        "network": config.network,
        "training": asdict(config.training),
        "seeds": [experiment.seed for experiment in experiments],
        "requests": requests,
        "protocol": PROTOCOL | _seeds(config) | tuning_protocol(config.tuned) | _metric_texts(config),
        "rows": rows,
        "left_out": left_out,
    }
    made = judged_report(report, config.retrains, LADDER)
    return made | {"environment": made["environment"] | {"device": str(first.device)}}


def _seeds(config: ClassifierConfig) -> dict[str, str]:
    """Return what seeds differ in where the original was trained elsewhere: it is one model."""
    if config.original.weights is None:
        return {}
    text = "The original, trained elsewhere, is the same at every seed: intervals leave out how originals differ. "
    return {"seeds": text + PROTOCOL["seeds"].replace("the original and all draws", "the methods' draws")}


def _request(
    config: ClassifierConfig, run: Run, experiments: Sequence[Experiment], name: str, digests: list[str]
) -> dict[str, Any]:
    """Return the report's entry on a request; counts and near-duplicates are those of the first seed."""
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
        "without_controls": controls(split.forget.strata, split.nonmembers.strata).unmatched,
    }


def _records(run: Run, experiment: Experiment, request: str) -> Path:
    """Return where the records of a request at one seed lie."""
    return place(run.path, "records", f"seed-{experiment.seed}", request)


def _near_duplicates(record: dict[str, Any]) -> dict[str, Any]:
    """Return how near-duplicates were searched, how many were found, and how many of them are retain items."""
    retained = len({pair["other"] for pair in record["pairs"] if pair["part"] == "retain"})
    return {"method": record["method"], "found": record["found"], "retained": retained, "included": False}


def _band(config: ClassifierConfig, run: Run, experiments: Sequence[Experiment], request: str) -> list[dict[str, Any]]:
    """Return the records of the retrained models that are there and have numbers, in the report's form.

    Each was measured at one of the seeds, in turn: ``seed`` is that of the original it was measured against.
    """
    found = []
    for number in range(1, config.retrains + 1):
        experiment = experiments[(number - 1) % len(experiments)]
        path = place(_records(run, experiment, request), "retrains", str(number), ending=".json")
        record = read_record(path, experiment.retrain_facts(experiment.split(request), number))
        if record is not None and "metrics" in record:
            made = {"retrain": number, "of": 1, "seed": experiment.seed, "seconds": record["seconds"]}
            made |= {"cached": record["cached"]} if record.get("cached") else {}
            found.append(made | {"metrics": _numbers(config, record)})
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
    band: list[dict[str, Any]],
) -> dict[str, Any]:
    values = {seed: _numbers(config, record) for seed, record in records.items()}
    costs = {key: fmean(record[key] for record in records.values()) for key in COSTS}
    return {
        "method": name,
        "request": request,
        **costs,
        "retrain_seconds": median(entry["seconds"] for entry in band),
        "settings": {key: value for key, value in config.methods[name].items() if key != "name"},
        "card": method.describe(),
        "family": method.card.family,
        "metrics": described(values, _known()),
        "retrain_band": band,
        "artefacts": next(iter(records.values()))["artefacts"],
        **of_runs(record["artefacts"] for record in records.values()),
        "per_seed": [
            {"seed": seed, "metrics": values[seed]} | {key: record[key] for key in (*COSTS, "artefacts")}
            for seed, record in records.items()
        ],
    }


def _known() -> dict[str, Number]:
    return {name: number for metric in METRICS.entries.values() for name, number in metric.numbers.items()}


def _metric_texts(config: ClassifierConfig) -> dict[str, str]:
    """Return the description of each measured number."""
    return {name: number.text for metric in config.measures() for name, number in metric.numbers.items()}
