"""The report card of one row of a classifier report: one unlearned model and one request.

It is made from report.json alone. Its columns are this model, the original, the band of retrained models and whether
this model lies in it. The schema is that of ``msgm.cards.views``; what counts at which level is in ``claims``.

An epsilon of forgetting quality is stated only where at least ``EPSILON_MODELS`` models of a kind stand behind it.
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
from msgm.classifier.band import interval
from msgm.classifier.claims import (
    READER,
    RULES,
    TARGETS,
    against_band,
    attacks_of,
    bound_of,
    claims,
    controls,
    counted,
    original_of,
    overshooting,
)
from msgm.classifier.metrics import METRICS
from msgm.traces import of_request

EPSILON_MODELS = 64
OVERSHOOTING_SHOWN = 3
WHERE = "Nothing was purged: the original model, its logits and the data themselves are where they were."


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
        "name": f"{row['method']}, {row['request']}",
        "title": report["title"],
        "level": reached,
        "level_name": RULES[reached][0],
        "statement": _statement(report, row, reached),
        "header": _header(report),
        "request": _request(report, row),
        "history": card_history(row),
        "method": _method(row),
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
        "not_tested": _not_tested(report, row, checked),
        "cannot_say": _cannot_say(report, row, reached),
    }


def _statement(report: Report, row: Row, reached: str) -> str:
    """Return the card's one sentence, whose verb is no stronger than its level."""
    if reached == "C0":
        return "Nothing is shown."
    if reached == "C4":
        return (
            "Exact by algorithm: the model was trained without the listed items, by its record. Near-duplicates of "
            "them among the items to retain are another matter."
        )
    if reached == "C5":
        made = bound_of(row) or {}
        return (
            f"Certified removal with epsilon {made['epsilon']:g} and delta {made['delta']:g}, under the assumptions "
            f"that the method's card names; it covers {made['covers']}."
        )
    count, seeds = oracles(row), len(row["per_seed"])
    power = f"{count} retrained models a seed and {seeds} seed{'s' if seeds > 1 else ''}"
    tests = {
        "C1": "accuracy on the forget items"
        + ("" if asked(report, row)["scope"] == "class" else " and simple attacks"),
        "C2": f"the attacks {', '.join(attacks_of(report, row))}",
        "C3": "any number of forgetting and privacy here, in any seed",
    }
    where = ", from outputs alone" if report.get("outputs_only") else ""
    return (
        f"No longer distinguishable, for the worse, from models retrained without the items by {tests[reached]}: "
        f"{power}{where}. This is a statement about these tests at this number of models, not about the weights."
        f"{_overshooting(report, row)}"
    )


def _overshooting(report: Report, row: Row) -> str:
    """Return a sentence on numbers that lie outside the band on the other side than those of models that know."""
    found = overshooting(report, row)
    if not found:
        return ""
    listed = "; ".join(f"{name} {against_band(row['metrics'][name])}" for name in found[:OVERSHOOTING_SHOWN])
    more = f"; and {len(found) - OVERSHOOTING_SHOWN} more" if len(found) > OVERSHOOTING_SHOWN else ""
    return f" It is distinguishable from retrained models by overshooting, on the other side: {listed}{more}."


def _header(report: Report) -> dict[str, Any]:
    data = report["data"]
    return {
        "tool": "msgm",
        "versions": (report.get("environment") or {}).get("versions"),
        "date": report.get("date"),
        "data": data["name"],
        "data_digest": data["digest"],
        "data_items": data["n"],
        "network": report["network"],
        "training": report["training"],
        "seeds": ", ".join(map(str, report["seeds"])) if report["seeds"] else None,
        "platform": (report.get("environment") or {}).get("platform"),
        "energy": None,
    }


def _request(report: Report, row: Row) -> dict[str, Any]:
    found = asked(report, row)
    selected = found.get("selected")
    parts = f"{selected} selected, {found['n']} in training; held-out ones were never learned"
    return {
        "goal": found["goal"],
        "target_kind": found["target"],
        "target_definition": found["text"],
        "scope": found["scope"],
        "items": found["n"] if selected in (None, found["n"]) else parts,
        "forget_digest": found.get("forget_digest"),
        "near_duplicates_searched": found.get("near_duplicates"),
    }


