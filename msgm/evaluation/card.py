"""The report card: one page a model that says what was asked, what was shown and how far, and what cannot be said.

The schema follows "unlearning report cards" in the sense of Cooper et al. (arXiv 2412.06966): goal and kind of target,
claims by level with their evidence, controls, what was not tested, what cannot be said, a verdict for each claim and
never one score. A card is made from report.json alone. Deviations: no output filter runs as a baseline, energy is not
measured, and requests are answered one at a time; the card says so.
"""

from dataclasses import asdict
from typing import Any

from msgm.cards.claims import NOT_TESTED, PASS, claim_tree, level
from msgm.cards.history import card_history, notes
from msgm.cards.parts import SECTIONS, method_lines
from msgm.cards.words import WRONG_REFERENCE, cannot_say, unsaid_of_goal
from msgm.evaluation.band_table import band_text
from msgm.evaluation.claims import (
    RULES,
    claims,
    controls,
    known,
    observed,
    ratio_check,
    reason_untested,
    references,
    threshold,
)
from msgm.evaluation.evidence import attack_checks
from msgm.evaluation.figures import FIGURES
from msgm.evaluation.metrics.base import METRICS, NOT_MEASURED, Column, Report, Row
from msgm.evaluation.metrics.unlearning_ratio import percent
from msgm.evaluation.numbers import band_facts, bands
from msgm.study.band import LEAST

TESTS = {
    "ur": ("forgetting", "how often samples show the content"),
    "nll": ("forgetting", "how likely real items are under the model"),
    "vlb": ("forgetting", "the same by the variational bound, of a DDPM only"),
    "inpainting": ("forgetting", "what fills the hole in an item to forget"),
    "reconstruction": ("forgetting", "whether an item to forget comes back through its own latent"),
    "fid": ("utility", "distance of the samples' features from those of items to retain"),
    "kid": ("utility", "the same, unbiased in small samples"),
    "inception-score": ("utility", "sharpness and variety of the samples"),
    "precision-recall": ("utility", "fidelity and coverage apart"),
    "clip-distance": ("utility", "distance of the samples in CLIP's features"),
    "membership": ("privacy", "whether the likelihood or loss tells training items from held-out ones"),
    "neighbours": ("privacy", "whether samples repeat training items"),
    "relearning": ("residue", "how fast training on a few items to forget brings the content back"),
    "resurgence": ("residue", "whether training on items to retain brings it back"),
    "partial-noise": ("residue", "whether an item to forget, partly noised, is returned"),
    "weights": ("residue", "whether raw weights show what averaged ones hide"),
    "quantisation": ("residue", "whether coarser weights bring it back"),
    "course": ("residue", "UR and junk in the course of unlearning"),
}
"""Every test of the house: section and what it would show. A plugin's metric stands under forgetting."""

ELSEWHERE = {"NLL retain": "utility", "VLB retain": "utility", "junk %": "utility", "copy %": "privacy"}
"""Columns that belong to another section than their metric's; so do those of restored items to retain, ``D_g``."""

RETRAIN_BASED = {"membership"}
"""Tests whose answer for anything but observed items has no meaning at all."""

COLUMNS = {"this": "this model", "base": "base", "retrain": "retrained", "random": "random weights"}
LOOKS = {"samples": "pixels", "neighbours": "wide"}
"""How figures that are no plots are shown."""


def card(report: Report, row: Row) -> dict[str, Any]:
    """Return the card of one row of a report, as a JSON tree; null in it means that nobody tested or recorded it."""
    found = claims(report, row, attack_checks(report, row))
    reached = level(found)
    return {
        "name": row["name"],
        "title": report["title"],
        "level": reached,
        "level_name": RULES[reached][0],
        "statement": _statement(report, row, reached),
        "header": _header(report, row),
        "request": _request(report),
        "history": card_history(row),
        "method": _method(report, row),
        "artifacts": {
            "purged": False,
            "found": report.get("artifacts"),
            "note": "Nothing was purged. Only this folder and the models' runs were looked into.",
        },
        "claims": [claim_tree(claim, RULES) for claim in found],
        "controls": [asdict(control) for control in controls(report)],
        "reference": _reference(report),
        "columns": COLUMNS | {"retrain": _retrain_heading(report)},
        "numbers": {section: _numbers(report, row, section) for section in SECTIONS},
        "figures": {name: {"caption": text, "look": LOOKS.get(name, "plot")} for name, text in FIGURES.items()},
        "protocol": report["protocol"],
        "not_tested": _not_tested(report, row),
        "cannot_say": _cannot_say(report, row, reached),
    }


