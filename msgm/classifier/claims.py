"""What a card claims of an unlearned classifier, level by level, read against the band of retrained models.

The ladder is that of ``msgm.cards.claims``; for classifiers it means, values and bands being means over seeds for C1
and C2:

- C1, behavioural: forget accuracy and, for requests of instances, the AUC of the attacks by loss and by confidence are
  not above the band, the model is not flagged (below), and test accuracy (of the classes to retain, where a class is
  forgotten) is at most 5 points below the retrained models' mean.
- C2, attack-bounded: C1, and no number of the attacks ``ATTACKS`` lies outside the band on the leaking side.
- C3, oracle-indistinguishable within a band: C2, all numbers of forgetting and privacy inside the band in every seed,
  at least 5 retrained models, and held-out retrained models that pass their own audit.
- C4, exact by algorithm: observed items, and a method of the family ``exact`` with its record.
- C5, a proven bound: observed items, and an (epsilon, delta) that the method itself certifies.

Controls. By chance a number lies outside its 95% band on the leaking side in 2.5 of 100 cases, and a card has dozens,
many of them alike. So one number outside is no alarm: a model is *flagged*, as not forgotten, when more than
``TOLERATED`` of its numbers of forgetting and privacy, seeds pooled, lie there. The original has to be flagged; of the
retrained models, each held out in turn and read against the others, at most ``FALSE_ALARMS`` may be. Numbers that are
the same for the original and all retrained models say nothing and do not count. C2 and C3 are strict and not corrected:
the card says how many held-out retrained models pass C3's rule.

The leaking side is that on which models that know the items lie (``SIDES``). Distances from the retrained models have
none; a model beyond the other side, which forgot more than retraining does, is a matter of C3.
"""

from collections.abc import Sequence
from typing import Any

from msgm.cards.claims import NOT_TESTED, ORACLES, Check, Claim, Control, decide, holds_before, verdict_of
from msgm.cards.history import held_checks
from msgm.cards.parts import metric_of
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
from msgm.cards.views import shown
from msgm.classifier.band import interval
from msgm.classifier.metrics import METRICS

ORIGINAL = "do-nothing"
TARGETS = {"observed": "observed items", "latent": "latent attribute", "concept": "concept"}
ACCURACY_MARGIN = 0.05
TOLERATED = 0.1
FALSE_ALARMS = 0.25
LEAST_HELD_OUT = ORACLES - 1
ATTACKS = ("membership", "rmia", "relearning", "probe")
BEHAVIOURAL = ("mia_loss_auc", "mia_confidence_auc")
SIDES: tuple[tuple[str, str | None], ...] = (
    (r"_gap$|^tow$", None),
    (r"_auc$|_tpr_|^forget_accuracy$|^test_accuracy_forgotten$|_worst_decile$|_worse(_share)?$", "above"),
    (r"_efficacy$|^fr_|^fup$|^relearn_steps$", "below"),
)
"""Names of numbers, as patterns, and the side of the band on which a model knows the items; the first match counts."""
READER = Reader(SIDES, LEAST_HELD_OUT)
leaking_side, leaks, outside = READER.leaking_side, READER.leaks, READER.outside

RULES = {
    "C0": ("nothing shown", "No claim below holds."),
    "C1": (
        "behavioural",
        "Forget accuracy and, for instances, the AUC of membership inference by loss and by confidence are not above "
        "the band of retrained models; at most 10% of the numbers of forgetting and privacy lie outside it on the "
        "side of models that know the items; test accuracy is at most 5 points below the retrained models' mean.",
    ),
    "C2": (
        "attack-bounded",
        "C1, and no number of the attacks below lies outside the band on the side that gives items away.",
    ),
    "C3": (
        "oracle-indistinguishable within a band",
        "C2, and all numbers of forgetting and privacy lie inside the band of at least 5 retrained models in every "
        "seed, where these pass their own audit.",
    ),
    "C4": ("exact by algorithm", "Observed items, and a method that trains without them, by its record."),
    "C5": ("proven bound", "Observed items, and a proven (epsilon, delta) bound with its assumptions."),
}


