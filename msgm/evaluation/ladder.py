"""The ladder (``msgm.study.ladder``) of generators.

- C1: the unlearning ratio (UR) stays below a threshold, and the junk rate below the base's + 5 points, both as means
  over seeds. Where observed items are the target, the threshold is the band of at least five retrained models. Else it
  is the upper end of the judge's floor, its UR on real items to retain, for the upper end of the UR's 95% interval;
  where the threshold lies inside that interval, the samples are too few to tell. The interval of a mean over seeds is
  the union of the t-interval over seeds and Wilson's interval of all samples together, because the t-interval has no
  width when seeds agree by chance, as three without a hit do.
  A class-conditional model has to stay below it for whatever class it is asked, and for none; a text-to-image model
  for every set of prompts that is scored.
- C2: the attacks ``ATTACKS``, and those of ``FURTHER`` that the row was measured by. Membership does not enter where
  an attribute or a concept is the target.
- C4: observed items, and a model trained from random weights on the retain set alone, by its log.
- C5: no method here computes a bound.

A metric's leaking side is the side of the band on which models that still know the items lie (``SIDES``). Three
controls are models: the base model, a retrained one, and a network with random weights; two more say what the judge is
worth.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgm.cards.claims import NOT_TESTED, Check, Control, verdict_of
from msgm.config import BASE_ROW
from msgm.evaluation.deletion import SHARDED, deletion_text
from msgm.evaluation.metrics import conditions, prompts
from msgm.evaluation.metrics.base import METRICS, Report, Row
from msgm.evaluation.metrics.unlearning_ratio import percent
from msgm.evaluation.rates import Share, rate
from msgm.evaluation.rows import headings_of
from msgm.study.band import LEAST, Band
from msgm.study.judging import ABOVE, BELOW, entry_of, retrained, seeds_of
from msgm.study.ladder import Ladder, asked, observed, rules_of

TRUSTED_ACCURACY = 0.95
TRUSTED_RECALL = 0.9
JUNK_MARGIN = 0.05
MOST_JUNK = 0.5
"""Junk rate of a base model above which it was not trained enough to show anything."""
ATTACKS = ("relearning", "resurgence", "partial-noise", "weights", "quantisation", "membership")
OF_MEMBERSHIP = ("membership", "pia", "secmi", "sima", "lira")
BY_PROMPTS = ("embedding", "token-search", "prefix-search", "guidance-sweep")
FURTHER = ("latent-inversion", "guided-recall", "noise-search", *BY_PROMPTS, "extraction", *OF_MEMBERSHIP[1:])
"""Attacks that count where they were run; compound relearning is an option of ``relearning``."""
OF_RETAIN_ITEMS = ("MIA AUC retain", "retain items kept %")
"""Numbers of attacks that tell what is left of items to retain: matters of C3."""
GUIDED = "guide"
"""Start of rows whose samples are guided."""
UNTOUCHED = "weights untouched: outputs were suppressed, nothing was removed"
SIDES: tuple[tuple[str, str | None], ...] = (
    ("^MIA AUC retain|^retain items kept", None),
    ("^NLL forget|^VLB forget|^UA %|of the highest losses|^distance of decoded forget", BELOW),
    ("UR %|AUC forget|^MIA|TPR|come back|^cop(y|ies)", ABOVE),
    ("", None),
)
"""Names of numbers, as patterns, and the side of the band on which a model knows the items; the first match counts."""

OF_ALL = rules_of("items", "", "")
RULES = {
    **OF_ALL,
    "C1": (
        "behavioural",
        f"For observed items, the mean unlearning ratio over seeds is not above the band of at least {LEAST} retrained "
        "models; else the upper end of its 95% interval is at most that of the judge's floor on real items to retain. "
        "The upper end of the junk rate's is at most the base's rate + 5 points. A limit inside an interval leaves it "
        "open.",
    ),
    "C2": (
        OF_ALL["C2"][0],
        f"{OF_ALL['C2'][1]} Guidance of samples, which leaves the weights as they are, does not reach it, nor C1 where "
        "removal is asked for.",
    ),
    "C4": (
        "exact by algorithm",
        "Observed items, and by its log the model was trained from random weights on the retain set alone; or it is a "
        "mixture of models of shards, of which those that held an item were trained so on what is left of their shard.",
    ),
}


@dataclass(frozen=True)
class References:
    """The reference rows: do-nothing, retrained models, a network with random weights."""

    base: Row | None
    retrains: list[Row]
    random: Row | None

    def retrain_for(self, row: Row) -> Row | None:
        """Return a retrained model other than ``row``."""
        return next((other for other in self.retrains if other["name"] != row["name"]), None)


def references(report: Report) -> References:
    """Find the reference rows of a report by their start and objective."""
    rows = report["rows"]
    base = next((row for row in rows if row["name"] == BASE_ROW), None)
    base = base or next((row for row in rows if _made(row) == ("scratch", "standard")), None)
    candidates = [*rows, *report.get("retrains", [])]
    retrains = [row for row in candidates if is_retrained(row) and _same_request(row, report)]
    return References(base, retrains, next((row for row in rows if row["start"] == "random"), None))


def _made(row: Row) -> tuple[str, str | None]:
    return row["start"], row["objective"]


def is_retrained(row: Row) -> bool:
    """Return whether a row was trained from random weights on the retain set alone."""
    return _made(row) == ("scratch", "unseen")


def _same_request(row: Row, report: Report) -> bool:
    """Return whether the row's log, where there is one, names the report's data and forget set."""
    log, (request,) = row.get("provenance") or {}, report["requests"].values()
    pairs = [(log.get("forget_digest"), request.get("forget_digest"))]
    pairs += [(log.get("data_digest"), report["data"]["digest"])]
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def trusted(report: Report) -> bool:
    """Return whether the judge is good enough: right on held-out items, and able to see the forgotten content."""
    judge = report["judge"]
    recall = judge["forget_recall"]
    return judge["heldout_accuracy"] >= TRUSTED_ACCURACY and recall is not None and recall["value"] >= TRUSTED_RECALL


def interval(rate: Mapping[str, Any]) -> str:
    """Return a rate as per cent with its interval and n."""
    return f"{percent(rate['value'])}% [{percent(rate['low'])}, {percent(rate['high'])}], n = {rate['n']}"


def ratio_of(row: Row) -> Share:
    """Return a row's UR over its seeds."""
    return _over_seeds(row, "UR %", row["unlearning_ratio"])


