"""Rows judged against retrained models: inside, too few to tell, no effect, shares of time, and reports of old."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from msgm.study.band import LEAST, Band, joint_false_alarms
from msgm.study.judging import (
    ABOVE,
    BELOW,
    INSIDE,
    NO_EFFECT,
    TOO_FEW,
    Criteria,
    beside_band,
    judge,
    judged_note,
    means,
    place_of,
    shown_limits,
    upgraded,
)
from msgm.study.parts import NONNEGATIVE, UNIT

CRITERIA = Criteria(
    keys=("request",),
    sides=((r"_auc$", ABOVE),),
    repeated=r"_gap$",
    size="n",
    retraining="retrain_seconds",
    effect=("a", "b_auc"),
)
BAND = Band(mean=0.5, sd=0.1, count=5)


def report_of(rows, **asked):
    return {"rows": rows, "requests": {"few": {"n": 30} | asked}}


def row_of(per_seed, models, method="edit", **facts):
    summary = means(per_seed)
    return {
        "method": method,
        "request": "few",
        "seconds": 2.0,
        "retrain_seconds": 8.0,
        "metrics": {name: entry | {"better": "band", "section": "privacy"} for name, entry in summary.items()},
        "per_seed": [{"seed": k, "metrics": tree} for k, tree in enumerate(per_seed)],
        "retrain_band": [{"retrain": k, "of": 1, "metrics": tree} for k, tree in enumerate(models)],
    } | facts


def draws(rng, count, names=("a", "b_auc", "c"), shift=0.0):
    return [{name: float(rng.normal(0.5 + shift, 0.1)) for name in names} for _ in range(count)]


def judged(per_seed, models, **facts):
    return judge(report_of([row_of(per_seed, models, **facts)]), CRITERIA)["rows"][0]


@pytest.mark.parametrize(("seeds", "count", "m"), [(1, 5, 1), (3, 5, 4), (2, 8, 10)])
def test_a_further_retrained_model_is_inside_in_all_numbers_as_often_as_stated(seeds, count, m):
    rng, n = np.random.default_rng(0), 20_000
    models, rows = rng.normal(size=(n, m, count)), rng.normal(size=(n, m, seeds)).mean(2)
    bands = np.stack([models.mean(2), models.std(2, ddof=1)], axis=2)
    whole = [
        all(place_of(v, Band(*b, count), seeds, m, 0.0) == INSIDE for v, b in zip(values, of_row, strict=True))
        for values, of_row in zip(rows, bands, strict=True)
    ]
    assert 1 - np.mean(whole) == pytest.approx(joint_false_alarms(m), abs=0.005)


def test_a_row_is_judged_by_the_mean_of_its_seeds_together_with_its_other_numbers():
    rng = np.random.default_rng(1)
    models = draws(rng, 5)
    row = judged(draws(rng, 3), models)
    band = Band(*(f([tree["a"] for tree in models]) for f in (np.mean, lambda v: np.std(v, ddof=1))), 5)
    found = row["metrics"]["a"]
    assert (found["band"]["low"], found["band"]["high"]) == pytest.approx(band.limits(3, 3))
    assert found["noticed"] == pytest.approx(band.smallest_shift(3, 3))
    assert (row["judged"]["numbers"], row["judged"]["retrains"]) == (3, 5)
    assert row["judged"]["false_alarms"] == joint_false_alarms(3)


@pytest.mark.parametrize(("shift", "place"), [(0.0, INSIDE), (2.0, ABOVE), (-2.0, BELOW)])
def test_a_place_is_told(shift, place):
    rng = np.random.default_rng(2)
    models = draws(rng, 6)
    found = judged([{"a": models[0]["a"] + shift}], models)["metrics"]["a"]
    assert (found["place"], found["inside"]) == (place, place == INSIDE)


def test_retrained_models_left_out_in_turn_are_counted():
    models = [{"a": value} for value in (0.50, 0.51, 0.52, 0.53, 5.0)]
    for order in (models, models[::-1]):
        assert judged([{"a": 0.5}], order)["judged"]["held_out_inside"] == 4
    assert judged([{"a": 0.5}], [*models[:4], {"a": 0.54}])["judged"]["held_out_inside"] == 5
    assert judged([{"a": 0.5}], [{"a": 0.5}] * 5)["judged"]["held_out_inside"] is None


@pytest.mark.parametrize(("share", "inside"), [(0.99, 5), (1.01, 4)])
def test_a_model_left_out_is_one_value_beside_the_others(share, inside):
    others = [0.0, 1.0, 2.0, 3.0]
    last = 1.5 + share * Band(1.5, float(np.std(others, ddof=1)), 4).half_width(1, 1)
    assert judged([{"a": 1.0}], [{"a": value} for value in [*others, last]])["judged"]["held_out_inside"] == inside


@pytest.mark.parametrize(("share", "inside"), [(0.99, 5), (1.01, 4)])
def test_a_model_left_out_is_judged_by_all_numbers_together_too(share, inside):
    """With two numbers: a limit that is corrected for both, 4.18 deviations of four others instead of 3.18."""
    others = [0.0, 1.0, 2.0, 3.0]
    last = 1.5 + share * Band(1.5, float(np.std(others, ddof=1)), 4).half_width(1, 2)
    models = [{"a": value, "b_auc": float(k)} for k, value in zip((2, 1, 3, 0, 2), [*others, last], strict=True)]
    assert judged([{"a": 1.0, "b_auc": 1.0}], models)["judged"]["held_out_inside"] == inside


def test_fewer_than_five_retrained_models_give_numbers_without_verdicts():
    models = draws(np.random.default_rng(3), LEAST - 1)
    row = judged([models[0]], models)
    assert {entry["inside"] for entry in row["metrics"].values()} == {None}
    assert row["judged"]["numbers"] == 0
    assert judged_note(row, {}) == "4 of at least 5 retrained models: numbers stand here without verdicts."


def test_the_side_of_models_that_know_is_the_first_that_is_named_else_the_worse_one():
    criteria = replace(CRITERIA, sides=((r"_auc$", ABOVE), (r"^b", None)))
    known = {name: criteria.leaking_side(name, "higher") for name in ("b_auc", "b", "a")}
    assert known == {"b_auc": ABOVE, "b": None, "a": BELOW}
    assert [criteria.leaking_side("a", better) for better in ("lower", "band")] == [ABOVE, None]


def test_a_row_is_read_beside_the_original_of_its_own_request():
    models = draws(np.random.default_rng(4), 5)
    rows = [row_of(models[:1], models, method="do-nothing", request=name) for name in ("many", "few")]
    row = row_of(models[:1], models)
    assert CRITERIA.original_of({"rows": [*rows, row]}, row) is rows[1]
    assert CRITERIA.original_of({"rows": [rows[0], row]}, row) is None


def test_numbers_that_are_the_same_for_all_models_and_those_said_twice_are_not_judged():
    models = [tree | {"same": 1.0, "a_gap": tree["a"]} for tree in draws(np.random.default_rng(4), 5)]
    row = judged([models[0]], models)
    assert [name for name, entry in row["metrics"].items() if entry["place"] is None] == ["same", "a_gap"]
    assert judged([models[0] | {"same": 0.5}], models)["metrics"]["same"]["place"] == BELOW
    assert row["metrics"]["a_gap"]["noticed"] is None
    shown = row["metrics"]["a_gap"]["band"]  # at the level of one number
    assert shown["high"] == pytest.approx(Band(shown["mean"], shown["sd"], 5).limits(1, 1)[1])


def test_a_number_that_a_row_could_not_be_given_is_not_inside():
    models = draws(np.random.default_rng(4), 5)
    row = judged([models[0] | {"c": None}], models)
    entry = row["metrics"]["c"]
    assert (row["judged"]["numbers"], entry["place"], entry["inside"]) == (3, "no value", False)
    assert beside_band(entry).startswith("no value; retrained models")


COUNTS = [{"a": value} for value in (0.0, 0.1, 0.2, 0.1, 0.1)]


def counting(value, models, step, criteria=CRITERIA, **facts):
    """A row whose number moves in steps, judged; the request's size is not known."""
    row = row_of([{"a": value}], models, **facts)
    row["metrics"]["a"]["step"] = step
    return judge(report_of([row], n=None), criteria)["rows"][0]


