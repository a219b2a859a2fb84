"""The report card of one row of a recommender report: one model, one method, one request.

It is made from report.json alone. Its columns are this model, the original, the band of retrained models and whether
this model lies in it. The schema is that of ``msgm.cards.views``; what counts at which level is in ``claims``.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from msgm.cards.claims import NOT_TESTED, ORACLES, Control, claim_tree, level
from msgm.cards.history import card_history, notes
from msgm.cards.parts import (
    SECTIONS,
    columns,
    inside,
    kept,
    like_the_original,
    method_lines,
    metric_of,
    reference,
    write_plain_card,
)
from msgm.cards.reading import Report, Row, asked, observed, oracles
from msgm.cards.solves import solver_lines, solver_text
from msgm.cards.views import Card
from msgm.cards.words import WRONG_REFERENCE, cannot_say, unsaid_of_goal
from msgm.recommender.claims import (
    ORIGINAL,
    READER,
    RULES,
    attack_numbers,
    claims,
    controls,
    counted,
    row_of,
)
from msgm.recommender.metrics import METRICS
from msgm.traces import of_request

WHERE = "Nothing was purged: the original model and the data themselves are where they were."


def write_card(folder: Path, report: Report, row: Row) -> Card:
    """Write card.json, card.md and card.html of a row into a folder, and return the card."""
    made = card(report, row)
    write_plain_card(folder, made)
    return made


def card(report: Report, row: Row) -> Card:
    """Return the card of one row of a report, as a JSON tree; null in it means that nobody tested or recorded it."""
    found, checked = claims(report, row), controls(report, row)
    reached = level(found)
    return {
        "name": f"{row['model']}, {row['method']}, {row['request']}",
        "title": report["title"],
        "level": reached,
        "level_name": RULES[reached][0],
        "statement": _statement(row, reached),
        "header": _header(report),
        "request": _request(report, row),
        "history": card_history(row),
        "method": _method(report, row),
        "artifacts": {
            "purged": False,
            "found": of_request(report.get("artifacts"), row["request"]),
            "note": kept(row, WHERE),
        },
        "claims": [claim_tree(claim, RULES) for claim in found],
        "controls": [asdict(control) for control in checked],
        "reference": reference(row, checked, READER.strict_passes(row, counted(report, row)), observed(report, row)),
        "columns": columns(observed(report, row)),
        "numbers": {section: _numbers(report, row, section) for section in SECTIONS},
        "figures": {},
        "protocol": {name: text for name, text in report["protocol"].items() if name not in row["metrics"]},
        "not_tested": _not_tested(row, checked),
        "cannot_say": _cannot_say(report, row, reached),
    }


def _statement(row: Row, reached: str) -> str:
    """Return the card's one sentence, whose verb is no stronger than its level."""
    if reached == "C0":
        return "Nothing is shown."
    if reached == "C4":
        return (
            f"Exact by algorithm ({row['exactness']}): the model is the one that fitting anew to the remaining cells "
            "gives, by the method's construction and its record. What other users' cells say of the same taste stays."
        )
    count, seeds = oracles(row), len(row["per_seed"])
    power = f"{count} retrained models a seed and {seeds} seed{'s' if seeds > 1 else ''}"
    tests = {
        "C1": "the scores of forgotten against held-out cells",
        "C2": f"the attacks {', '.join(attack_numbers(row))}",
        "C3": "any number of forgetting and privacy here, in any seed",
    }
    return (
        f"No longer distinguishable, for the worse, from models retrained without the cells by {tests[reached]}: "
        f"{power}. This is a statement about these tests at this number of models, not about the model's tables."
    )


def _header(report: Report) -> dict[str, Any]:
    data, environment = report["data"], report.get("environment") or {}
    return {
        "tool": "msgm",
        "versions": environment.get("versions"),
        "date": report.get("date"),
        "data": data["name"],
        "data_digest": data["digest"],
        "users": data["users"],
        "items": data["items"],
        "interactions": data["interactions"],
        "seeds": ", ".join(map(str, report["seeds"])) if report["seeds"] else None,
        "platform": environment.get("platform"),
        "energy": None,
    }


