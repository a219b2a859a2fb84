"""What a card claims of a model, level by level, and the controls without which it claims nothing.

The ladder is that of ``msgm.cards.claims``; for generative models it means:

- C0: no claim holds.
- C1, behavioural: the unlearning ratio (UR) stays below a threshold, and the junk rate below the base's + 5 points.
  Where observed items are the target and five models were retrained for a band, the mean UR over seeds may not lie
  above that band. Else the upper end of the UR's 95% interval is at most the highest upper end among the *other*
  retrained rows' where observed items are the target, and the upper end of the judge's floor otherwise. Where a limit
  lies inside an interval, the samples are too few to tell.
- C2, attack-bounded: C1, and no attack of ``evidence.ATTACKS`` tells the model from the band of retrained ones.
- C3, oracle-indistinguishable within a band: C2, and all numbers lie inside the band of at least 5 retrained models,
  judged together: a further retrained model has all inside in at least 95 of 100 cases, and passes C2's attacks in as
  many. What attacks on changed copies show is left to C2.
- C4, exact by algorithm: observed items, and a model trained from random weights on the retain set alone, by its log.
- C5, a proven bound with its assumptions: never computed here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgm.cards.claims import NOT_TESTED, Check, Claim, Control, decide, holds_before, verdict_of
from msgm.cards.history import held_checks
from msgm.cards.words import WRONG_REFERENCE
from msgm.config import BASE_ROW
from msgm.evaluation.metrics.base import METRICS, Report, Row
from msgm.evaluation.metrics.unlearning_ratio import percent
from msgm.evaluation.numbers import Standing, bands, standings
from msgm.study.band import LEAST

TRUSTED_ACCURACY = 0.95
TRUSTED_RECALL = 0.9
JUNK_MARGIN = 0.05

RULES = {
    "C0": ("nothing shown", "No claim below holds."),
    "C1": (
        "behavioural",
        "For observed items and five models retrained for a band, the unlearning ratio is not above it; else the upper "
        "end of its 95% interval is at most the threshold (the highest of the other retrained models' upper ends for "
        "observed items, else the upper end of the judge's floor on real items to retain). The upper end of the junk "
        "rate's is at most the base's rate + 5 points. A limit inside an interval leaves it open.",
    ),
    "C2": (
        "attack-bounded",
        "C1, and no number of an attack lies outside the band of at least 5 retrained models, on either side, all of "
        "them judged together; an attack has to tell the base model to count.",
    ),
    "C3": (
        "oracle-indistinguishable within a band",
        "C2, and all numbers lie inside the band of at least 5 retrained models, judged together.",
    ),
    "C4": (
        "exact by algorithm",
        "Observed items, and by its log the model was trained from random weights on the retain set alone.",
    ),
    "C5": ("proven bound", "A proven (epsilon, delta) bound with its assumptions."),
}


@dataclass(frozen=True)
class References:
    """The rows that others are read against: do-nothing, retrained models, a network with random weights."""

    base: Row | None
    retrains: list[Row]
    random: Row | None

    def retrain_for(self, row: Row) -> Row | None:
        """Return a retrained model other than ``row``."""
        return next((other for other in self.retrains if other["name"] != row["name"]), None)


def references(report: Report) -> References:
    """Find the reference rows of a report by what was done to them."""
    rows = report["rows"]
    base = next((row for row in rows if row["name"] == BASE_ROW), None)
    base = base or next((row for row in rows if _made(row) == ("scratch", "standard")), None)
    candidates = [*rows, *report.get("retrains", [])]
    retrains = [row for row in candidates if _made(row) == ("scratch", "unseen") and _same_request(row, report)]
    return References(base, retrains, next((row for row in rows if row["start"] == "random"), None))


def _made(row: Row) -> tuple[str, str | None]:
    return row["start"], row["objective"]


def _same_request(row: Row, report: Report) -> bool:
    """Return whether the row's log, where there is one, names the report's data and forget set."""
    log = row.get("provenance") or {}
    pairs = [(log.get("forget_digest"), report["request"].get("forget_digest"))]
    pairs += [(log.get("data_digest"), report["data"]["digest"])]
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def trusted(report: Report) -> bool:
    """Return whether the judge is good enough: right on held-out items, and able to see the forgotten content."""
    judge = report["judge"]
    recall = judge["forget_recall"]
    return judge["heldout_accuracy"] >= TRUSTED_ACCURACY and recall is not None and recall["value"] >= TRUSTED_RECALL


def observed(report: Report) -> bool:
    """Return whether the request is about listed items, which retraining without them answers exactly."""
    return bool(report["request"]["target"] == "observed")


def interval(rate: Mapping[str, Any]) -> str:
    """Return a rate as per cent with its interval and n."""
    return f"{percent(rate['value'])}% [{percent(rate['low'])}, {percent(rate['high'])}], n = {rate['n']}"


def known(row: Row | None, metric: str) -> bool:
    """Return whether there is a row that holds the metric's numbers."""
    return row is not None and metric in row.get("measured", {})


