"""What the attacks say of a model beside retrained ones: the conditions of claim C2.

An attack counts against a model where one of its numbers lies outside the band of at least five retrained models, all
attacks' numbers judged together (``msgm.evaluation.numbers``). Both sides count: a model that looks less like one that
saw the items than models that never saw them do gives them away too. An attack that does not even tell the base model
from retrained ones has shown nothing about a model that it does not tell: its condition stays unknown.

A retrained model is the definition of forgetting for observed items only. For an attribute or a concept, what shows
more than retrained models do still counts against a model; all else leaves the condition unknown, and membership does
not enter.
"""

from msgm.cards.claims import NOT_TESTED, Check
from msgm.cards.words import WRONG_REFERENCE
from msgm.evaluation.claims import observed, reason_untested, references
from msgm.evaluation.metrics.base import Report, Row
from msgm.evaluation.numbers import Standing, headings_of, standings
from msgm.study.band import LEAST

ATTACKS = ("relearning", "resurgence", "partial-noise", "weights", "quantisation", "membership")
OF_RETAIN_ITEMS = {"MIA AUC retain", "retain items kept %"}
"""Numbers of attacks that tell what is left of items to retain: matters of C3."""


def attack_checks(report: Report, row: Row) -> list[Check]:
    """Return one condition an attack."""
    headings = {name: _headings(name, row, report) for name in ATTACKS}
    judged = [heading for found in headings.values() for heading in found]
    mine, base = attacked(report, row), references(report).base
    of_base = standings(report, base, judged) if base is not None else {}
    return [_check(report, row, name, headings[name], mine, of_base) for name in ATTACKS]


def attacked(report: Report, row: Row) -> dict[str, Standing]:
    """Return by heading where a row lies, the numbers of its attacks judged together."""
    return standings(report, row, [heading for name in ATTACKS for heading in _headings(name, row, report)])


def _headings(name: str, row: Row, report: Report) -> list[str]:
    if reason_untested(row, name) is not None:
        return []
    return [heading for heading in headings_of(name, row, report) if heading not in OF_RETAIN_ITEMS]


def _check(
    report: Report,
    row: Row,
    name: str,
    headings: list[str],
    mine: dict[str, Standing],
    of_base: dict[str, Standing],
) -> Check:
    label = f"{name}: inside the band of retrained models"
    reason = reason_untested(row, name)
    if reason is not None:
        return Check(label, None, f"{NOT_TESTED}: {reason}")
    found = [mine[heading] for heading in headings]
    evidence = "; ".join(f"{standing.heading} {standing.text()}" for standing in found)
    if any(standing.band is None for standing in found):
        count = len(report.get("retrains", []))
        return Check(label, None, evidence, f"{count} models retrained for a band with this attack, of {LEAST} needed")
    if any(standing.side == "no value" for standing in found):
        return Check(label, None, evidence, "it gave no value")
    sides = {"above"} if not observed(report) else {"above", "below"}
    told = [standing for standing in found if standing.side in sides]
    if told and (observed(report) or name != "membership"):
        return Check(label, False, f"{evidence} ({'; '.join(map(_how, told))})")
    if not observed(report):
        return Check(label, None, f"{evidence} ({WRONG_REFERENCE})", WRONG_REFERENCE)
    if not any(heading in of_base for heading in headings):
        return Check(label, None, evidence, f"{NOT_TESTED}: on the base model, which the attack has to tell")
    if all(of_base[heading].side in (None, "inside") for heading in headings if heading in of_base):
        return Check(label, None, evidence, "the attack does not tell the base model from retrained ones either")
    return Check(label, True, evidence)


def _how(standing: Standing) -> str:
    """Return on which side of the band a number lies, and what that means."""
    what = "it looks less like a model that saw the items than models that never did, which gives them away"
    return f"{standing.heading} above the band" if standing.side == "above" else f"{standing.heading} below: {what}"