@pytest.mark.parametrize(("beyond", "place"), [(0.099, INSIDE), (0.101, ABOVE)])
def test_the_band_of_a_number_that_counts_things_is_a_step_wider_at_either_side(beyond, place):
    band = Band(0.1, 0.005**0.5, 5)
    low, high = band.limits()
    above, below = (counting(value, COUNTS, 0.1)["metrics"]["a"] for value in (high + beyond, low - beyond))
    assert (above["place"], below["place"]) == (place, {ABOVE: BELOW}.get(place, place))
    assert (above["band"]["low"], above["band"]["high"]) == pytest.approx((low - 0.1, high + 0.1))
    assert above["noticed"] == pytest.approx(band.smallest_shift() + 0.1)  # of shifts within it nothing is noticed
    assert counting(high + 0.001, COUNTS, 0.0)["metrics"]["a"]["place"] == ABOVE
    slack = counting(high + beyond, COUNTS, 0.1, replace(CRITERIA, slack=0.2))["metrics"]["a"]
    assert (slack["place"], slack["noticed"]) == (INSIDE, pytest.approx(band.smallest_shift() + 0.2))
    assert (slack["band"]["low"], slack["band"]["high"]) == pytest.approx((low - 0.2, high + 0.2))


@pytest.mark.parametrize(("step", "slack", "inside"), [(0.0, 0.0, 4), (0.05, 0.0, 4), (0.1, 0.0, 5), (0.0, 0.1, 5)])
def test_a_model_left_out_may_lie_a_step_beyond_the_others_too(step, slack, inside):
    models = [{"a": value} for value in (0.0, 0.0, 0.1, 0.0, 0.0)]
    row = row_of([{"a": 0.0}], models) | {
        "retrain_band": [{"retrain": k, "metrics": m} for k, m in enumerate(models, 1)]
    }
    row["metrics"]["a"]["step"] = step
    found = judge(report_of([row], n=None), replace(CRITERIA, slack=slack))["rows"][0]["judged"]
    assert found["held_out_inside"] == inside
    assert found["held_out_outside"] == ({} if inside == 5 else {"3": ["a"]})