def _statement(report: Report, row: Row, reached: str) -> str:
    """Return the card's one sentence, whose verb is no stronger than its level."""
    if reached == "C0":
        return "Nothing is shown."
    if reached == "C4":
        return (
            "Exact by algorithm: the listed items were removed from the training data and the model was trained from "
            "random weights without them, by its log. Near-duplicates of them in the retain set are another matter."
        )
    limit, check = threshold(report, row), ratio_check(report, row)
    text = (
        f"By the judge's unlearning ratio, samples are no longer distinguishable from {limit.like}: "
        f"{check.evidence}, where at most {percent(limit.value)}% is allowed ({limit.source})."
    )
    if reached >= "C2":
        text += " No attack listed below tells the model from retrained ones."
    if reached == "C3":
        text += f" All {len(bands(report))} numbers that were followed lie inside the band of retrained models."
    return text + " This is a statement about these tests at this number of samples, not about the weights."


def _header(report: Report, row: Row) -> dict[str, Any]:
    log, base = row.get("provenance") or {}, references(report).base
    before = (base or {}).get("provenance") or {}
    return {
        "tool": "msgm",
        "versions": report["environment"]["versions"],
        "date": report.get("date"),
        "model_digest_before": before.get("model_digest"),
        "model_digest_after": log.get("model_digest"),
        "data": report["data"]["name"],
        "data_digest": report["data"]["digest"],
        "data_items": report["data"]["items"],
        "forget_digest": report["request"].get("forget_digest"),
        "seeds": {"report": report["seed"], "model": log.get("seed")},
        "device": log.get("device"),
        "platform": log.get("platform"),
        "seconds": row["seconds"],
        "energy": None,
        **_cached(log),
    }


def _cached(log: dict[str, Any]) -> dict[str, str]:
    """Return, of a model that was taken from the cache, when it was trained: that is when its seconds were measured."""
    return {"from_cache": f"trained {log['cached']['trained']}"} if log.get("cached") else {}


def _request(report: Report) -> dict[str, Any]:
    asked = report["request"]
    return {
        "goal": asked["goal"],
        "target_kind": asked["target"],
        "target_definition": asked["text"],
        "selection": _selection(asked),
        "near_duplicates_searched": None,
        "scope": {"observed": "instances", "latent": "attribute", "concept": "class or concept"}.get(asked["target"]),
    }


def _selection(asked: dict[str, Any]) -> str | None:
    """Return how a request names its items, from its text: what follows the words that msgm begins it with."""
    begin = f"{asked['goal']} of the {asked['target']} given by "
    return asked["text"][len(begin) :] if asked["text"].startswith(begin) else None


def _method(report: Report, row: Row) -> dict[str, Any]:
    lines = method_lines(row["card"])
    return {
        "objective": row["objective"],
        "family": _family(report, row),
        "formula": lines.get("formula"),
        "source": lines.get("source"),
        "deviations": lines.get("deviations"),
        "start": row["start"],
        "steps": row["steps"],
        "lr": row["lr"],
        "settings": row["settings"],
        "weights": row.get("weights"),
        "touches": "all weights" if row["steps"] else "nothing",
        "needs_retain_data": "retain" in lines["data"] or lines["data"] == "all" if "data" in lines else None,
        "needs_nonmember_data": False if "data" in lines else None,
        "tuning_oracle_access": None,
    }


def _family(report: Report, row: Row) -> str:
    """Return the family of the notes: exact, approximate update, none; or that nobody knows."""
    if row["start"] == "random":
        return "none: random weights"
    if row["start"] == "none":
        base = references(report).base
        return "none: the base model" if base is not None and base["name"] == row["name"] else "unknown: made elsewhere"
    if row["start"] == "scratch":
        families = {"unseen": "exact: retrained", "standard": "none: trained on all data"}
        return families.get(row["objective"], "trained from random weights on the items to forget too")
    return "approximate update"