def reason_untested(row: Row, metric: str) -> str | None:
    """Return why a row has no numbers of a metric: it was not asked for, or could not be made; None if it has them."""
    if not known(row, metric):
        return f"{metric} was not measured"
    numbers = row.get(getattr(METRICS.entries.get(metric), "key", metric))
    reason = numbers.get("not_tested") if isinstance(numbers, dict) else None
    return None if reason is None else str(reason)


class Limit(NamedTuple):
    """The UR that a row may reach at most, where it comes from, and whose samples or items those below it are like."""

    value: float
    source: str
    like: str


def threshold(report: Report, row: Row) -> Limit:
    """Return the UR that ``row`` may reach at most."""
    limits = _of_band(report, row)
    if limits is not None:
        return Limit(
            limits[1] / 100,
            f"upper end of the band of {len(report['retrains'])} retrained models",
            "those of retrained models",
        )
    others = [r for r in references(report).retrains if r["name"] != row["name"] and known(r, "ur")]
    if observed(report) and others:
        highest = max(others, key=lambda r: r["unlearning_ratio"]["high"])
        name = highest["name"]
        return Limit(highest["unlearning_ratio"]["high"], f"upper end of {name}'s UR", f"the retrained model {name}'s")
    floor = report["real"]["unlearning_ratio"]
    source = f"upper end of the judge's floor on {floor['n']} real items to retain"
    return Limit(floor["high"], source, "real items to retain")


def _of_band(report: Report, row: Row) -> tuple[float, float] | None:
    """Return the ends of the band of retrained models' UR in per cent, where it is what a row is held to."""
    return standings(report, row, ["UR %"])["UR %"].limits if observed(report) and known(row, "ur") else None


def _junk(row: Row) -> dict[str, Any]:
    low, high = row["intervals"]["junk_rate"]
    return {"value": row["junk_rate"], "low": low, "high": high, "n": row["unlearning_ratio"]["n"]}


def ratio_check(report: Report, row: Row) -> Check:
    """Return whether the row's UR stays below its threshold."""
    limit, where, _ = threshold(report, row)
    name = f"UR at most {percent(limit)}% ({where})"
    if not known(row, "ur"):
        return Check(name, None, f"{NOT_TESTED}: ur")
    if _of_band(report, row) is not None:
        ratio = standings(report, row, ["UR %"])["UR %"]
        return Check(name, ratio.side != "above", f"UR % {ratio.text()}")
    return _at_most(limit, row["unlearning_ratio"], name)


def junk_check(report: Report, row: Row) -> Check:
    """Return whether the row makes no more junk than the base, within the margin."""
    base = references(report).base
    if base is None or not known(base, "ur") or not known(row, "ur"):
        return Check("junk rate at most the base's + 5 points", None, f"{NOT_TESTED}: ur of this model and of the base")
    limit = base["junk_rate"] + JUNK_MARGIN
    return _at_most(limit, _junk(row), f"junk rate at most {percent(limit)}% (the base's + 5 points)")


def _at_most(limit: float, rate: dict[str, Any], name: str) -> Check:
    """Return whether a rate's whole interval lies below a limit; unknown when the limit lies inside it."""
    if rate["low"] <= limit < rate["high"]:
        return Check(name, None, interval(rate), "too few samples to tell")
    return Check(name, rate["high"] <= limit, interval(rate))


def controls(report: Report) -> list[Control]:
    """Return the controls of a report."""
    return [
        _positive(report),
        _negative(report),
        _random(report),
        *_judge(report),
    ]


def _positive(report: Report) -> Control:
    name, expected = "positive control: the base model", "flagged as not forgotten"
    base = references(report).base
    if base is None or not known(base, "ur"):
        return Control(
            name, expected, NOT_TESTED, "no do-nothing row with its UR: give the base model as a further RUN"
        )
    check = ratio_check(report, base)
    evidence = f"{check.evidence}, which has to exceed its limit: {check.name}"
    return Control(name, expected, verdict_of(check.holds is False), evidence)


