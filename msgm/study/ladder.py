"""The ladder: the levels of forgetting that a card claims for a model, decided against retrained models.

The levels are those of ``msgm.cards.claims``. The same code decides them for every domain; a domain's words, sides,
margins and attacks are data (``Ladder``):

- C1, behavioural: at least five retrained models, the domain's conditions of behaviour and utility, and a model that is
  not flagged (below).
- C2, attack-bounded: C1, and no number of an attack lies outside the band. Both sides count: a model that overshoots,
  and shows fewer signs of knowing the items than models that never saw them, is distinguishable as well. At least one
  attack has to distinguish the original from retrained models; an attack that does not shows nothing about other
  models.
- C3, oracle-indistinguishable within a band: C2, and all judged numbers inside the band, so that a further retrained
  model passes in at least 95 of 100 cases.
- C4, exact by algorithm, and C5, a proven bound: the domain's records.

Inside and outside are the verdicts of ``judging``: of the mean over seeds, corrected for all numbers judged together.

Controls. Retrained models, which never saw the items, lie outside their own, uncorrected 95% intervals on the leaking
side in 2.5 of 100 numbers. A model is *flagged*, as not forgotten, when more of its n numbers of forgetting and privacy
lie there than the 95% quantile of the binomial distribution Bin(n, .025): so that, were the numbers independent, chance
flags at most one retrained model in 20. The original has to be flagged; of the retrained models, each held out and read
against the others, at most ``FLAGGED_AT_MOST`` may be. Else C1, C2 and C3 stay open.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from scipy import stats

from msgm.cards.claims import (
    NOT_TESTED,
    Check,
    Claim,
    Control,
    Rules,
    decide,
    holds_before,
    verdict_of,
)
from msgm.cards.history import held_checks
from msgm.cards.views import shown
from msgm.cards.words import WRONG_REFERENCE
from msgm.study.band import FALSE_ALARMS, LEAST, band_of
from msgm.study.judging import (
    ABOVE,
    BELOW,
    COUNTED,
    INSIDE,
    NO_VALUE,
    TOO_FEW,
    BandFacts,
    Criteria,
    Entry,
    Numbers,
    Report,
    Row,
    beside_band,
    enough_retrained,
    entry_of,
    place_of,
    retrained,
    seeds_of,
)

FLAGGED_AT_MOST = 0.25
GIVES_AWAY = {
    True: "it looks more like a member than models that never saw it",
    False: "it looks more like a non-member than models that never saw it: that gives it away",
}
"""What lying outside says, by whether it is on the side of models that know the items."""

Checks = Callable[[Report, Row], list[Check]]


@dataclass(frozen=True, kw_only=True)
class Ladder(Criteria):
    """A domain's ladder.

    Attributes:
        rules: level to its name and its rule in words.
        behaviour: conditions of C1 beside those of every domain; by default none.
        attacks: returns a row's attacks by name with their numbers, including attacks that were not run.
        exactness: conditions of C4; by default none can hold.
        exact: whether a row's method claims C4; by default none does.
        bound: conditions of C5; by default none can hold.
        bounded: whether a row's method claims C5; by default none does.
    """

    rules: Rules
    behaviour: Checks = lambda report, row: []
    attacks: Callable[[Report, Row], Mapping[str, Sequence[str]]]
    exactness: Checks = lambda report, row: [Check("exact by algorithm", False, "no method here is")]
    exact: Callable[[Row], bool] = lambda row: False
    bound: Checks = lambda report, row: [Check("a proven bound", False, "no method here computes one")]
    bounded: Callable[[Row], bool] = lambda row: False

    def claims(self, report: Report, row: Row) -> list[Claim]:
        """Return the claims C1 to C5 of one row."""
        checked, right = self.controls(report, row), observed(report, row)
        behaviour = decide("C1", [*self.first(report, row), *held_checks(row)], checked)
        tested = [*self.removing(report, row), *by_reference(self._attacks(report, row), right)]
        bounded = decide("C2", [holds_before(behaviour), *tested], checked)
        inside = self._all_inside(row)
        whole = [inside if right or inside.holds is None else _by_wrong(inside)]
        return [
            behaviour,
            bounded,
            decide("C3", [holds_before(bounded), *whole], checked),
            decide("C4", self.exactness(report, row), [], claimed=self.exact(row)),
            decide("C5", self.bound(report, row), [], claimed=self.bounded(row)),
        ]

    def first(self, report: Report, row: Row) -> list[Check]:
        """Return the conditions of C1, without those of earlier requests."""
        return [_enough(row), *self.behaviour(report, row), self._unflagged(report, row)]

    def removing(self, report: Report, row: Row) -> list[Check]:
        """Return the conditions of C2 on what the method changed; by default none."""
        return []

    def untested(self, row: Row, attack: str) -> str:
        """Return why a row has no numbers of an attack beside a band."""
        return attack

    def telling(self, report: Report, row: Row) -> list[str]:
        """Return the attacks that distinguish the row's original from retrained models."""
        original = self.original_of(report, row)
        known = {} if original is None else original["metrics"]
        return [
            attack
            for attack, numbers in self.attacks(report, row).items()
            if any((known.get(name) or {}).get("place") in (ABOVE, BELOW) for name in numbers)
        ]

    def controls(self, report: Report, row: Row) -> list[Control]:
        """Return the two controls: the original model, and each retrained model held out."""
        return [self._positive(report, row), self._negative(report, row)]

    def _positive(self, report: Report, row: Row) -> Control:
        name, expected = "positive control: the original model", "flagged as not forgotten"
        original = self.original_of(report, row)
        if original is None:
            return Control(name, expected, NOT_TESTED, f"no {self.original} row of this {' and '.join(self.keys)}")
        count, total = self.leaking(report, original)
        if not total:
            return Control(name, expected, NOT_TESTED, _nothing_to_read(row))
        return Control(name, expected, verdict_of(_flags(count, total)), _share(count, total))

    def _negative(self, report: Report, row: Row) -> Control:
        name, expected = "negative control: each retrained model, held out", "not flagged"
        counts = self._held_out(report, row)
        if not enough_retrained(row) or not any(total for _, total in counts):
            return Control(name, expected, NOT_TESTED, _nothing_to_read(row))
        flagged = sum(_flags(count, total) for count, total in counts)
        share = sum(count for count, _ in counts) / sum(total for _, total in counts)
        evidence = (
            f"{flagged} of {len(counts)} flagged, where at most {FLAGGED_AT_MOST:.0%} may be; {share:.1%} of their "
            "numbers lie outside their 95% intervals on the leaking side, 2.5% by design"
        )
        return Control(name, expected, verdict_of(flagged <= FLAGGED_AT_MOST * len(counts)), evidence)

    def counted(self, report: Report, row: Row) -> list[str]:
        """Return the judged numbers of forgetting and privacy."""
        return [name for name in self.judged_names(report, row) if row["metrics"][name]["section"] in COUNTED]

    def leaking(self, report: Report, row: Row) -> tuple[int, int]:
        """Return the number of counted numbers outside their own 95% interval on the leaking side, and their total."""
        names, metrics = self.counted(report, row), row["metrics"]
        values = {name: metrics[name]["value"] for name in names}
        seeds = {name: seeds_of(row, metrics[name]) for name in names}
        return self._leaking(report, row, values, retrained(row), seeds)

    def _held_out(self, report: Report, row: Row) -> list[tuple[int, int]]:
        names, models = self.counted(report, row), retrained(row)
        return [
            self._leaking(report, row, {name: model.get(name) for name in names}, models[:k] + models[k + 1 :], {})
            for k, model in enumerate(models)
        ]

    def _leaking(
        self, report: Report, row: Row, values: Numbers, models: Sequence[Numbers], seeds: Mapping[str, int]
    ) -> tuple[int, int]:
        """Return the number of values outside the interval of ``models`` on the leaking side, and their total."""
        found = []
        for name, value in values.items():
            side = self._side(name, row["metrics"][name])
            band = band_of([tree.get(name) for tree in models], LEAST - 1)
            if side and value is not None and band is not None:
                unsure = self.unsure(report, row, name)
                found.append(place_of(value, band, seeds.get(name, 1), 1, self.slack, unsure) == side)
        return sum(found), len(found)

    def _unflagged(self, report: Report, row: Row) -> Check:
        """Return the condition that the row's model is not flagged as not forgotten."""
        count, total = self.leaking(report, row)
        if not total:
            return Check("not flagged", None, f"{NOT_TESTED}: {_nothing_to_read(row)}")
        return Check("not flagged", not _flags(count, total), _share(count, total))

    def _attacks(self, report: Report, row: Row) -> list[Check]:
        """Return one condition for each attack, and one that at least one attack distinguishes the original."""
        attacks, telling = self.attacks(report, row), self.telling(report, row)
        if not attacks:
            return [Check("attacks", None, f"{NOT_TESTED}: no attack was run")]
        found = [self._attack(report, row, name, numbers) for name, numbers in attacks.items()]
        other = [name for name, numbers in attacks.items() if numbers and name not in telling]
        evidence = f"{', '.join(telling) or 'none'} of {len(attacks)}" + (
            f"; nothing is shown by {', '.join(other)}, which do not" if other else ""
        )
        name = "an attack tells the original from retrained models"
        return [*found, Check(name, True if telling else None, evidence)]

    def _attack(self, report: Report, row: Row, attack: str, numbers: Sequence[str]) -> Check:
        """Return the condition that no number of an attack lies outside its band.

        Where retrained models are not the right reference for the request, only the leaking side counts.
        """
        name = f"{attack.replace('_', ' ')}: no number outside the band"
        known = {key: row["metrics"][key] for key in numbers if (row["metrics"].get(key) or {}).get("band")}
        if not known:
            return Check(name, None, f"{NOT_TESTED}: {self.untested(row, attack)}")
        out = {key: entry for key, entry in known.items() if entry["place"] in (ABOVE, BELOW)}
        if not observed(report, row):
            out = {key: entry for key, entry in out.items() if entry["place"] == self._side(key, entry)}
        unsure = {key: entry["place"] for key, entry in known.items() if entry["place"] in (TOO_FEW, NO_VALUE)}
        listed = [self.outside(key, entry) for key, entry in out.items()]
        listed += [f"{key}: {place}" for key, place in unsure.items()]
        evidence = "; ".join([f"{len(out)} of {len(known)} numbers outside", *listed])
        return Check(name, False if out else None if unsure else True, evidence)

    def _side(self, name: str, entry: Entry) -> str | None:
        return self.leaking_side(name, entry["better"])

    def outside(self, name: str, entry: Entry) -> str:
        """Return a text on the side of its band on which a number lies, and its meaning."""
        side = self._side(name, entry)
        means = f" ({GIVES_AWAY[entry['place'] == side]})" if side else ""
        return f"{name} {beside_band(entry)}: {entry['place']}{means}"

    def _all_inside(self, row: Row) -> Check:
        name = "all judged numbers inside the band"
        judged = {key: entry["place"] for key, entry in row["metrics"].items() if entry["place"] is not None}
        if not judged:
            return Check(name, None, f"{NOT_TESTED}: {_nothing_to_read(row)}")
        out = [f"{key} {place}" for key, place in judged.items() if place in (ABOVE, BELOW, NO_VALUE)]
        unsure = TOO_FEW in judged.values()
        missing = [key for key in _of_all_retrained(row) if key not in row["metrics"]]
        told = f" ({', '.join(out)})" if out else ""
        lacks = f"; {NOT_TESTED}: {', '.join(missing)}" if missing else ""
        evidence = f"{len(out)} of {len(judged)} outside{told}{lacks}; {self.strict_passes(row)}"
        holds = False if out else None if unsure or missing else True
        return Check(name, holds, evidence, TOO_FEW if unsure and not out else "")

    def strict_passes(self, row: Row) -> str:
        """Return a text on how many held-out retrained models have all numbers inside, which is the rule's power."""
        passed, count = row["judged"]["held_out_inside"], len(retrained(row))
        if passed is None:
            return f"{NOT_TESTED}: {_nothing_to_read(row)}"
        return f"of the retrained models themselves, held out, {passed} of {count} have all numbers inside"

    def overshooting(self, row: Row) -> list[str]:
        """Return the numbers of forgetting and privacy that lie outside the band away from the leaking side."""
        opposite = {ABOVE: BELOW, BELOW: ABOVE}
        return [
            name
            for name, entry in row["metrics"].items()
            if entry["section"] in COUNTED and (side := self._side(name, entry)) is not None
            if opposite.get(entry["place"]) == side
        ]


