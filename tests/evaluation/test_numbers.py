"""A row's numbers over seeds beside the band of retrained models."""

import numpy as np
import pytest

from msgm.evaluation.band_table import NO_EFFECT, band_tables
from msgm.evaluation.claims import band_checks
from msgm.evaluation.metrics.unlearning_ratio import histogram_distance
from msgm.evaluation.numbers import Standing, band_facts, no_effect, over_seeds, standings
from msgm.study.band import Band, band_of

NAMES = ("UR %", "junk %", "NLL retain", "NLL forget")


def a_row(name, values, **facts):
    """A row of one tree of numbers a seed."""
    trees = [dict(zip(NAMES, each, strict=False)) for each in values]
    found = [{"seed": seed, "seconds": 2.0, "numbers": tree} for seed, tree in enumerate(trees)]
    return {"name": name, "start": "finetune", "seconds": 2.0, "measured": {}, "per_seed": found} | facts


def a_report(rows, models):
    retrains = [a_row(f"retrained-{k}", [model]) for k, model in enumerate(models, 1)]
    request = {"target": "observed"}
    return {"seed": 0, "seeds": [0, 1, 2], "rows": rows, "retrains": retrains, "request": request, "failed": {}}


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_further_retrained_model_passes_c3_at_the_stated_rate(seeds):
    """Four independent numbers judged together: 1 - (1 - .05/4)^4 = .0491 fail."""
    draws, passed, trials = np.random.default_rng(0), 0, 3000
    for _ in range(trials):
        row = a_row("row", draws.normal(size=(seeds, 4)).tolist())
        checks = band_checks(a_report([row], draws.normal(size=(5, 4)).tolist()), row)
        passed += all(check.holds for check in checks)
    assert passed / trials == pytest.approx(0.951, abs=0.012)


def test_a_model_shifted_by_the_smallest_shift_fails_in_80_of_100_cases():
    draws, failed, trials = np.random.default_rng(0), 0, 3000
    shift = band_of([-1.0, 1.0, 0, 0, 0]).smallest_shift(2) / band_of([-1.0, 1.0, 0, 0, 0]).sd
    for _ in range(trials):
        row = a_row("row", (draws.normal(size=(2, 1)) + shift).tolist())
        failed += not all(
            check.holds for check in band_checks(a_report([row], draws.normal(size=(5, 1)).tolist()), row)
        )
    assert failed / trials == pytest.approx(0.8, abs=0.025)


def test_the_mean_over_seeds_is_judged_and_has_its_interval():
    models = [[value] for value in (8.0, 9.0, 10.0, 11.0, 12.0)]
    row = a_row("row", [[12.0], [13.0], [14.0]])
    found = standings(a_report([row], models), row)["UR %"]
    assert (found.value, found.seeds, found.side) == (13.0, 3, "inside")
    assert found.limits == pytest.approx([10 - 3.2054, 10 + 3.2054], abs=1e-3)  # 2.7764 * sqrt(2.5 * (1/3 + 1/5))
    assert found.high - found.value == pytest.approx(4.3027 / 3**0.5, abs=1e-3)
    assert standings(a_report([], models), a_row("row", [[13.3]] * 3))["UR %"].side == "above"


def test_a_number_stands_beside_its_band_in_words_and_in_the_report():
    one = Standing("UR %", 2.5, None, None, 1, Band(2.0, 0.5, 5), 1, 0.0)
    assert one.text() == "2.5 beside 0.5 to 3.5 of 5 retrained models; a shift of 2.1 would have been noticed"
    two = Standing("NLL retain", 2.5, 2.0, 3.0, 2, None, 1, 0.0)
    assert (two.text(), two.tree()["band"]) == ("2.50 over 2 seeds", None)
    assert Standing("UR %", None, None, None, 2, None, 1, 0.0).text() == "no value over 2 seeds"
    tree = one.tree()["band"]
    assert (tree["low"], tree["high"], tree["smallest_shift"]) == (*one.limits, one.smallest_shift)


def test_seeds_of_one_name_make_one_row():
    rows = [{"name": name, "seed": seed, "measured": {}} for seed in (0, 1) for name in ("a", "b")]
    found = over_seeds(rows, {})
    assert [(row["name"], [part["seed"] for part in row["per_seed"]]) for row in found] == [
        ("a", [0, 1]),
        ("b", [0, 1]),
    ]


def test_one_sample_beyond_a_band_without_width_is_inside():
    model = {"measured": {"ur": {}}, "unlearning_ratio": {"n": 1000}}
    models = [a_row(f"retrained-{k}", [[0.0]], **model) for k in range(5)]
    report = a_report([], []) | {"retrains": models}
    assert standings(report, a_row("row", [[0.1]], **model))["UR %"].side == "inside"
    assert standings(report, a_row("row", [[0.11]], **model))["UR %"].side == "above"
    assert standings(report, a_row("row", [[0.1]], **model))["UR %"].ends() == "0.0 to 0.1"


