"""From the numbers of models to the rows and the report of a comparison, for every domain."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar, cast

from msgm.runs import environment
from msgm.study.judging import BAND_RULE, Criteria, Entry, Numbers, Report, Row, judge, means
from msgm.study.parts import Number

Cell = TypeVar("Cell", bound=tuple[str, ...])


def row_numbers(values: Mapping[int, Numbers], band: Sequence[Numbers], known: Mapping[str, Number]) -> Row:
    """Return the entries of a row on its numbers, before judging.

    Args:
        values: the numbers of the row's model, by seed.
        band: those of every retrained model.
        known: the description of every number, by name.

    Returns:
        ``metrics``: name to ``value``, ``low``, ``high`` and ``seeds``, and what the number is; ``per_seed``: ``seed``
        and ``metrics``; ``retrain_band``: ``retrain``, from 1, and ``metrics``.
    """
    return {
        "metrics": described(values, known),
        "per_seed": [{"seed": seed, "metrics": tree} for seed, tree in values.items()],
        "retrain_band": [{"retrain": k, "of": 1, "metrics": dict(tree)} for k, tree in enumerate(band, 1)],
    }


def described(values: Mapping[int, Numbers], known: Mapping[str, Number]) -> dict[str, Entry]:
    """Return each number's mean over seeds, interval and description; arguments as of ``row_numbers``."""
    return {name: cast(Entry, {**entry, **asdict(known[name])}) for name, entry in means(list(values.values())).items()}


def left_out(records: Mapping[Cell, Mapping[str, Any]], parts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the cells that have no numbers, each with its ``parts`` by name and the reason."""
    return [
        dict(zip(parts, cell, strict=True)) | {"status": record["status"], "reason": record["reason"]}
        for cell, record in records.items()
        if "reason" in record
    ]


def left_out_at(records: Mapping[int, Mapping[str, Any]], **cell: str) -> list[dict[str, Any]]:
    """Return a line for each reason why a cell has no numbers, with the seeds (keys of ``records``) concerned."""
    reasons: dict[tuple[str, str], list[int]] = {}
    for seed, record in records.items():
        if "reason" in record:
            reasons.setdefault((record["status"], record["reason"]), []).append(seed)
    return [cell | {"status": status, "reason": reason, "seeds": seeds} for (status, reason), seeds in reasons.items()]


def judged_report(report: Report, retrains: int, criteria: Criteria) -> Report:
    """Return the judged report, with the entries common to all domains on the band and on where it was made.

    Args:
        report: ``kind``, ``title``, ``data``, ``seeds``, ``requests``, ``protocol``, ``rows`` and ``left_out``.
        retrains: how many models were retrained without a request, in all.
        criteria: of the domain.
    """
    band = f"of {retrains} models retrained without what is to be forgotten, in all; {BAND_RULE}"
    protocol = {"band": band} | report["protocol"]
    return judge(report | {"protocol": protocol, "environment": environment()}, criteria)