def rules_of(things: str, behaviour: str, exactness: str) -> Rules:
    """Return the name and the rule of every level.

    Args:
        things: what is forgotten: items, cells.
        behaviour: the domain's conditions of C1, a sentence without its full stop.
        exactness: the rule of C4.
    """
    return {
        "C0": ("nothing shown", "No claim below holds."),
        "C1": (
            "behavioural",
            f"{behaviour}; of the numbers of forgetting and privacy no more lie outside their own 95% intervals, on "
            f"the side of models that know the {things}, than chance explains in 19 of 20 retrained models.",
        ),
        "C2": (
            "attack-bounded",
            "C1, and no number of the attacks below lies outside the band, on either side; an attack has to tell the "
            "original from retrained models for this to say anything.",
        ),
        "C3": (
            "oracle-indistinguishable within a band",
            f"C2, and all judged numbers lie inside the band of at least {LEAST} retrained models.",
        ),
        "C4": ("exact by algorithm", exactness),
        "C5": (
            "proven bound",
            f"Observed {things}, and a proven (epsilon, delta) bound with its assumptions.",
        ),
    }


def asked(report: Report, row: Row) -> dict[str, Any]:
    """Return the row's request."""
    found: dict[str, Any] = report["requests"][row["request"]]
    return found


def observed(report: Report, row: Row) -> bool:
    """Return whether the request is about observed training items, which retraining without them answers exactly."""
    return bool(asked(report, row)["target"] == "observed")


