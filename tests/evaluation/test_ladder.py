"""The ladder of generators: its limits, its references, its controls, and the sides of its numbers."""

from math import sqrt

import pytest

from msgm.cards.claims import FAIL, INCONCLUSIVE, NOT_TESTED, PASS, level
from msgm.config import BASE_ROW
from msgm.evaluation.ladder import (
    LADDER,
    attacks_of,
    is_retrained,
    junk_check,
    ratio_check,
    reason_untested,
    references,
    threshold,
    trusted,
)
from msgm.evaluation.rates import rate
from msgm.study.judging import ABOVE, BELOW, INSIDE

MADE = {
    BASE_ROW: ("none", None),
    "trained on all": ("scratch", "standard"),
    "retrained": ("scratch", "unseen"),
    "random": ("random", None),
    "plain": ("finetune", "unseen"),
}


def a_share(value, low, high, n=100):
    return {"value": value, "low": low, "high": high, "n": n}


def a_row(name, ratio=(0.0, 0.0, 0.0), junk=(0.0, 0.0, 0.0), **facts):
    """A row with its UR and junk rate, each with the ends of its interval."""
    start, objective = MADE.get(name, ("finetune", "redirect"))
    found = {"name": name, "method": name, "start": start, "objective": objective, "request": "request"}
    found |= {"measured": {"ur": {}}, "unlearning_ratio": a_share(*ratio), "metrics": {}, "per_seed": [{}]}
    found |= {"junk_rate": junk[0], "intervals": {"junk_rate": junk[1:]}}
    return found | facts


def a_report(*rows, target="concept", floor=(0.01, 0.005, 0.02), **facts):
    """A report of rows, whose judge is sound."""
    found = {"rows": list(rows), "requests": {"request": {"target": target, "forget_digest": "fff"}}}
    found |= {"data": {"digest": "ddd"}, "real": {"unlearning_ratio": a_share(*floor)}}
    judge = {"heldout_accuracy": 0.97, "heldout": rate(97, 100), "forget_recall": a_share(0.95, 0.9, 0.97)}
    return found | {"judge": judge} | facts


def control(report, number):
    return LADDER.controls(report, report["rows"][0])[number]


BASE = a_row(BASE_ROW, (0.5, 0.4, 0.6))


# Limits


@pytest.mark.parametrize(
    ("low", "high", "holds"),
    [
        (0.01, 0.04, True),
        (0.01, 0.05, True),
        (0.01, 0.06, None),
        (0.05, 0.06, None),
        (0.06, 0.07, False),
    ],
)
def test_a_limit_inside_an_interval_leaves_the_junk_rate_open(low, high, holds):
    """The base makes no junk, to which 5 points are added."""
    row, base = a_row("row", junk=(0.02, low, high)), a_row(BASE_ROW, junk=(0.0, 0.0, 0.2))
    found = junk_check(a_report(row, base), row)
    assert found.holds is holds
    assert found.unknown == (f"too few samples or seeds to tell ({found.evidence})" if holds is None else "")


@pytest.mark.parametrize("name", ["row", BASE_ROW])
def test_junk_is_not_compared_where_samples_of_one_model_were_not_judged(name):
    rows = [a_row("row"), a_row(BASE_ROW)]
    assert junk_check(a_report(*rows), rows[0]).holds
    next(row for row in rows if row["name"] == name)["measured"] = {}
    found = junk_check(a_report(*rows), rows[0])
    assert (found.holds, NOT_TESTED in found.evidence) == (None, True)


def of_band(value, seeds=3, step=0.5):
    """A row with a UR beside five retrained models of mean 10 and standard deviation 1."""
    entry = {"value": value, "low": 0.0, "high": 99.0, "seeds": seeds, "step": step}
    entry |= {"band": {"mean": 10.0, "sd": 1.0, "count": 5}}
    facts = {"retrain_band": [{"metrics": {}}] * 5, "per_seed": [{}] * seeds}
    return a_row("row", metrics={"UR %": entry}, **facts)


@pytest.mark.parametrize(("seeds", "step"), [(1, 0.0), (3, 0.0), (3, 0.5)])
def test_the_limit_of_observed_items_is_the_bands_upper_end_for_so_many_seeds(seeds, step):
    """Student's t with 4 degrees of freedom has its 97.5% quantile at 2.7764."""
    end = 10 + 2.7764 * sqrt(1 / seeds + 1 / 5) + step
    for value, holds in ((end - 1e-3, True), (end + 1e-3, False)):
        row = of_band(value, seeds, step)
        report = a_report(row, target="observed")
        assert threshold(report, row).value == pytest.approx(end / 100, abs=1e-6)
        assert ratio_check(report, row).holds is holds