@pytest.mark.parametrize(("share", "place"), [(0.99, INSIDE), (1.01, ABOVE)])
def test_the_band_of_a_mean_over_pairs_is_wider_for_rows_and_as_wide_for_models_left_out(share, place):
    models = [{"a": value} for value in (0.0, 1.0, 2.0, 3.0, 4.0)]
    row = row_of([{"a": 2.0 + share * 4 / 3 * Band(2.0, 2.5**0.5, 5).half_width()}], models)
    row["metrics"]["a"]["pairs"] = True
    assert judge(report_of([row], n=None), CRITERIA)["rows"][0]["metrics"]["a"]["place"] == place
    last = 1.5 + share * Band(1.5, float(np.std([0, 1, 2, 3], ddof=1)), 4).half_width()
    row = row_of([{"a": 2.0}], [*models[:4], {"a": last}])
    row["metrics"]["a"]["pairs"] = True
    found = judge(report_of([row], n=None), CRITERIA)["rows"][0]["judged"]
    assert found["held_out_inside"] == (5 if place == INSIDE else 4)


def test_of_the_models_left_out_those_on_either_side_are_named_with_their_numbers():
    """With two numbers judged together; one that cannot be told, or that a model lacks, is not outside."""
    calm = [{"a": 0.50 + k / 100, "b_auc": 0.50 + k / 50, "c_auc": 0.0} for k in range(6)]
    calm[1] |= {"a": 5.0}
    calm[2] |= {"b_auc": -5.0}
    calm[3] |= {"b_auc": None}
    calm[4] |= {"c_auc": 0.1}  # of 30 things, no further from the others' 0 than three may be
    found = judged([{"a": 0.5, "b_auc": 0.5, "c_auc": 0.0}], calm)
    assert found["judged"]["held_out_outside"] == {"1": ["a"], "2": ["b_auc"]}
    assert found["judged"]["held_out_inside"] == 4
    note = judged_note(found, {"a": ("A", 100), "c_auc": ("C", 1), "absent": ("D", 1)})
    assert "4 of 6 have all inside (outside: 1: a; 2: b_auc). Smallest shift noticed in 80 of 100 cases: A " in note
    assert f"A {100 * found['metrics']['a']['noticed']:.2g}, C {found['metrics']['c_auc']['noticed']:.2g}." in note
    earlier = {key: value for key, value in found["judged"].items() if key != "held_out_outside"}
    assert judged_note(found | {"judged": earlier}, {}).endswith("4 of 6 have all inside.")


