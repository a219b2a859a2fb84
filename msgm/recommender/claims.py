"""What a card claims of a recommender that was made to forget, level by level, read against retrained models.

The ladder is that of ``msgm.cards.claims``; for recommenders it means, values and bands being means over seeds for C1
and C2, and a value in a band or outside it by more than ``SLACK``:

- C1, behavioural: nothing forgotten is served, the completeness AUC is not above the band, and NDCG (RMSE for models of
  ratings) is at most 5% worse than the retrained models' mean.
- C2, attack-bounded: C1, and no number of the attacks, those of section privacy, lies outside the band on the leaking
  side.
- C3, oracle-indistinguishable within a band: C2, all numbers of forgetting and privacy inside the band in every seed,
  at least 5 retrained models, and held-out retrained models that pass their own audit.
- C4, exact by algorithm: observed cells, an answer that is bit-exact or exact up to rounding, with its record, and
  nothing forgotten served. Exactness at convergence is not claimed here: sweeps are finite.
- C5, a proven bound: no method here computes one.

Controls. A model is *flagged*, as not forgotten, when more than ``TOLERATED`` of its numbers of forgetting and privacy,
seeds pooled, lie outside the band on the leaking side. The original has to be flagged; of the retrained models, each
held out in turn and read against the others, at most ``FALSE_ALARMS`` may be, which takes three of them. Numbers that
are the same for the original and all retrained models say nothing and do not count.

The leaking side is that on which models that know the cells lie (``SIDES``). Distances from retrained models have none:
a model can be far from them for having forgotten too much; that is a matter of C3.
"""

from collections.abc import Sequence
from typing import Any

from msgm.cards.claims import NOT_TESTED, Check, Claim, Control, decide, holds_before, verdict_of
from msgm.cards.history import held_checks
from msgm.cards.reading import (
    Reader,
    Report,
    Row,
    asked,
    by_reference,
    compared,
    differing,
    enough,
    held_out,
    observed,
    oracles,
    own_audit,
    readings,
)
from msgm.recommender.measuring import SLACK

ORIGINAL = "do-nothing"
EXACT = ("bit-exact", "exact up to rounding")
UTILITY_MARGIN = 0.05
TOLERATED = 0.1
FALSE_ALARMS = 0.25
LEAST = 3
"""The fewest retrained models of which each can be held out and read against a band of the others."""
SERVED = ("lists_with_forgotten_items", "forgotten_users_served")
SIDES: tuple[tuple[str, str | None], ...] = (
    (r"_distance(_units)?$", None),
    (r"_auc$|_share$|_exposure$", "above"),
    (r"_repair$", "below"),
)
"""Names of numbers, as patterns, and the side of the band on which a model knows the cells; the first match counts."""
READER = Reader(SIDES, slack=SLACK)
leaking_side, leaks, outside = READER.leaking_side, READER.leaks, READER.outside

RULES = {
    "C0": ("nothing shown", "No claim below holds."),
    "C1": (
        "behavioural",
        "Nothing forgotten is served, forgotten cells score no further above held-out ones than in the band of "
        "retrained models, and NDCG or RMSE is at most 5% worse than their mean.",
    ),
    "C2": (
        "attack-bounded",
        "C1, and no number of the attacks below lies outside the band on the side that gives cells away.",
    ),
    "C3": (
        "oracle-indistinguishable within a band",
        "C2, and all numbers of forgetting and privacy lie inside the band of at least 5 retrained models in every "
        "seed, where these pass their own audit.",
    ),
    "C4": (
        "exact by algorithm",
        "Observed cells, an answer that equals fitting anew to the rest, bit by bit or up to rounding, by its record, "
        "and nothing forgotten is served.",
    ),
    "C5": ("proven bound", "Observed cells, and a proven (epsilon, delta) bound with its assumptions."),
}


def row_of(report: Report, row: Row, method: str) -> Row | None:
    """Return the row of another method for the same model and request."""
    same = [r for r in report["rows"] if r["model"] == row["model"] and r["request"] == row["request"]]
    return next((r for r in same if r["method"] == method), None)


def counted(report: Report, row: Row) -> list[str]:
    """Return the numbers of forgetting and privacy that differ between the original and the retrained models."""
    return differing(row, row_of(report, row, ORIGINAL))


def controls(report: Report, row: Row) -> list[Control]:
    """Return the two controls of the row's model and request."""
    names = counted(report, row)
    return [_positive(report, row, names), _negative(row, names)]


def _positive(report: Report, row: Row, names: Sequence[str]) -> Control:
    name, expected = "positive control: the original model", "flagged as not forgotten"
    original = row_of(report, row, ORIGINAL)
    if original is None:
        return Control(name, expected, NOT_TESTED, "no do-nothing row of this model and request")
    known = [key for key in names if key in original["metrics"]]
    count, total = outside(original, readings(original), known)
    if not total:
        return Control(name, expected, NOT_TESTED, _nothing_to_read(row))
    evidence = f"{count} of {total} numbers outside on the leaking side, where more than {TOLERATED:.0%} flag"
    return Control(name, expected, verdict_of(count > TOLERATED * total), evidence)


