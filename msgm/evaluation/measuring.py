"""All metrics of one model, without measuring anything twice."""

from collections.abc import Callable
from typing import Any

from msgm.cards.history import history
from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import PROCESSES
from msgm.errors import UserError
from msgm.evaluation.asking import PROTOCOL, is_conditional
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.earlier import tested
from msgm.evaluation.judge import check_judge
from msgm.evaluation.metrics.base import Metric, Row, build_metrics
from msgm.evaluation.metrics.conditions import KEY as CONDITIONS
from msgm.runs import Run
from msgm.splits import Split
from msgm.tuned import tuning_protocol


def metrics_of(config: Config) -> list[Metric]:
    """Return the metrics that the experiment asks for, and the views of a conditional model; see ``build_metrics``."""
    names = config.evaluation.metrics
    asked = [CONDITIONS] if is_conditional(config) and CONDITIONS not in names else []
    return build_metrics([*names, *asked], config.evaluation.options)


def check_metrics(config: Config, dataset: Dataset, split: Split) -> None:
    """Check metrics and judge before anything is trained or written; errors as of ``build_metrics`` and ``check``."""
    check_judge(dataset, split, config.request, config.evaluation.judge)
    for metric in metrics_of(config):
        metric.check(config, dataset, split)


def refuse_obstacles(config: Config, split: Split, run: Run | None) -> None:
    """Raise a UserError when a metric cannot be measured on the one model that is evaluated, made by ``run`` if any."""
    for metric in metrics_of(config):
        reason = metric.obstacle(split, run)
        if reason is not None:
            raise UserError(f"--metrics {metric.name}: {reason}.")


def missing_metrics(row: dict[str, Any], bench: Bench) -> list[Metric]:
    """Return the metrics that ``row`` lacks, or has with other options or for other samples."""
    known = _known(row, bench)
    return [metric for metric in metrics_of(bench.config) if known.get(metric.name) != _settings(metric, bench)]


def _settings(metric: Metric, bench: Bench) -> dict[str, Any]:
    """Return what a metric's numbers depend on: its options, and how many retrained models it is measured beside."""
    count = len(bench.retrained) if metric.beside_retrained else 0
    return metric.settings() | ({"retrained": count} if count else {})


def _known(row: Row, bench: Bench) -> dict[str, Any]:
    """Return the options of the metrics in ``row``; empty if its samples were drawn with other sampling settings.

    Version 0.1 did not record the sampling settings and used another time grid.
    """
    known: dict[str, Any] = row.get("measured", {})
    return known if row.get("sampled") == _samples(bench) else {}


def _samples(bench: Bench) -> str:
    """Return a description of the sampling settings."""
    config = bench.config
    return f"{config.evaluation.samples} samples, {config.sampling.describe(PROCESSES.build(config.process))}"


def comparable(rows: list[dict[str, Any]], bench: Bench) -> list[dict[str, Any]]:
    """Return the rows without metrics whose options differ from the present config's, or from those of earlier rows."""
    wanted = {metric.name: _settings(metric, bench) for metric in metrics_of(bench.config)}
    for row in rows:
        if _known(row, bench) != row["measured"]:
            print(f"{row['name']}: what was measured on other samples is left out: run it again", flush=True)
    rows = [row | {"measured": _known(row, bench)} for row in rows]
    for row in rows:
        wanted = row["measured"] | wanted
    for row in rows:
        for name in (name for name, options in row["measured"].items() if options != wanted[name]):
            print(f"{row['name']}: {name} was measured with other options and is left out: run it again", flush=True)
    return [
        row | {"measured": {name: options for name, options in row["measured"].items() if options == wanted[name]}}
        for row in rows
    ]


def measure(subject: Subject, row: Row | None = None, keep: Callable[[Row], None] | None = None) -> Row:
    """Return ``row`` with the numbers of all metrics that it lacked, as a JSON tree.

    Example:
        >>> row = measure(subject)
        unseen: measuring ur
        unseen: measuring nll
        >>> sorted(row["measured"])
        ['nll', 'ur']

    ``keep`` is called with the row after every metric, so that an interrupted run loses at most one metric.
    """
    found = dict(row or {})
    missing = missing_metrics(found, subject.bench)
    if missing:
        found |= {"measured": _known(found, subject.bench), "sampled": _samples(subject.bench)}
    for metric in missing:
        print(f"{subject.name}: measuring {metric.name}", flush=True)
        found |= metric.measure(subject)
        found["measured"] = found["measured"] | {metric.name: _settings(metric, subject.bench)}
        if keep is not None:
            keep(found)
    if missing or "history" not in found:
        found["history"] = history(subject.model.chain, tested(subject, metrics_of(subject.bench.config)))
        if keep is not None:
            keep(found)
    return found


def protocol(bench: Bench) -> dict[str, str]:
    """Return a description of how the numbers were measured."""
    lines = {"samples": _samples(bench)} | tuning_protocol(bench.config.tuned)
    lines |= {"condition": PROTOCOL} if is_conditional(bench.config) else {}
    for metric in metrics_of(bench.config):
        lines |= metric.protocol(bench)
    return lines