def test_a_mean_at_the_end_of_a_band_without_width_holds():
    row = of_band(10.0, step=0.0)
    row["metrics"]["UR %"]["band"]["sd"] = 0.0
    found = ratio_check(a_report(row, target="observed"), row)
    assert (found.holds, found.evidence) == (True, "UR 10.0% over 3 seeds")


@pytest.mark.parametrize("target", ["observed", "concept"])
def test_a_ratio_that_was_not_measured_leaves_it_open(target):
    row = of_band(1.0) | {"measured": {}}
    found = ratio_check(a_report(row, target=target), row)
    assert (found.holds, found.evidence) == (None, f"{NOT_TESTED}: ur")


# References


@pytest.mark.parametrize("name", MADE)
def test_a_retrained_model_is_one_from_random_weights_on_the_retain_set(name):
    assert is_retrained(a_row(name)) is (name == "retrained")


def test_references_are_found_by_what_was_done_to_rows():
    rows = [a_row(name) for name in reversed(MADE)]
    found = references(a_report(*rows, retrains=[a_row("retrained")]))
    assert (found.base["name"], found.random["name"]) == (BASE_ROW, "random")
    assert [row["name"] for row in found.retrains] == ["retrained"] * 2
    assert references(a_report(*rows[:-1])).base["name"] == "trained on all"
    assert references(a_report(a_row("plain"))).base is None


def test_a_retrained_model_is_read_against_another():
    first, second = (a_row("retrained") | {"name": name} for name in ("first", "second"))
    found = references(a_report(first, second))
    assert (found.retrain_for(first), found.retrain_for(second)) == (second, first)


@pytest.mark.parametrize(
    ("log", "right"),
    [
        (None, True),
        ({}, True),
        ({"forget_digest": "fff", "data_digest": None}, True),
        ({"forget_digest": "fff", "data_digest": "ddd"}, True),
        ({"forget_digest": "other", "data_digest": "ddd"}, False),
        ({"forget_digest": "fff", "data_digest": "other"}, False),
    ],
)
def test_a_model_retrained_on_other_data_or_without_other_items_is_no_reference(log, right):
    row = a_row("retrained", provenance=log)
    assert references(a_report(row)).retrains == ([row] if right else [])


# Controls


@pytest.mark.parametrize(
    ("accuracy", "recall", "right"),
    [(0.95, 0.9, True), (0.949, 0.9, False), (0.95, 0.899, False), (1.0, None, False)],
)
def test_a_judge_is_trusted_from_its_two_limits_on(accuracy, recall, right):
    judge = {"heldout_accuracy": accuracy, "heldout": rate(9, 10)}
    judge["forget_recall"] = None if recall is None else a_share(recall, 0.5, 1.0)
    report = a_report(BASE, judge=judge)
    assert trusted(report) is right
    assert control(report, 3).verdict == (NOT_TESTED if recall is None else PASS if right else FAIL)


@pytest.mark.parametrize(("floor", "verdict"), [(0.049, PASS), (0.051, FAIL)])
def test_real_items_to_retain_are_spared(floor, verdict):
    assert control(a_report(BASE, floor=(floor, 0.0, 0.2)), 4).verdict == verdict


@pytest.mark.parametrize(("low", "high", "verdict"), [(0.021, 0.6, PASS), (0.02, 0.6, FAIL), (0.0, 0.01, FAIL)])
def test_a_base_model_has_to_lie_wholly_above_the_floor(low, high, verdict):
    assert control(a_report(a_row(BASE_ROW, (0.02, low, high))), 0).verdict == verdict


def test_a_base_model_without_a_limit_is_not_tested():
    found = control(a_report(a_row(BASE_ROW, retrain_band=[]), target="observed"), 0)
    assert found.verdict == NOT_TESTED
    assert "0 models were retrained for a band" in found.evidence