def by_reference(checks: Sequence[Check], right: bool) -> list[Check]:
    """Return the conditions, weakened if retrained models are not the right reference for the request.

    In that case a condition that holds against retrained models becomes unknown.
    """
    return [_by_wrong(check) if check.holds and not right else check for check in checks]


def _by_wrong(check: Check) -> Check:
    return Check(check.name, None, f"{check.evidence} ({WRONG_REFERENCE})", WRONG_REFERENCE)


def is_inside(row: Row, name: str, also: Sequence[str] = ()) -> Check:
    """Return whether a number lies inside its band.

    Args:
        row: of the report.
        name: of the number.
        also: further accepted places, such as below for a number that only must not lie above.
    """
    words = f"not {ABOVE if BELOW in also else BELOW} the band" if also else "inside the band"
    return compared(row, name, words, lambda value, band, place: _holds(place, also))


def _holds(place: str | None, also: Sequence[str]) -> bool | None:
    """Return whether a place is accepted; a number that is not judged is equal for all models and passes."""
    return None if place == TOO_FEW else place in (None, INSIDE, *also)


def near_mean(row: Row, name: str, words: str, right: Callable[[float, float], bool]) -> Check:
    """Return the condition that a number is near enough to the retrained models' mean: ``right(value, mean)``."""
    label = f"{words} the retrained models' mean"
    return compared(row, name, label, lambda value, band, place: right(value, band["mean"]))


