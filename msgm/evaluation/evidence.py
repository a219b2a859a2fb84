"""What the attacks say of a model beside a retrained one: the conditions of claim C2.

An attack counts against a model only where it tells it from the retrained one for the worse: 95% intervals that do not
overlap, or a relearning that needs fewer steps. That they overlap is a statement at the n that stands beside it; few
samples tell little apart, and several comparisons are made without correction.

A retrained model is the definition of forgetting for observed items only. For an attribute or a concept, being worse
than it still counts against a model, but being no worse leaves the condition unknown, and membership does not enter.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from msgm.cards.claims import NOT_TESTED, Check
from msgm.cards.words import WRONG_REFERENCE
from msgm.evaluation.claims import interval, observed, reason_untested, references
from msgm.evaluation.metrics.base import Report, Row

Rate = dict[str, Any]
Compare = Callable[[Row, Row, Row | None], Check]


def attack_checks(report: Report, row: Row) -> list[Check]:
    """Return one condition an attack."""
    found = references(report)
    retrain = found.retrain_for(row)
    checks = []
    for name, compare in ATTACKS.items():
        reason = _obstacle(name, row, retrain)
        if reason is not None or retrain is None:
            checks.append(Check(name, None, f"{NOT_TESTED}: {reason}"))
            continue
        check = compare(row, retrain, found.base)
        checks.append(check if observed(report) else _with_wrong_reference(name, check))
    return checks


def _obstacle(name: str, row: Row, retrain: Row | None) -> str | None:
    """Return why the attack compares nothing, if so."""
    reason = reason_untested(row, name)
    if reason is not None:
        return reason
    if retrain is None:
        return "no other retrained model to compare with"
    reason = reason_untested(retrain, name)
    return None if reason is None else f"on the retrained model, {reason}"


def _with_wrong_reference(name: str, check: Check) -> Check:
    holds = None if check.holds or name == "membership" else check.holds
    evidence = f"{check.evidence} ({WRONG_REFERENCE})"
    return replace(check, holds=holds, evidence=evidence, unknown=WRONG_REFERENCE if holds is None else "")


def steps_to_half(row: Row, base: Row) -> int | None:
    """Return the first step of relearning at which a row shows half of what the base shows; None if it never does."""
    half = base["relearning"]["curve"][0]["unlearning_ratio"]["value"] / 2
    curve = row["relearning"]["curve"]
    return next((point["step"] for point in curve if point["unlearning_ratio"]["value"] >= half), None)


def _relearning(row: Row, retrain: Row, base: Row | None) -> Check:
    name = "relearning not faster than the retrained model's"
    if base is None or reason_untested(base, "relearning") is not None:
        return Check(name, None, f"{NOT_TESTED}: on the base model, half of whose UR is the mark")
    if not base["relearning"]["curve"][0]["unlearning_ratio"]["value"]:
        return Check(name, None, "the base model shows nothing that could come back")
    mine, other = (steps_to_half(r, base) for r in (row, retrain))
    found = row["relearning"]
    evidence = (
        f"half of the base's UR after {_steps(mine, found)} steps, the retrained model's after "
        f"{_steps(other, retrain['relearning'])}; {found['items']} items, {found['samples']} samples a look"
    )
    last = float("inf")
    return Check(name, (last if mine is None else mine) >= (last if other is None else other), evidence)


def _steps(steps: int | None, found: dict[str, Any]) -> str:
    return f"more than {found['curve'][-1]['step']}" if steps is None else str(steps)


def _not_above(name: str, pairs: dict[str, tuple[Rate, Rate]]) -> Check:
    """Return whether no rate lies above its counterpart, by their intervals."""
    holds = all(mine["low"] <= other["high"] for mine, other in pairs.values())
    parts = [f"{label}: {interval(mine)} beside {interval(other)}" for label, (mine, other) in pairs.items()]
    return Check(name, holds, "; ".join(parts))


def _resurgence(row: Row, retrain: Row, _: Row | None) -> Check:
    mine, other = (r["resurgence"]["curve"][-1] for r in (row, retrain))
    pairs = {f"UR after {mine['step']} steps": (mine["unlearning_ratio"], other["unlearning_ratio"])}
    return _not_above("resurgence on retain items not above the retrained model's", pairs)


def _partial_noise(row: Row, retrain: Row, _: Row | None) -> Check:
    levels = zip(*(r["partial_noise"]["levels"] for r in (row, retrain)), strict=False)
    pairs = {
        f"start {mine['level']:g}": (mine["forget"]["forgotten"], other["forget"]["forgotten"])
        for mine, other in levels
    }
    return _not_above("items to forget, partly noised, not returned above the retrained model's rate", pairs)


def _weights(row: Row, retrain: Row, _: Row | None) -> Check:
    mine, other = row["weights_attack"], retrain["weights_attack"]
    pairs = {kind: (mine[kind]["unlearning_ratio"], other[kind]["unlearning_ratio"]) for kind in ("raw", "averaged")}
    return _not_above("UR of raw and averaged weights not above the retrained model's", pairs)


def _quantisation(row: Row, retrain: Row, _: Row | None) -> Check:
    widths = zip(*(r["quantisation"]["widths"] for r in (row, retrain)), strict=False)
    pairs = {f"{mine['bits']} bits": (mine["unlearning_ratio"], other["unlearning_ratio"]) for mine, other in widths}
    return _not_above("UR of coarser weights not above the retrained model's", pairs)


def _membership(row: Row, retrain: Row, _: Row | None) -> Check:
    name = "membership of items to forget: AUC's interval overlaps the retrained model's"
    mine, other = (r["membership"]["forget"]["auc"] for r in (row, retrain))
    if mine is None or other is None:
        return Check(name, None, "the loss diverged")
    n = row["membership"]["forget"]["members"]
    evidence = f"{_auc(mine)} beside {_auc(other)}, n = {n}"
    return Check(name, mine["low"] <= other["high"] and other["low"] <= mine["high"], evidence)


def _auc(auc: Rate) -> str:
    return f"{auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}]"


ATTACKS: dict[str, Compare] = {
    "relearning": _relearning,
    "resurgence": _resurgence,
    "partial-noise": _partial_noise,
    "weights": _weights,
    "quantisation": _quantisation,
    "membership": _membership,
}