def _request(report: Report, row: Row) -> dict[str, Any]:
    found = asked(report, row)
    return {
        "goal": found["goal"],
        "target_kind": found["target"],
        "target_definition": found["text"],
        "users": found["users"],
        "items": found["items"],
        "cells": found["cells"],
    }


def _method(report: Report, row: Row) -> dict[str, Any]:
    lines = method_lines(row["card"])
    return {
        "name": row["method"],
        "model": row["model"],
        "exactness": row["exactness"],
        **{key: lines.get(key) for key in ("formula", "source", "needs", "deviations", "defaults")},
        "seconds": row["seconds"],
        "seconds_over_retraining": _over_retraining(report, row),
        "preparation_seconds": row["preparation_seconds"],
        "storage_bytes": row["storage_bytes"],
        "rows_touched": row["touched"],
        "facts": row["facts"],
        "tuning_oracle_access": None,
    } | ({"solver": solver_text(row)} if row.get("solve") else {})


def _over_retraining(report: Report, row: Row) -> float | None:
    """Return the method's seconds over retraining's for the same model and request."""
    retrain = row_of(report, row, "retrain")
    if retrain is None or not retrain["seconds"] or row["seconds"] is None:
        return None
    return float(row["seconds"] / retrain["seconds"])


def _numbers(report: Report, row: Row, section: str) -> list[dict[str, Any]]:
    """Return one line a number of the section."""
    original = row_of(report, row, ORIGINAL)
    before = original["metrics"] if original is not None else {}
    wrong = section == "privacy" and not observed(report, row)
    return [
        {
            "test": metric_of(name, METRICS.entries),
            "number": name,
            "better": "" if entry["better"] == "band" else entry["better"],
            "note": "; ".join([entry["text"], *([WRONG_REFERENCE] if wrong else [])]),
            "this": _value(entry),
            "original": _value(before.get(name)),
            "band": _band(entry),
            "inside": inside(entry),
        }
        for name, entry in row["metrics"].items()
        if entry["section"] == section
    ]


def _value(entry: dict[str, Any] | None) -> str | None:
    if entry is None or entry["value"] is None:
        return None
    if entry["low"] is None:
        return f"{entry['value']:.3g}"
    return f"{entry['value']:.3g} [{entry['low']:.3g}, {entry['high']:.3g}]"


def _band(entry: dict[str, Any]) -> str | None:
    band = entry["band"]
    return None if band is None else f"{band['mean']:.3g} [{band['low']:.3g}, {band['high']:.3g}]"


def _not_tested(row: Row, checked: list[Control]) -> list[str]:
    lines = [
        f"{name}: {(metric.__doc__ or name).strip().splitlines()[0].rstrip('.')}"
        for name, metric in METRICS.entries.items()
        if all((row["metrics"].get(number) or {}).get("value") is None for number in metric.numbers)
    ]
    lines += [f"{control.name}: {control.evidence}" for control in checked if control.verdict == NOT_TESTED]
    if oracles(row) < ORACLES:
        lines.append(f"C3: {oracles(row)} retrained models of at least {ORACLES}")
    return [*lines, "whether settings were tuned against the retrained models"]


def _cannot_say(report: Report, row: Row, reached: str) -> list[str]:
    request = asked(report, row)
    lines = cannot_say("as by using the service again") + unsaid_of_goal(request["goal"], reached) + notes(row)
    lines.append("Anything about lists, caches and logs outside the model: whoever serves it has to clear these.")
    if not observed(report, row):
        lines.append(
            f"How near this comes to having forgotten a {request['target']}: models fitted without the selected cells "
            f"are the {WRONG_REFERENCE}."
        )
    if not oracles(row):
        lines.append("Anything about closeness to a retrained model: none is here.")
    if like_the_original(row, row_of(report, row, ORIGINAL), ("completeness_auc", "ndcg")):
        lines.append("That the method did anything: do-nothing has the same completeness AUC and NDCG.")
    return lines + solver_lines(row)