def _junk(row: Row) -> Share:
    low, high = row["intervals"]["junk_rate"]
    n = row["unlearning_ratio"]["n"]
    return _over_seeds(row, "junk %", {"value": row["junk_rate"], "low": low, "high": high, "n": n})


def _over_seeds(row: Row, heading: str, first: Share) -> Share:
    """Return a rate over a row's seeds, which all have the same number of samples.

    Args:
        row: a row of a judged report.
        heading: of the rate.
        first: the rate at the first seed, which is all that a row of one seed has.
    """
    seeds = len(row.get("per_seed", ()))
    if seeds < 2:
        return first
    entry, n = row["metrics"][heading], seeds * first["n"]
    together = rate(entry["value"] / 100 * n, n)
    low, high = min(entry["low"] / 100, together["low"]), max(entry["high"] / 100, together["high"])
    return {"value": together["value"], "low": max(low, 0.0), "high": min(high, 1.0), "n": n}


def measured_by(row: Row | None, metric: str) -> bool:
    """Return whether the row exists and holds the metric's numbers."""
    return row is not None and metric in row.get("measured", {})


def reason_untested(row: Row, metric: str) -> str | None:
    """Return why a row has no numbers of a metric: it was not asked for, or could not be made; None if it has them."""
    if not measured_by(row, metric):
        return f"{metric} was not measured"
    numbers = row.get(getattr(METRICS.entries.get(metric), "key", metric))
    reason = numbers.get("not_tested") if isinstance(numbers, dict) else None
    return None if reason is None else str(reason)


class Limit(NamedTuple):
    """Upper limit of a row's UR, the source of the limit, and what samples within it cannot be told from."""

    value: float
    source: str
    like: str


def threshold(report: Report, row: Row, heading: str = "UR %") -> Limit | None:
    """Return the upper limit of a row's UR; None where it needs five retrained models and there are fewer."""
    if not observed(report, row):
        floor = report["real"]["unlearning_ratio"]
        source = f"upper end of the judge's floor on {floor['n']} real items to retain"
        return Limit(floor["high"], source, "real items to retain")
    entry = entry_of(row, heading)
    found = None if entry is None else entry["band"]
    if entry is None or found is None:
        return None
    band = Band(found["mean"], found["sd"], found["count"])
    high = band.limits(seeds_of(row, entry))[1] + entry["step"]  # of this number alone, which is stricter
    source = f"upper end of the band of {band.count} retrained models"
    return Limit(high / 100, source, "those of retrained models")