def _method(row: Row) -> dict[str, Any]:
    lines = method_lines(row["card"])
    return {
        "name": row["method"],
        "family": row["family"],
        **{key: lines.get(key) for key in ("formula", "source", "needs", "touches", "deviations")},
        "settings": row["settings"],
        "seconds": row["seconds"],
        "seconds_over_retraining": row["seconds"] / row["retrain_seconds"] if row.get("retrain_seconds") else None,
        "preparation_seconds": row["preparation_seconds"],
        "storage_bytes": row["storage_bytes"],
        "examples": row["examples"],
        "artefacts": row["artefacts"],
        "tuning_oracle_access": None,
    } | ({"solver": solver_text(row)} if row.get("solve") else {})


def _numbers(report: Report, row: Row, section: str) -> list[dict[str, Any]]:
    """Return one line a number of the section."""
    original = original_of(report, row)
    before = original["metrics"] if original is not None else {}
    wrong = section == "privacy" and not observed(report, row)
    lines = []
    for name, entry in row["metrics"].items():
        if entry["section"] != section:
            continue
        stated = not ("epsilon" in name and _models(row) < EPSILON_MODELS)
        notes = [entry["text"]]
        notes += [] if stated else [f"no epsilon is stated from fewer than {EPSILON_MODELS} models"]
        notes += [WRONG_REFERENCE] if wrong else []
        cells = {
            "this": _value(entry),
            "original": _value(before.get(name)),
            "band": _band(entry),
            "inside": inside(entry),
        }
        lines.append(
            {
                "test": metric_of(name, METRICS.entries),
                "number": name,
                "better": "" if entry["better"] == "band" else entry["better"],
                "note": "; ".join(notes),
            }
            | (cells if stated else dict.fromkeys(cells))
        )
    return lines


def _models(row: Row) -> float:
    """Return the number of models of a kind behind forgetting quality."""
    found = row["metrics"].get("forgetting_quality_models") or {}
    return found.get("value") or 0.0


def _value(entry: dict[str, Any] | None) -> str | None:
    if entry is None or entry["value"] is None:
        return None
    if entry["low"] is None:
        return f"{entry['value']:z.3g}"
    low, high = interval(entry, entry)
    return f"{entry['value']:z.3g} [{low:z.3g}, {high:z.3g}]"


def _band(entry: dict[str, Any]) -> str | None:
    if entry["band"] is None:
        return None
    low, high = interval(entry, entry["band"])
    return f"{entry['band']['mean']:z.3g} [{low:z.3g}, {high:z.3g}]"


def _not_tested(report: Report, row: Row, checked: list[Control]) -> list[str]:
    lines = [f"{name}: {_about(name)}" for name, metric in METRICS.entries.items() if not _measured(row, metric)]
    lines += [f"{control.name}: {control.evidence}" for control in checked if control.verdict == NOT_TESTED]
    if oracles(row) < ORACLES:
        lines.append(f"band of retrained models: {oracles(row)} of at least {ORACLES}")
    if asked(report, row).get("near_duplicates") is None:
        lines.append("near-duplicates of the items to forget among those to retain")
    return [
        *lines,
        "an output filter as a baseline",
        "whether settings were tuned against the retrained models",
    ]


def _measured(row: Row, metric: Any) -> bool:
    return any((row["metrics"].get(name) or {}).get("value") is not None for name in metric.numbers)


def _about(name: str) -> str:
    """Return what a metric would show, by the first line of its description."""
    metric = METRICS.entries[name]
    lines = (metric.__doc__ or name).strip().splitlines()
    return lines[0].rstrip(".") + (" (needs the models)" if metric.live else "")


def _cannot_say(report: Report, row: Row, reached: str) -> list[str]:
    request = asked(report, row)
    lines = cannot_say("as by training the model on it again") + unsaid_of_goal(request["goal"], reached) + notes(row)
    if not observed(report, row):
        lines.append(
            f"How near this comes to having forgotten a {TARGETS[request['target']]}: models retrained without the "
            f"selected items are the {WRONG_REFERENCE}, as is membership of those items."
        )
    if not oracles(row):
        lines.append("Anything about closeness to a retrained model: none is here.")
    if _models(row) < EPSILON_MODELS:
        lines.append(f"Any epsilon of forgetting quality: fewer than {EPSILON_MODELS} models of a kind are here.")
    if report.get("outputs_only"):
        lines.append("Anything about the weights and how the model was made: only its outputs are here.")
    found = request.get("near_duplicates")
    if found is not None and found["retained"] and not found["included"]:
        lines.append(
            f"That near-duplicates are forgotten: {found['retained']} were found among the items to retain, and stay."
        )
    if like_the_original(row, original_of(report, row), ("forget_accuracy", "mia_loss_auc")):
        lines.append("That the method did anything: do-nothing has the same forget accuracy and attack by loss.")
    return lines + solver_lines(row)