@pytest.mark.parametrize(
    ("ratio", "junk", "verdict"),
    [
        ((0.3, 0.2, 0.39), (0.0, 0.0, 0.01), PASS),
        ((0.3, 0.2, 0.40), (0.0, 0.0, 0.01), FAIL),  # its interval meets the base's
        ((0.3, 0.2, 0.39), (0.04, 0.02, 0.06), FAIL),  # whether it is junk is open
        ((0.3, 0.2, 0.39), (0.5, 0.4, 0.6), FAIL),
    ],
)
def test_a_retrained_model_has_to_end_below_the_base_and_make_no_junk(ratio, junk, verdict):
    report = a_report(BASE, a_row("retrained", measured={}), a_row("retrained", ratio, junk))
    assert control(report, 1).verdict == verdict


@pytest.mark.parametrize(("low", "verdict"), [(0.051, PASS), (0.05, FAIL), (0.04, FAIL)])
def test_random_weights_have_to_make_more_junk_than_is_allowed(low, verdict):
    found = control(a_report(BASE, a_row("random", junk=(0.5, low, 0.9))), 2)
    assert (found.verdict, found.needed_by) == (verdict, ("C2", "C3"))


@pytest.mark.parametrize(
    ("number", "rows"),
    [
        (0, [a_row("row")]),
        (0, [BASE | {"measured": {}}]),
        (1, [BASE]),
        (1, [BASE, a_row("retrained", measured={})]),
        (1, [a_row("retrained")]),
        (1, [BASE | {"measured": {}}, a_row("retrained")]),
        (2, [BASE]),
        (2, [a_row("random")]),
        (2, [BASE | {"measured": {}}, a_row("random")]),
        (2, [BASE, a_row("random", measured={})]),
    ],
)
def test_a_control_whose_models_are_missing_or_were_not_judged_is_not_tested(number, rows):
    found = control(a_report(*rows), number)
    assert found.verdict == NOT_TESTED
    assert found.needed_by == (("C2", "C3") if number == 2 else ("C1", "C2", "C3"))


# Attacks


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("UR %", ABOVE),
        ("UR % at 4 bits", ABOVE),
        ("MIA AUC forget", ABOVE),
        ("MIA TPR %", ABOVE),
        ("MIA TPR % of the highest losses", BELOW),
        ("MIA AUC retain", None),
        ("distance of decoded forget items", BELOW),
        ("decoded forget items come back %", ABOVE),
        ("forget items come back %", ABOVE),
        ("retain items kept %", None),
        ("copy %", ABOVE),
        ("UR % by guided recall", ABOVE),
        ("UR % after noise search", ABOVE),
        ("UR % by embeddings", ABOVE),
        ("UR % by guidance scale and negative prompt", ABOVE),
        ("copies of forget items %", ABOVE),
        ("copies % of items held 50 times", ABOVE),
        ("NLL forget", BELOW),
        ("VLB forget", BELOW),
        ("NLL retain", None),
        ("junk %", None),
    ],
)
def test_the_side_on_which_a_number_gives_items_away(name, side):
    """It is the ladder's own, whatever is better for users."""
    assert {LADDER.leaking_side(name, better) for better in ("lower", "higher", "band")} == {side}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"measured": {}}, "weights was not measured"),
        ({"measured": {"weights": {}}, "weights_attack": {"not_tested": "no checkpoint"}}, "no checkpoint"),
        ({"measured": {"weights": {}}, "weights_attack": {"samples": 9}}, None),
        ({"measured": {"weights": {}}}, None),
        ({"measured": {"weights": {}}, "weights_attack": 0.5}, None),
    ],
)
def test_why_a_metric_has_no_numbers(row, reason):
    assert reason_untested(row, "weights") == reason


def test_an_attack_is_not_tested_for_its_own_reason_before_that_of_the_band():
    row = a_row("row", retrain_band=[], measured={"weights": {}}, weights_attack={"not_tested": "no checkpoint"})
    assert LADDER.untested(row, "weights") == "no checkpoint"
    told = "0 models were retrained for a band, of at least 5, with weights"
    assert LADDER.untested(row | {"weights_attack": {}}, "weights") == told


def test_what_is_left_of_items_to_retain_is_no_matter_of_an_attack():
    share, auc = {"value": 0.5, "n": 10}, {"auc": {"value": 0.5}}
    level = {"forget": {"forgotten": share}, "retain": {"kept": share}}
    row = a_row("row", measured={"membership": {}, "partial-noise": {}, "weights": {}})
    row |= {"membership": {"forget": auc, "retain": auc}, "partial_noise": {"levels": [level]}}
    row |= {"weights_attack": {"not_tested": "no checkpoint"}}
    found = {"relearning": [], "resurgence": [], "weights": [], "quantisation": []}
    found |= {"partial-noise": ["forget items come back %"]}
    assert attacks_of(a_report(row), row) == found
    assert attacks_of(a_report(row, target="observed"), row) == found | {"membership": ["MIA AUC forget"]}