def ratio_check(report: Report, row: Row) -> Check:
    """Return whether the row's UR stays below its threshold."""
    limit = threshold(report, row)
    name = "UR below its limit" if limit is None else f"UR at most {percent(limit.value)}% ({limit.source})"
    if not measured_by(row, "ur"):
        return Check(name, None, f"{NOT_TESTED}: ur")
    if limit is None:
        return Check(name, None, f"{interval(ratio_of(row))}; {too_few(row)}", too_few(row))
    if not observed(report, row):
        return _at_most(limit.value, ratio_of(row), name)
    entry = row["metrics"]["UR %"]
    return Check(name, entry["value"] <= 100 * limit.value + 1e-12, f"UR {entry['value']:.1f}% over {_seeds(row)}")


def view_checks(report: Report, row: Row) -> list[Check]:
    """Return whether a conditional model's UR stays below the threshold for whatever class or prompt it is asked."""
    found = []
    for heading, share in (conditions.ratios(row) | prompts.ratios(row, report)).items():
        limit, seen = threshold(report, row, heading), _over_seeds(row, heading, share)
        if limit is None:
            found.append(Check(f"{heading} below its limit", None, f"{interval(seen)}; {too_few(row)}", too_few(row)))
            continue
        name = f"{heading} at most {percent(limit.value)}% ({limit.source})"
        if observed(report, row):
            value = row["metrics"][heading]["value"]
            found.append(Check(name, value <= 100 * limit.value + 1e-12, f"{value:.1f}% over {_seeds(row)}"))
        else:
            found.append(_at_most(limit.value, seen, name))
    return found


def _seeds(row: Row) -> str:
    count = len(row["per_seed"])
    return "1 seed" if count == 1 else f"{count} seeds"


def too_few(row: Row) -> str:
    """Return a sentence that there are too few retrained models for a band."""
    return f"{len(retrained(row))} models were retrained for a band, of at least {LEAST}"


def junk_check(report: Report, row: Row) -> Check:
    """Return whether the row makes no more junk than the base, within the margin."""
    base = references(report).base
    if base is None or not measured_by(base, "ur") or not measured_by(row, "ur"):
        return Check("junk rate at most the base's + 5 points", None, f"{NOT_TESTED}: ur of this model and of the base")
    limit = _junk(base)["value"] + JUNK_MARGIN
    return _at_most(limit, _junk(row), f"junk rate at most {percent(limit)}% (the base's + 5 points)")


def _at_most(limit: float, found: Share, name: str) -> Check:
    """Return whether a rate's whole interval lies below a limit; unknown when the limit lies inside it."""
    if found["low"] <= limit < found["high"]:
        return Check(name, None, interval(found), f"too few samples or seeds to tell ({interval(found)})")
    return Check(name, found["high"] <= limit, interval(found))


@dataclass(frozen=True, kw_only=True)
class GeneratorLadder(Ladder):
    """The ladder whose C1 and controls read samples by a judge."""

    def original_of(self, report: Report, row: Row) -> Row | None:
        """Return the base model's row, which in ``msgm evaluate`` may have any name."""
        return references(report).base

    def first(self, report: Report, row: Row) -> list[Check]:
        found = [ratio_check(report, row), junk_check(report, row), *view_checks(report, row)]
        return found + (self.removing(report, row) if asked(report, row).get("goal") == "removal" else [])

    def removing(self, report: Report, row: Row) -> list[Check]:
        return [Check("the weights were changed", False, UNTOUCHED)] if row["start"] == GUIDED else []

    def untested(self, row: Row, attack: str) -> str:
        return reason_untested(row, attack) or f"{too_few(row)}, with {attack}"

    def controls(self, report: Report, row: Row) -> list[Control]:
        return [_base(report), _retrained(report), _random(report), *_judge(report)]


