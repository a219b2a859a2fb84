"""A model's numbers by heading, and a row's over its seeds."""

from typing import Any

from msgm.evaluation.metrics.base import METRICS, Report, Row


def numbers(row: Row, report: Report) -> dict[str, float | None]:
    """Return the numbers of all metrics that a model was measured by; None where one could not be taken."""
    known = [METRICS.entries[name] for name in row["measured"] if name in METRICS.entries]
    return {heading: value for metric in known for heading, value in metric.numbers(row, report).items()}


def over_seeds(rows: list[Row], report: Report) -> list[Row]:
    """Return one row a name: what the first of its seeds has, and under ``per_seed`` every seed's numbers.

    Args:
        rows: measured models, one a name and ``seed``.
        report: what numbers are read against.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row)
    return [of_name[0] | {"per_seed": [_of_seed(row, report) for row in of_name]} for of_name in found.values()]


def _of_seed(row: Row, report: Report) -> dict[str, Any]:
    facts = {key: row.get(key) for key in ("seed", "seconds", "folder", "model")}
    return facts | {"numbers": numbers(row, report)}