def _negative(report: Report) -> Control:
    name, expected = "negative control: a retrained model", "flagged as forgotten"
    found = references(report)
    retrain = next((row for row in found.retrains if known(row, "ur")), None)
    if retrain is None:
        advice = "no row retrained on the retain set with its UR: give one (unseen, from scratch) as a further RUN"
        return Control(name, expected, NOT_TESTED, advice)
    if found.base is None or not known(found.base, "ur"):
        return Control(name, expected, NOT_TESTED, "no base model to tell it from")
    ratio, base, junk = retrain["unlearning_ratio"], found.base["unlearning_ratio"], junk_check(report, retrain)
    evidence = (
        f"{retrain['name']}: UR {interval(ratio)}, which has to end below the base's {percent(base['low'])}%; "
        f"junk {junk.evidence}. It is no test of the threshold that it sets itself"
    )
    return Control(name, expected, verdict_of(ratio["high"] < base["low"] and bool(junk.holds)), evidence)


def _random(report: Report) -> Control:
    name, expected = "negative control: a network with random weights", "flagged as junk"
    found = references(report)
    if found.random is None or found.base is None or not (known(found.random, "ur") and known(found.base, "ur")):
        return Control(name, expected, NOT_TESTED, "no row random-network, or no base model", ("C2", "C3"))
    junk, limit = _junk(found.random), found.base["junk_rate"] + JUNK_MARGIN
    evidence = f"junk {interval(junk)}; its lower end has to exceed {percent(limit)}%"
    return Control(name, expected, verdict_of(junk["low"] > limit), evidence, ("C2", "C3"))


def _judge(report: Report) -> list[Control]:
    judge, floor = report["judge"], report["real"]["unlearning_ratio"]
    recall, held = judge["forget_recall"], judge["heldout"]
    found = Control(
        "judge on real items to forget",
        f"at least {percent(TRUSTED_RECALL)}% judged forgotten, and {percent(TRUSTED_ACCURACY)}% of all judged rightly",
        NOT_TESTED if recall is None else verdict_of(trusted(report)),
        "no held-out item is to be forgotten"
        if recall is None
        else f"recall {interval(recall)}; accuracy {interval(held)}",
    )
    most = 1 - TRUSTED_ACCURACY
    expected = f"at most {percent(most)}% judged forgotten (the floor)"
    spared = Control("judge on real items to retain", expected, verdict_of(floor["value"] <= most), interval(floor))
    return [found, spared]


def claims(report: Report, row: Row, attacks: list[Check]) -> list[Claim]:
    """Return the claims C1 to C5 of one model; ``attacks`` are the conditions that ``evidence.attack_checks`` gives."""
    checked = controls(report)
    behaviour = decide("C1", [ratio_check(report, row), junk_check(report, row), *held_checks(row)], checked)
    bounded = decide("C2", [holds_before(behaviour), *attacks], checked)
    bound = Check("a proven bound", False, "no bound is computed for any method here")
    return [
        behaviour,
        bounded,
        decide("C3", [holds_before(bounded), *band_checks(report, row)], checked),
        decide("C4", _exactness(report, row), [], claimed=_made(row) == ("scratch", "unseen")),
        decide("C5", [bound], [], claimed=False),
    ]


def band_checks(report: Report, row: Row) -> list[Check]:
    """Return whether each of a row's numbers lies inside the band of retrained models."""
    band, count = bands(report), len(report.get("retrains", []))
    name = f"at least {LEAST} retrained models"
    if not band:
        return [Check(name, None, f"{NOT_TESTED}: {count} retrained for a band")]
    found = standings(report, row)
    return [Check(name, True, str(count)), *(_inside(report, heading, found.get(heading)) for heading in band)]


def _inside(report: Report, heading: str, found: Standing | None) -> Check:
    name = f"{heading} inside the band"
    if found is None:
        return Check(name, None, f"{NOT_TESTED}: {heading}")
    if not observed(report):
        return Check(name, None, f"{found.side}: {found.text()} ({WRONG_REFERENCE})", WRONG_REFERENCE)
    return Check(name, found.side == "inside", f"{found.side}: {found.text()}")


def _exactness(report: Report, row: Row) -> list[Check]:
    """Return what the row's log says of how it was trained."""
    log = row.get("provenance") or {}
    target = report["request"]["target"]

    def recorded(name: str, key: str, right: Callable[[Any], bool]) -> Check:
        value = log.get(key)
        return Check(name, None if value is None else right(value), "NOT RECORDED" if value is None else str(value))

    wanted = {"forget": report["request"].get("forget_digest"), "data": report["data"]["digest"]}
    return [
        Check("the target is observed items", target == "observed", f"target: {target}"),
        Check("trained from random weights", row["start"] == "scratch", f"start: {row['start']}"),
        Check("on the retain set alone", row["objective"] == "unseen", f"objective: {row['objective']}"),
        recorded("the log says that the run finished", "status", lambda value: value == "finished"),
        recorded("the log names this forget set", "forget_digest", lambda value: value == wanted["forget"]),
        recorded("the log names this data", "data_digest", lambda value: value == wanted["data"]),
    ]