def _base(report: Report) -> Control:
    name, expected = "positive control: the base model", "flagged as not forgotten"
    base = references(report).base
    if base is None or not measured_by(base, "ur"):
        return Control(
            name, expected, NOT_TESTED, "no do-nothing row with its UR: give the base model as a further RUN"
        )
    check = ratio_check(report, base)
    if check.holds is None and threshold(report, base) is None:
        return Control(name, expected, NOT_TESTED, check.evidence)
    junk = _junk(base)["value"]
    why = f"; {percent(junk)}% of its samples are junk: train it for longer" if junk > MOST_JUNK else ""
    evidence = f"{check.evidence}, which has to lie above the limit of {check.name}{why}"
    return Control(name, expected, verdict_of(check.holds is False), evidence)


def _retrained(report: Report) -> Control:
    name, expected = "negative control: a retrained model", "flagged as forgotten"
    found = references(report)
    retrain = next((row for row in found.retrains if measured_by(row, "ur")), None)
    if retrain is None:
        advice = "no row retrained on the retain set with its UR: give one (unseen, from scratch) as a further RUN"
        return Control(name, expected, NOT_TESTED, advice)
    if found.base is None or not measured_by(found.base, "ur"):
        return Control(name, expected, NOT_TESTED, "no base model to tell it from")
    ratio, base, junk = ratio_of(retrain), ratio_of(found.base), junk_check(report, retrain)
    evidence = (
        f"{retrain['name']}: UR {interval(ratio)}, which has to end below the base's {percent(base['low'])}%; "
        f"junk {junk.evidence}. It is no test of the threshold that it sets itself"
    )
    return Control(name, expected, verdict_of(ratio["high"] < base["low"] and bool(junk.holds)), evidence)


def _random(report: Report) -> Control:
    name, expected = "negative control: a network with random weights", "flagged as junk"
    found = references(report)
    if (
        found.random is None
        or found.base is None
        or not (measured_by(found.random, "ur") and measured_by(found.base, "ur"))
    ):
        return Control(name, expected, NOT_TESTED, "no row random-network, or no base model", ("C2", "C3"))
    junk, limit = _junk(found.random), _junk(found.base)["value"] + JUNK_MARGIN
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


def attacks_of(report: Report, row: Row) -> dict[str, list[str]]:
    """Return the attacks that C2 is about, with their numbers."""
    right, further = observed(report, row), [name for name in FURTHER if measured_by(row, name)]
    chosen = [name for name in (*ATTACKS, *further) if right or name not in OF_MEMBERSHIP]
    return {name: _attacked(name, row, report) for name in chosen}


def _attacked(name: str, row: Row, report: Report) -> list[str]:
    return [heading for heading in headings_of(name, row, report) if heading not in OF_RETAIN_ITEMS]


def is_exact(row: Row) -> bool:
    """Return whether a row claims C4: it was retrained, or its shards were."""
    return is_retrained(row) or row["start"] == SHARDED


def _exactness(report: Report, row: Row) -> list[Check]:
    """Return the C4 checks of how the row was trained, from its log."""
    log, request = row.get("provenance") or {}, asked(report, row)

    def recorded(name: str, key: str, right: Callable[[Any], bool]) -> Check:
        value = log.get(key)
        return Check(name, None if value is None else right(value), "NOT RECORDED" if value is None else str(value))

    wanted = {"forget": request.get("forget_digest"), "data": report["data"]["digest"]}
    trained = [
        Check("trained from random weights", row["start"] == "scratch", f"start: {row['start']}"),
        Check("on the retain set alone", row["objective"] == "unseen", f"objective: {row['objective']}"),
    ]
    if row["start"] == SHARDED:
        name = "every shard that held an item was trained from random weights on what is left of it, and shares nothing"
        trained = [Check(name, True if row.get("deletion") else None, deletion_text(row) or "NOT RECORDED")]
    return [
        Check("the target is observed items", observed(report, row), f"target: {request['target']}"),
        *trained,
        recorded("the log says that the run finished", "status", lambda value: value == "finished"),
        recorded("the log names this forget set", "forget_digest", lambda value: value == wanted["forget"]),
        recorded("the log names this data", "data_digest", lambda value: value == wanted["data"]),
    ]


LADDER = GeneratorLadder(
    keys=("request",),
    sides=SIDES,
    repeated="(?!)",
    size=None,
    retraining="retrain_seconds",
    effect=("UR %", "NLL forget"),
    original=BASE_ROW,
    baseline="unseen",
    rules=RULES,
    attacks=attacks_of,
    exactness=_exactness,
    exact=is_exact,
)