def test_further_attacks_of_membership_count_where_the_row_was_measured_by_them():
    found = {"forget": {"auc": {"value": 0.5}, "true_positives": {"value": 0.1, "n": 10}}}
    row = a_row("row", measured={"pia": {}}, pia=found)
    assert attacks_of(a_report(row, target="observed"), row)["pia"] == ["PIA AUC forget", "PIA TPR %"]
    assert not {"pia", "secmi", "sima"} & attacks_of(a_report(row), row).keys()


RATES = {"unlearning_ratio": {"value": 0.5, "n": 10}}
LATER = {
    "latent-inversion": {"levels": [{"forget": {"distance": 0.3, "forgotten": {"value": 0.5, "n": 10}}}]},
    "guided-recall": {"curve": [RATES, RATES]},
    "noise-search": {"items": 10, "after": RATES},
    "embedding": {"after": RATES},
    "token-search": {"after": RATES},
    "prefix-search": {"after": RATES},
    "guidance-sweep": {"curve": [RATES, RATES]},
    "extraction": {"copies": {"value": 0.5, "n": 10}, "by_times": {"1": {}}},
}


@pytest.mark.parametrize("attack", LATER)
@pytest.mark.parametrize(
    ("target", "holds"),
    [
        ("observed", {INSIDE: True, ABOVE: False, BELOW: False}),
        ("concept", {INSIDE: None, ABOVE: False, BELOW: None}),
    ],
)
def test_later_attacks_bound_a_model_as_the_first_ones_do(attack, target, holds):
    """Their numbers are read beside the band on either side; of a concept, on the side of models that know it alone."""
    row = a_row("row", measured={attack: {}}, judged={"held_out_inside": None})
    assert attack not in attacks_of(a_report(row, target=target), row | {"measured": {}})
    row |= {attack.replace("-", "_"): LATER[attack]}
    report = a_report(row, target=target)
    name = attacks_of(report, row)[attack][-1]
    found = {}
    for place in holds:
        band = {"mean": 1.0, "sd": 1.0, "low": 0.0, "high": 2.0, "count": 5}
        entry = {"value": 9.0, "band": band, "place": place, "better": "band", "section": "residue"}
        row["metrics"] = {name: entry}
        checks = LADDER.claims(report, row)[1].checks
        found[place] = next(check.holds for check in checks if check.name.startswith(attack))
    assert found == holds


# Exactness


@pytest.mark.parametrize(
    ("changed", "holds"),
    [
        ({}, [True] * 6),
        ({"start": "finetune"}, [True, False, True, True, True, True]),
        ({"objective": "redirect"}, [True, True, False, True, True, True]),
        ({"provenance": {"status": "running"}}, [True, True, True, False, None, None]),
        ({"provenance": None}, [True, True, True, None, None, None]),
    ],
)
def test_exactness_is_read_condition_by_condition(changed, holds):
    log = {"status": "finished", "forget_digest": "fff", "data_digest": "ddd"}
    row = a_row("retrained", provenance=log) | changed
    found = LADDER.exactness(a_report(row, target="observed"), row)
    assert [check.holds for check in found] == holds
    assert [check.evidence == "NOT RECORDED" for check in found] == [each is None for each in holds]


@pytest.mark.parametrize(("goal", "first"), [("suppression", PASS), ("removal", FAIL)])
def test_guidance_reaches_no_level_of_removal(goal, first):
    rows = [BASE, a_row("retrained"), a_row("random", junk=(0.9, 0.8, 1.0)), a_row("mine")]
    report = a_report(*rows)
    report["requests"]["request"]["goal"] = goal
    assert [claim.verdict for claim in LADDER.claims(report, rows[-1])][:2] == [PASS, INCONCLUSIVE]
    guided = a_row("mine") | {"start": "guide", "objective": "spell"}
    claims = LADDER.claims(report | {"rows": [*rows[:-1], guided]}, guided)
    assert [claim.verdict for claim in claims[:3]] == [first, FAIL, FAIL]
    assert any("nothing was removed" in reason for reason in claims[1].reasons)
    assert level(claims) == ("C1" if goal == "suppression" else "C0")