def _negative(row: Row, names: Sequence[str]) -> Control:
    name, expected = "negative control: each retrained model, held out", "not flagged"
    counts = [outside(row, [reading], names) for reading in held_out(row)]
    if oracles(row) < LEAST or not any(total for _, total in counts):
        return Control(name, expected, NOT_TESTED, _nothing_to_read(row, LEAST), ("C3",))
    flagged = sum(count > TOLERATED * total for count, total in counts)
    evidence = f"{flagged} of {len(counts)} flagged, where at most {FALSE_ALARMS:.0%} may be"
    return Control(name, expected, verdict_of(flagged <= FALSE_ALARMS * len(counts)), evidence, ("C3",))


def _nothing_to_read(row: Row, least: int = 2) -> str:
    if oracles(row) < least:
        return f"{oracles(row)} retrained models, of at least {least}"
    return "no number has a side on which it gives cells away; the model cannot be asked"


def claims(report: Report, row: Row) -> list[Claim]:
    """Return the claims C1 to C5 of one row."""
    checked, right = controls(report, row), observed(report, row)
    behaviour = decide("C1", [*_served(row), *_behaviour(row), *held_checks(row)], checked)
    attacks = _attacks(row)
    bounded = decide("C2", [holds_before(behaviour), *by_reference(attacks, right)], checked)
    band = [enough(row), READER.all_inside(row, counted(report, row), _nothing_to_read(row)), own_audit(checked[1])]
    return [
        behaviour,
        bounded,
        decide("C3", [holds_before(bounded), *by_reference(band, right)], checked),
        decide("C4", _exactness(report, row), [], claimed=row["exactness"] in EXACT),
        decide("C5", [Check("a proven bound", False, "no method here computes one")], [], claimed=False),
    ]


def _served(row: Row) -> list[Check]:
    """Return whether anything forgotten is served; no condition where single cells are forgotten."""
    values = {name: (row["metrics"].get(name) or {}).get("value") for name in SERVED}
    return [
        Check(f"{name.replace('_', ' ')}: none", value == 0, f"{value:.3g}")
        for name, value in values.items()
        if value is not None
    ]


def _behaviour(row: Row) -> list[Check]:
    metrics = row["metrics"]
    rated = (metrics.get("rmse") or {}).get("value") is not None
    name, words = ("rmse", "above") if rated else ("ndcg", "below")
    return [
        compared(
            row,
            "completeness_auc",
            "not above the band",
            lambda v, b: not leaks("above", v, b["low"], b["high"]),
            against_band,
        ),
        compared(
            row,
            name,
            f"at most 5% {words} the retrained models' mean",
            lambda v, b: (v - b["mean"]) * (1 if rated else -1) <= UTILITY_MARGIN * b["mean"],
            against_band,
        ),
    ]


def against_band(entry: dict[str, Any]) -> str:
    """Return a value beside its band as text."""
    band = entry["band"]
    return f"{entry['value']:.3g}; retrained models {band['mean']:.3g}, band [{band['low']:.3g}, {band['high']:.3g}]"


def attack_numbers(row: Row) -> list[str]:
    """Return the numbers that C2 is about: those of section privacy that have a leaking side, a value and a band."""
    return [
        name
        for name, entry in row["metrics"].items()
        if entry["section"] == "privacy" and leaking_side(name, entry["better"])
        if entry["value"] is not None and entry["band"] is not None
    ]


def _attacks(row: Row) -> list[Check]:
    names = attack_numbers(row)
    if not names:
        return [Check("attacks", None, f"{NOT_TESTED}: no number of section privacy, or no band")]
    found = []
    for name in names:
        entry = row["metrics"][name]
        side, band = leaking_side(name, entry["better"]), entry["band"]
        holds = not leaks(side, entry["value"], band["low"], band["high"])
        found.append(Check(f"{name.replace('_', ' ')} not {side} the band", holds, against_band(entry)))
    return found


def _exactness(report: Report, row: Row) -> list[Check]:
    request, touched = asked(report, row), row["touched"]
    record = "NOT RECORDED" if touched is None else f"{touched:g} rows written in {row['seconds']:.3g} s"
    digest = report["data"]["digest"]
    return [
        Check("the target is observed cells", observed(report, row), f"target: {request['target']}"),
        Check("the answer is exact", row["exactness"] in EXACT, str(row["exactness"])),
        Check("the record says what was written", None if touched is None else True, record),
        Check("the record names the data", None if digest is None else True, str(digest)),
        *_served(row),
    ]