def test_a_number_that_a_retrained_model_lacks_is_not_judged():
    models = [[1.0, 2.0], [1.1, 2.1], [1.2, None], [1.0, 2.0], [1.1, 2.2]]
    row = a_row("row", [[1.0, 99.0]])
    found = standings(a_report([row], models), row)
    assert (found["UR %"].judged, found["junk %"].side) == (1, None)


def test_a_row_that_diverged_at_a_seed_is_not_inside():
    row = a_row("row", [[1.0], [None]])
    report = a_report([row], [[1.0], [1.1], [1.2], [0.9], [1.0]])
    assert standings(report, row)["UR %"].side == "no value"
    assert band_checks(report, row)[1].holds is False


def test_held_out_models_are_judged_by_the_others():
    models = [[1.0], [1.1], [0.9], [1.05], [60.0]]
    facts = band_facts(a_report([], models))
    assert facts["left_out"] == {"retrained-5": ["UR %"]}
    assert (facts["retrained"], facts["judged"], facts["false_alarms"]) == (5, ["UR %"], pytest.approx(0.05))
    assert band_facts(a_report([], models[:4])) is None


PLAIN = a_row("unseen", [[5.0, 1, 1, 3.0], [7.0, 1, 1, 3.2], [6.0, 1, 1, 3.1]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[5.5, 1, 1, 3.1], [6.6, 1, 1, 3.1], [6.1, 1, 1, 3.1]], True),
        ([[0.2, 1, 1, 3.1], [0.1, 1, 1, 3.1], [0.3, 1, 1, 3.1]], False),
        ([[5.5, 1, 1, 6.0], [6.6, 1, 1, 6.3], [6.1, 1, 1, 6.1]], False),
        ([[5.0, 9, 9, 3.0], [7.0, 9, 9, 3.2], [6.0, 9, 9, 3.1]], True),
        ([[5.5, 1, 1, 3.1], [6.6, 1, 1, 3.1]], False),
        ([[5.5, 1, 1, 3.1], [6.6, 1, 1, 3.1], [6.1, 1, 1, None]], False),
    ],
)
def test_a_row_like_plain_fine_tuning_has_no_effect(values, expected):
    row = a_row("redirect", values)
    assert no_effect(a_report([PLAIN, row], []), row) is expected
    assert not no_effect(a_report([PLAIN, row], []), PLAIN)
    retrained = row | {"start": "scratch"}
    assert not no_effect(a_report([PLAIN, retrained], []), retrained)


def test_the_table_says_where_each_number_lies_and_what_the_band_is_worth():
    models = [[1.0, 2.0], [1.1, 2.1], [1.2, 2.2], [1.0, 2.0], [1.1, 2.2]]
    rows = [a_row("unseen", [[1.0, 2.0], [1.1, 2.1], [1.2, 2.2]]), a_row("redirect", [[0.0, 9.0]] * 3)]
    ((title, headings, lines, notes),) = band_tables(a_report(rows, models))
    assert title == "Over 3 seeds, beside 5 retrained models"
    assert headings == ["row", "seeds", "seconds", "UR %", "junk %", "verdict"]
    assert lines[0] == ["unseen", "3", "2", "1.1 ± 0.2 in", "2.1 ± 0.2 in", "2 of 2 inside"]
    assert lines[1] == ["redirect", "3", "2", "0.0 ± 0.0 below", "9.0 ± 0.0 above", "0 of 2 inside"]
    assert [line[0] for line in lines[2:]] == [
        "retrained models, mean",
        "band, for a mean of 3 seeds",
        "smallest shift noticed",
    ]
    assert lines[3][3] == "0.9 to 1.3"
    assert any("0 of 5 lie outside" in note and "5 of 100" in note.replace("\n", " ") for note in notes)
    assert not any(NO_EFFECT in note for note in notes)


def test_few_retrained_models_give_numbers_without_verdicts():
    ((title, _, lines, notes),) = band_tables(a_report([a_row("unseen", [[1.0]] * 3)], [[1.0], [1.1]]))
    assert title == "Over 3 seeds, beside 2 retrained models"
    assert lines == [["unseen", "3", "2", "1.0 ± 0.0", ""], ["retrained models, mean", "2", "2", "1.1", ""]]
    assert "2 models retrained for a band; 5 are needed for verdicts." in notes


def test_one_seed_without_retrained_models_has_no_such_table():
    assert band_tables(a_report([a_row("unseen", [[1.0]])], []) | {"seeds": [0]}) == []


def test_class_distance_is_total_variation_without_junk():
    real = {"0": 5, "1": 5, "none": 9}
    assert histogram_distance({"0": 2, "1": 2, "none": 7}, real) == 0
    assert histogram_distance({"0": 4, "1": 0, "none": 0}, real) == 50
    assert histogram_distance({"0": 0, "1": 0, "none": 4}, real) is None