def _reference(report: Report) -> dict[str, Any]:
    found, checked, facts = references(report), controls(report), band_facts(report)
    count = len(report.get("retrains", [])) or len(found.retrains)
    return {
        "oracle_kind": "retrain" if count else "none",
        "n_oracles": count,
        "oracle_passes_own_audit": facts and not facts["left_out"],
        "band": facts and band_text(facts),
        "original_flagged": {PASS: True, NOT_TESTED: None}.get(checked[0].verdict, False),
        "note": None if observed(report) else WRONG_REFERENCE,
    }


def _retrain_heading(report: Report) -> str:
    """Return the heading of the retrained model's column, which says where it is no reference."""
    return COLUMNS["retrain"] if observed(report) else f"{COLUMNS['retrain']} ({WRONG_REFERENCE})"


def _section(metric: str, column: Column) -> str:
    if "D_g" in column.heading:
        return "utility"
    return ELSEWHERE.get(column.heading, TESTS.get(metric, ("forgetting", ""))[0])


def _numbers(report: Report, row: Row, section: str) -> list[dict[str, Any]]:
    """Return one line a column of each metric that some row holds: this model beside the reference rows."""
    found = references(report)
    shown = {"this": row, "base": found.base, "retrain": found.retrain_for(row), "random": found.random}
    lines = []
    for name in dict.fromkeys(name for other in report["rows"] for name in other.get("measured", {})):
        columns = METRICS.entries[name].columns if name in METRICS.entries else []
        for column in (c for c in columns if _section(name, c) == section):
            cells = {key: _cell(column, name, other, report) for key, other in shown.items()}
            wrong = name in RETRAIN_BASED and not observed(report)
            note = WRONG_REFERENCE if wrong else None
            lines.append({"test": name, "number": column.heading, "better": column.better, "note": note, **cells})
    return lines


def _cell(column: Column, metric: str, row: Row | None, report: Report) -> str | None:
    if row is None or reason_untested(row, metric) is not None:
        return None
    text = column.cell(row, report)
    return None if text == NOT_MEASURED else text


def _not_tested(report: Report, row: Row) -> list[str]:
    lines = _untested(row)
    lines += [f"{control.name}: {control.evidence}" for control in controls(report) if control.verdict == NOT_TESTED]
    if not bands(report):
        count = len(report.get("retrains", []))
        lines.append(
            f"band of retrained models: {count} of at least {LEAST} retrained for it; whether an oracle passes its "
            "own audit"
        )
    return [
        *lines,
        "near-duplicates of the items to forget among those to retain",
        "an output filter as a baseline",
        "whether settings were tuned against the retrained model",
    ]


def _untested(row: Row) -> list[str]:
    """Return a line for each test without numbers: what it would show, and why there are none if it was asked for."""
    lines = []
    for name, (_, what) in TESTS.items():
        reason = reason_untested(row, name)
        if reason is not None:
            lines.append(f"{name}: {what}" + (f" ({reason})" if known(row, name) else ""))
    return lines


def _cannot_say(report: Report, row: Row, reached: str) -> list[str]:
    found, goal = references(report), report["request"]["goal"]
    lines = cannot_say("as in inpainting or partly noised items") + unsaid_of_goal(goal, reached) + notes(row)
    if not observed(report):
        lines.append(
            f"How near this comes to having forgotten a {report['request']['target']}: a model retrained without the "
            f"selected items is the {WRONG_REFERENCE}, as is membership of those items."
        )
    if not found.retrains:
        lines.append("Anything about closeness to a retrained model: none is here.")
    elif not bands(report):
        lines.append("What spread retrained models have: too few are here. No epsilon is stated from so few.")
    if known(row, "nll"):
        lines.append("That items to forget are not generated because their NLL is higher: likelihood is no sampling.")
    if known(row, "ur"):
        lines.append("That a low unlearning ratio is forgetting where junk is high: junk shows no content either.")
    if _like_the_base(found.base, row):
        lines.append("That the method did anything: do-nothing scores like it, by overlapping intervals of the UR.")
    return lines


def _like_the_base(base: Row | None, row: Row) -> bool:
    if base is None or base["name"] == row["name"] or not (known(base, "ur") and known(row, "ur")):
        return False
    one, other = base["unlearning_ratio"], row["unlearning_ratio"]
    return bool(one["low"] <= other["high"] and other["low"] <= one["high"])