def compared(row: Row, name: str, words: str, right: Callable[[float, BandFacts, str | None], bool | None]) -> Check:
    """Return whether a number stands to its band as ``words`` say and ``right(value, band, place)`` decides."""
    entry, label = entry_of(row, name), f"{name.replace('_', ' ')} {words}"
    if entry is None or entry["value"] is None or entry["band"] is None:
        return Check(label, None, f"{NOT_TESTED}: {name}, or its band")
    unknown = f"{name}: {TOO_FEW}" if entry["place"] == TOO_FEW else ""
    return Check(label, right(entry["value"], entry["band"], entry["place"]), beside_band(entry), unknown)


def recorded(name: str, value: Any, holds: bool) -> Check:
    """Return a condition on a record's entry; unknown if the record lacks it."""
    return Check(name, None if value is None else holds, shown(value))


def _of_all_retrained(row: Row) -> list[str]:
    """Return the numbers that every retrained model has."""
    models = retrained(row)
    return [name for name in (models[0] if models else ()) if all(model.get(name) is not None for model in models)]


def _enough(row: Row) -> Check:
    count = len(retrained(row))
    return Check(f"at least {LEAST} retrained models", True if count >= LEAST else None, f"{count} retrained models")


@lru_cache
def _allowed(total: int) -> int:
    """Return how many of this many independent numbers may lie outside on one side by chance in 19 of 20 models."""
    return int(stats.binom.ppf(1 - FALSE_ALARMS, total, FALSE_ALARMS / 2))


def _flags(count: int, total: int) -> bool:
    return count > _allowed(total)


def _share(count: int, total: int) -> str:
    return (
        f"{count} of {total} numbers outside their own 95% intervals on the side of models that know the items, where "
        f"more than {_allowed(total)} flag"
    )


def _nothing_to_read(row: Row) -> str:
    if not enough_retrained(row):
        return f"{len(retrained(row))} retrained models, of at least {LEAST}: more of these are needed"
    return "no number of forgetting or privacy has a side, a value and a band"