def test_where_all_models_and_the_row_agree_nothing_is_judged():
    row = judged([{"a": 0.5}], [{"a": 0.5}] * 5)
    assert judged_note(row, {}) == (
        "No number differs between the original, the retrained models and the row: nothing is judged."
    )


@pytest.mark.parametrize(("value", "place"), [(0.0, INSIDE), (3 / 30, TOO_FEW), (3 / 30 + 0.01, ABOVE)])
def test_a_band_without_width_tells_nothing_of_a_value_within_three_of_the_things_asked_for(value, place):
    models = [{"a_auc": 0.0, "b_auc": k / 10} for k in range(5)]
    row = row_of([{"a_auc": value, "b_auc": 0.2}], models)
    original = row_of([{"a_auc": 1.0, "b_auc": 0.2}], models, method="do-nothing")
    found = judge(report_of([row, original]), CRITERIA)["rows"][0]["metrics"]["a_auc"]
    assert (found["place"], found["noticed"]) == (place, None)
    assert found["inside"] == {TOO_FEW: None}.get(place, place == INSIDE)


@pytest.mark.parametrize(("size", "value", "place"), [(30, 0.95, TOO_FEW), (30, 0.85, BELOW), (None, 0.95, BELOW)])
def test_the_rule_of_three_is_about_the_distance_and_needs_the_requests_size(size, value, place):
    row = row_of([{"a_auc": value}], [{"a_auc": 1.0}] * 5)
    found = judge(report_of([row], n=size), CRITERIA)["rows"][0]["metrics"]["a_auc"]
    assert found["place"] == place


@pytest.mark.parametrize(("name", "section"), [("a_auc", "utility"), ("a_auc", "residue"), ("a", "forgetting")])
def test_the_rule_of_three_is_for_shares_of_the_request_alone(name, section):
    """Utility is measured on other items, and a distance, which gives models away on no side, is no share."""
    row = row_of([{name: 0.95}], [{name: 1.0}] * 5)
    row["metrics"][name]["section"] = section
    assert judge(report_of([row], n=30), CRITERIA)["rows"][0]["metrics"][name]["place"] == BELOW


def test_the_ends_of_a_band_belong_to_it_and_only_one_without_width_leaves_room_for_doubt():
    exact, narrow = Band(1.0, 0.0, 5), Band(1.0, 0.001, 5)
    assert place_of(1.0, exact, 1, 1, 0.0) == INSIDE
    assert [place_of(1.05, exact, 1, 1, 0.0, *unsure) for unsure in ((), (0.1,))] == [ABOVE, TOO_FEW]
    assert place_of(1.05, narrow, 1, 1, 0.0, 0.1) == ABOVE


def test_the_slack_of_a_domain_widens_the_band():
    assert place_of(BAND.limits()[1] + 0.01, BAND, 1, 1, 0.02) == INSIDE
    assert place_of(BAND.limits()[1] + 0.03, BAND, 1, 1, 0.02) == ABOVE


def effect_of(shift, seeds=3, method="edit"):
    rng = np.random.default_rng(5)
    models, plain = draws(rng, 5), draws(rng, seeds)
    mine = [{name: value + shift for name, value in tree.items()} for tree in draws(rng, seeds)]
    rows = [row_of(mine, models, method=method), row_of(plain, models, method="finetune")]
    return [row["effect"] for row in judge(report_of(rows), CRITERIA)["rows"]]


def test_a_row_that_is_not_told_from_fine_tuning_by_the_spread_of_seeds_has_no_effect():
    assert effect_of(0.0) == [NO_EFFECT, None]
    assert effect_of(3.0) == [None, None]
    assert effect_of(0.0, seeds=1) == [None, None]
    assert effect_of(0.0, method="retrain") == [None, None]


def test_a_number_that_could_not_be_taken_at_a_seed_is_an_effect():
    models = draws(np.random.default_rng(5), 5)
    plain = row_of(models[:3], models, method="finetune")
    for lost, effect in ((None, None), (models[2]["a"], NO_EFFECT)):
        row = row_of([*models[:2], models[2] | {"a": lost}], models)
        assert judge(report_of([row, plain]), CRITERIA)["rows"][0]["effect"] == effect