def original_of(report: Report, row: Row) -> Row | None:
    """Return the row of the model before unlearning for the same request."""
    return next((r for r in report["rows"] if r["method"] == ORIGINAL and r["request"] == row["request"]), None)


def counted(report: Report, row: Row) -> list[str]:
    """Return the numbers of forgetting and privacy that differ between the original and the retrained models."""
    return differing(row, original_of(report, row))


def controls(report: Report, row: Row) -> list[Control]:
    """Return the two controls of the row's request."""
    names = counted(report, row)
    return [_positive(report, row, names), _negative(row, names)]


def _positive(report: Report, row: Row, names: Sequence[str]) -> Control:
    name, expected = "positive control: the original model", "flagged as not forgotten"
    original = original_of(report, row)
    if original is None:
        return Control(name, expected, NOT_TESTED, "no do-nothing row of this request")
    count, total = outside(original, readings(original), names)
    if not total or oracles(row) < ORACLES:
        return Control(name, expected, NOT_TESTED, _too_few(row))
    return Control(name, expected, verdict_of(count > TOLERATED * total), _share(count, total))


def _negative(row: Row, names: Sequence[str]) -> Control:
    name, expected = "negative control: each retrained model, held out", "not flagged"
    counts = [outside(row, [reading], names) for reading in held_out(row)]
    if oracles(row) < ORACLES or not any(total for _, total in counts):
        return Control(name, expected, NOT_TESTED, _too_few(row))
    flagged = sum(count > TOLERATED * total for count, total in counts)
    share = sum(count for count, _ in counts) / sum(total for _, total in counts)
    evidence = (
        f"{flagged} of {len(counts)} flagged, where at most {FALSE_ALARMS:.0%} may be; {share:.1%} of their numbers "
        "lie outside on the leaking side, 2.5% by design"
    )
    return Control(name, expected, verdict_of(flagged <= FALSE_ALARMS * len(counts)), evidence)


def _too_few(row: Row) -> str:
    if oracles(row) >= ORACLES:
        return "no number of forgetting or privacy differs between the original and the retrained models"
    return f"{oracles(row)} retrained models, of at least {ORACLES}: more of these are needed, not the original"


def claims(report: Report, row: Row) -> list[Claim]:
    """Return the claims C1 to C5 of one row."""
    checked, right = controls(report, row), observed(report, row)
    behaviour = decide("C1", [enough(row), *_behaviour(report, row), *held_checks(row)], checked)
    attacks = [_attack(report, row, name) for name in attacks_of(report, row)]
    bounded = decide("C2", [holds_before(behaviour), *by_reference(attacks, right)], checked)
    band = [enough(row), READER.all_inside(row, counted(report, row), _too_few(row)), own_audit(checked[1])]
    return [
        behaviour,
        bounded,
        decide("C3", [holds_before(bounded), *by_reference(band, right)], checked),
        decide("C4", _exactness(report, row), [], claimed=row["family"] == "exact"),
        decide("C5", _bound(report, row), [], claimed=bound_of(row) is not None),
    ]


def _behaviour(report: Report, row: Row) -> list[Check]:
    by_class = asked(report, row)["scope"] == "class"
    attacked = () if by_class else BEHAVIOURAL
    accuracy = "test_accuracy_retained" if by_class else "test_accuracy"
    return [
        *(_not_above(row, name) for name in ("forget_accuracy", *attacked)),
        _unflagged(report, row),
        compared(
            row,
            accuracy,
            "at most 5 points below the mean",
            lambda v, b: v >= b["mean"] - ACCURACY_MARGIN,
            against_band,
        ),
    ]


def _not_above(row: Row, name: str) -> Check:
    return compared(row, name, "not above the band", lambda v, b: v <= b["high"] + 1e-12, against_band)


def _unflagged(report: Report, row: Row) -> Check:
    """Return whether the rule that has to flag the original leaves this model alone."""
    count, total = outside(row, readings(row), counted(report, row))
    holds = count <= TOLERATED * total if total else None
    return Check("not flagged", holds, f"{_share(count, total)}" if total else f"{NOT_TESTED}: {_too_few(row)}")