@pytest.mark.parametrize(("share", "effect"), [(0.99, NO_EFFECT), (1.01, None)])
def test_the_spread_of_seeds_is_pooled_over_both_rows(share, effect):
    """Variances 1 of three seeds and 4 of two are pooled to (2 * 1 + 1 * 4) / 3 = 2, with 3 degrees of freedom."""
    reach = stats.t.ppf(0.975, 3) * (2 * (1 / 3 + 1 / 2)) ** 0.5
    mine, plain = ([{"a": share * reach + z} for z in (-1, 0, 1)], [{"a": z} for z in (-(2**0.5), 2**0.5)])
    models = [{"a": float(k)} for k in range(5)]
    rows = [row_of(mine, models), row_of(plain, models, method="finetune")]
    assert judge(report_of(rows), CRITERIA)["rows"][0]["effect"] == effect


def test_alike_rows_are_told_apart_as_seldom_as_stated():
    rng, n, found = np.random.default_rng(6), 1000, 0
    models = draws(rng, 5)
    for _ in range(n):
        rows = [row_of(draws(rng, 3), models), row_of(draws(rng, 3), models, method="finetune")]
        found += judge(report_of(rows), CRITERIA)["rows"][0]["effect"] is None
    assert found / n == pytest.approx(1 - (1 - 0.05 / 2) ** 2, abs=0.017)


@pytest.mark.parametrize(
    ("facts", "asked", "share"),
    [
        ({}, {}, 0.25),
        ({"facts": {"answered": "one by one"}}, {"requests": 100}, 0.0025),
        ({"facts": {"answered": "at once"}}, {"requests": 100}, 0.25),
        ({"retrain_seconds": None}, {}, None),
        ({"seconds": None}, {}, None),
    ],
)
def test_the_share_of_retraining_is_that_of_one_request(facts, asked, share):
    models = draws(np.random.default_rng(7), 5)
    row = judge(report_of([row_of(models[:1], models, **facts)], **asked), CRITERIA)["rows"][0]
    assert row["share_of_retraining"] == (None if share is None else pytest.approx(share))


def test_an_earlier_versions_retrained_models_of_each_seed_make_one_mean_each():
    models = [{"retrain": k, "seed": seed, "metrics": {"a": k + seed / 10}} for seed in (0, 1) for k in range(5)]
    models += [{"retrain": 0, "seed": 9, "metrics": {"a": 99.0}}]  # of a seed that the row does not have
    row = row_of([{"a": 2.0}, {"a": 2.1}], []) | {"retrain_band": models}
    found = upgraded(report_of([row]), replace(CRITERIA, retrained_a_seed=True))["rows"][0]
    assert [model["metrics"]["a"] for model in found["retrain_band"]] == pytest.approx([0.05, 1.05, 2.05, 3.05, 4.05])
    band = found["metrics"]["a"]["band"]
    # A row of two seeds is one model of the kind that these means are: its limits are those of one.
    assert (band["low"], band["high"]) == pytest.approx(Band(band["mean"], band["sd"], 5).limits(1, 1))


def test_an_earlier_versions_retrained_models_that_are_the_same_for_all_seeds_are_one_each():
    models = [{"retrain": k, "seed": seed, "metrics": {"a": float(k)}} for seed in (0, 1) for k in range(5)]
    row = row_of([{"a": 2.0}, {"a": 2.1}], []) | {"retrain_band": models}
    found = upgraded(report_of([row]), CRITERIA)["rows"][0]
    assert [(model["of"], model["metrics"]["a"]) for model in found["retrain_band"]] == [(1, k) for k in range(5)]
    band = found["metrics"]["a"]["band"]
    assert (band["low"], band["high"]) == pytest.approx(Band(2.0, 2.5**0.5, 5).limits(2, 1))


def test_a_report_of_this_version_is_read_as_it_is():
    report = judge(report_of([row_of([{"a": 0.5}], draws(np.random.default_rng(8), 5))]), CRITERIA)
    assert report["schema"] == 2  # as reports on disk say
    assert upgraded(report, CRITERIA) is report


@pytest.mark.parametrize(
    ("bounds", "shown"),
    [(None, (-1.0, 2.0)), (UNIT, (0.0, 1.0)), (NONNEGATIVE, (0.0, 2.0)), ([0.0, None], (0.0, 2.0))],
)
def test_ends_are_shown_within_what_a_number_can_be(bounds, shown):
    assert shown_limits({"bounds": bounds}, {"low": -1.0, "high": 2.0}) == shown