def _share(count: int, total: int) -> str:
    return f"{count} of {total} numbers outside the band on the leaking side, where more than {TOLERATED:.0%} flag"


def against_band(entry: dict[str, Any]) -> str:
    """Return a value beside its band as text."""
    low, high = interval(entry, entry["band"])
    return f"{entry['value']:z.3g}; retrained models {entry['band']['mean']:z.3g}, band [{low:z.3g}, {high:z.3g}]"


def attacks_of(report: Report, row: Row) -> list[str]:
    """Return the attacks that C2 is about: all of ``ATTACKS``, and LiRA where it was run.

    In a report made from saved logits, which has ``outputs_only``, those on outputs alone.
    """
    named = [name for name in ATTACKS if not (report.get("outputs_only") and METRICS.entries[name].live)]
    extra = dict.fromkeys(metric_of(name, METRICS.entries) for name in row["metrics"] if "lira" in name)
    return [*named, *extra]


def _attack(report: Report, row: Row, metric: str) -> Check:
    """Return whether an attack tells the model from retrained ones, by the means over seeds."""
    name = f"{metric}: no number outside the band on the leaking side"
    entries = {k: v for k, v in row["metrics"].items() if metric_of(k, METRICS.entries) == metric}
    sides = {k: leaking_side(k, v["better"]) for k, v in entries.items()}
    known = {k: v for k, v in entries.items() if sides[k] and v["value"] is not None and v["band"] is not None}
    if not known:
        return Check(name, None, f"{NOT_TESTED}: {metric}")
    out = {k: v for k, v in known.items() if leaks(sides[k], v["value"], v["band"]["low"], v["band"]["high"])}
    listed = "; ".join(f"{k} {against_band(v)}" for k, v in out.items())
    evidence = f"{len(out)} of {len(known)} numbers outside" + (f": {listed}" if out else "")
    return Check(name, not out, evidence)


def overshooting(report: Report, row: Row) -> list[str]:
    """Return the numbers that lie outside the band, by the means over seeds, on the side away from the leaking one."""
    other = {"above": "below", "below": "above"}
    found = []
    for name in counted(report, row):
        entry, band = row["metrics"][name], row["metrics"][name]["band"]
        side = other.get(leaking_side(name, entry["better"]) or "")
        if entry["value"] is not None and band and leaks(side, entry["value"], band["low"], band["high"]):
            found.append(name)
    return found


def _exactness(report: Report, row: Row) -> list[Check]:
    request = asked(report, row)
    digest, trained = request.get("forget_digest"), row["examples"]
    return [
        Check("the target is observed items", observed(report, row), f"target: {request['target']}"),
        Check("the method trains without them", row["family"] == "exact", f"family: {row['family']}"),
        _recorded("the record names the forget set", digest, digest is not None),
        _recorded("the record counts the items trained on", trained, bool(trained)),
    ]


def _recorded(name: str, value: Any, holds: bool) -> Check:
    return Check(name, None if value is None else holds, shown(value))


def _bound(report: Report, row: Row) -> list[Check]:
    found = bound_of(row)
    if found is None:
        return [Check("a proven bound", False, "no epsilon and delta are computed by this method")]
    evidence = f"epsilon {found['epsilon']:g}, delta {found['delta']:g}; it covers {found['covers']}"
    return [
        Check("the target is observed items", observed(report, row), f"target: {asked(report, row)['target']}"),
        Check("the method proves it of this model", found["proved"], evidence),
    ]


def bound_of(row: Row) -> dict[str, Any] | None:
    """Return the weakest of the seeds' bounds: epsilon, delta, what it covers, and whether all are proved."""
    made = [part.get("artefacts") or row["artefacts"] or {} for part in row["per_seed"]]
    if not made or any(tree.get(key) is None for tree in made for key in ("epsilon", "delta")):
        return None
    weakest = max(made, key=lambda tree: tree["epsilon"])
    proved = all(tree.get("proved", tree.get("certified")) is True for tree in made)  # Its name in the first version.
    return {"covers": "NOT RECORDED"} | weakest | {"proved": proved}
