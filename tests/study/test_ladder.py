"""The ladder on a small domain: how often a retrained model passes, and what breaks each rule."""

from dataclasses import replace

import numpy as np
import pytest

from msgm.cards.claims import FAIL, INCONCLUSIVE, NOT_TESTED, PASS, Check
from msgm.cards.words import WRONG_REFERENCE
from msgm.study.band import band_of
from msgm.study.judging import ABOVE, BELOW, INSIDE, NO_VALUE, TOO_FEW, judge
from msgm.study.ladder import by_reference, is_inside, recorded
from tests.study.things import LADDER, edited, report_of, row_of


def verdicts(report):
    return {claim.level: claim.verdict for claim in LADDER.claims(report, report["rows"][1])}


def test_a_true_retrained_model_passes_as_often_as_stated_and_the_controls_hold():
    rng, n = np.random.default_rng(0), 600
    found = [verdicts(report_of(rng)) for _ in range(n)]
    shares = {level: np.mean([of_one[level] == PASS for of_one in found]) for level in ("C1", "C2", "C3")}
    # At most 5% for all numbers together; C1 has in addition "not flagged", uncorrected, and the two controls.
    assert 0.9 <= shares["C3"] <= shares["C2"] <= shares["C1"] <= 1


@pytest.mark.parametrize(
    ("numbers", "level"),
    [
        ({"seen": 0.9}, "C0"),  # it knows what it was asked to forget
        ({"use": 0.1}, "C0"),  # useless
        ({"rate_auc": 0.9, "tail": 0.1}, "C0"),  # flagged by the rule that has to flag the original
        ({"rate_auc": 0.9}, "C1"),  # the attack sees it, as it would see one that knows
        ({"tail": 0.9}, "C1"),  # the attack sees it on the side of models that never saw the items
        ({"use": 0.9}, "C2"),  # more useful than retrained models, by which it is told from them
        ({"seen": 0.1}, "C2"),  # behaves better than retrained models, by which it is told from them
    ],
)
def test_what_breaks_a_level(numbers, level):
    report = report_of(np.random.default_rng(1), **numbers)
    reached = [name for name, verdict in verdicts(report).items() if verdict == PASS]
    assert max(reached, default="C0") == level


def test_an_attack_says_on_which_side_it_lies():
    for value, words in ((0.9, "looks more like a member"), (0.1, "looks more like a non-member")):
        report = report_of(np.random.default_rng(1), rate_auc=value)
        bounded = LADDER.claims(report, report["rows"][1])[1]
        assert any(words in check.evidence for check in bounded.checks if check.holds is False)


def test_a_row_that_nobody_told_apart_keeps_its_claims_where_fewer_than_five_models_stand_open():
    assert verdicts(report_of(np.random.default_rng(2), retrains=4)) == {
        "C1": INCONCLUSIVE,
        "C2": INCONCLUSIVE,
        "C3": INCONCLUSIVE,
        "C4": FAIL,
        "C5": FAIL,
    }


def test_for_a_concept_closeness_to_retrained_models_shows_nothing_but_distance_still_fails():
    near, far = (report_of(np.random.default_rng(3), target="concept", knows=knows) for knows in (0.0, 0.5))
    assert (verdicts(near)["C3"], verdicts(far)["C1"]) == (INCONCLUSIVE, FAIL)


def test_controls_that_fail_leave_everything_open():
    report = report_of(np.random.default_rng(4))
    report["rows"][0] = report["rows"][1] | {"method": "do-nothing"}
    assert [control.verdict for control in LADDER.controls(report, report["rows"][1])] == [FAIL, PASS]
    assert {verdicts(report)[level] for level in ("C1", "C2", "C3")} == {INCONCLUSIVE}
    report["rows"].pop(0)
    assert LADDER.controls(report, report["rows"][0])[0].verdict == NOT_TESTED


def check_of(report, row, level, words, ladder=LADDER):
    (claim,) = [claim for claim in ladder.claims(report, row) if claim.level == level]
    (found,) = [check for check in claim.checks if words in check.name]
    return found


def test_what_cannot_be_told_leaves_the_band_open_but_one_number_outside_still_fails():
    report = report_of(np.random.default_rng(1))
    unsure, out = {"place": TOO_FEW, "inside": None}, {"place": ABOVE, "inside": False}
    found = [
        check_of(report, edited(report, **numbers), "C3", "inside the band")
        for numbers in ({}, {"seen": unsure}, {"seen": out}, {"seen": unsure, "tail": out})
    ]
    assert [(check.holds, check.unknown) for check in found] == [
        (True, ""),
        (None, TOO_FEW),
        (False, ""),
        (False, ""),
    ]
    assert [check.evidence[:13] for check in found] == [f"{n} of 4 outside"[:13] for n in (0, 0, 1, 1)]


def test_an_attack_counts_its_numbers_and_what_cannot_be_told_leaves_it_open():
    report = report_of(np.random.default_rng(1))
    unsure = check_of(report, edited(report, tail={"place": TOO_FEW, "inside": None}), "C2", "tail")
    assert (unsure.holds, unsure.evidence) == (None, f"0 of 1 numbers outside; tail: {TOO_FEW}")
    assert check_of(report, edited(report), "C2", "tail").evidence == "0 of 1 numbers outside"


def test_attacks_that_were_not_run_leave_c2_open():
    report = report_of(np.random.default_rng(1))
    row = report["rows"][1]
    absent = replace(LADDER, attacks=lambda report, row: {"some_attack": ["none", "use"]})
    assert check_of(report, edited(report, use={"band": None}), "C2", "some attack", absent) == Check(
        "some attack: no number outside the band", None, f"{NOT_TESTED}: some_attack"
    )
    none = replace(LADDER, attacks=lambda report, row: {})
    assert none.claims(report, row)[1].verdict == INCONCLUSIVE
    assert check_of(report, row, "C2", "attacks", none).evidence == f"{NOT_TESTED}: no attack was run"


def test_a_number_that_a_row_could_not_be_given_leaves_its_attack_open_and_fails_c3():
    report = report_of(np.random.default_rng(1))
    row = edited(report, tail={"value": None, "place": NO_VALUE, "inside": False})
    attack = check_of(report, row, "C2", "tail:")
    assert (attack.holds, attack.evidence) == (None, "0 of 1 numbers outside; tail: no value")
    whole = check_of(report, row, "C3", "inside the band")
    assert (whole.holds, whole.unknown) == (False, "")
    assert whole.evidence.startswith("1 of 4 outside (tail no value); of the retrained models")


def test_an_attack_with_one_number_outside_fails_whatever_else_cannot_be_told():
    both = replace(LADDER, attacks=lambda report, row: {"rate": ["rate_auc", "tail"]})
    report = report_of(np.random.default_rng(1), rate_auc=0.9)
    found = check_of(report, edited(report, tail={"place": TOO_FEW}), "C2", "rate", both)
    told = LADDER.outside("rate_auc", report["rows"][1]["metrics"]["rate_auc"])
    assert (found.holds, found.evidence) == (False, f"1 of 2 numbers outside; {told}; tail: {TOO_FEW}")


TELLS = "an attack tells the original from retrained models"


@pytest.mark.parametrize(
    ("place", "tells"), [(ABOVE, True), (BELOW, True), (INSIDE, None), (TOO_FEW, None), (NO_VALUE, None), (None, None)]
)
def test_c2_needs_an_attack_by_which_the_original_lies_outside_on_any_side(place, tells):
    report = report_of(np.random.default_rng(1))
    original = report["rows"][0]["metrics"]
    original["tail"]["place"], original["rate_auc"]["place"] = place, INSIDE
    found = check_of(report, report["rows"][1], "C2", TELLS)
    shown = "tail of 2; nothing is shown by rate" if tells else "none of 2; nothing is shown by rate, tail"
    assert (found.holds, found.evidence) == (tells, f"{shown}, which do not")
    assert verdicts(report)["C2"] == (PASS if tells else INCONCLUSIVE)


def test_one_of_an_attacks_numbers_is_enough_to_tell_the_original_and_a_missing_one_is_none():
    report = report_of(np.random.default_rng(1))
    row, original = report["rows"][1], report["rows"][0]
    whole = replace(LADDER, attacks=lambda report, row: {"both": ["tail", "rate_auc"]})
    assert whole.telling(report, row) == ["both"]
    assert check_of(report, row, "C2", TELLS, whole).evidence == "both of 1"
    del original["metrics"]["tail"]
    assert LADDER.telling(report, row) == ["rate"]
    report["rows"].pop(0)
    assert LADDER.telling(report, row) == []


@pytest.mark.parametrize(
    ("target", "numbers", "holds"),
    [
        ("observed", {"tail": 0.9}, False),
        ("concept", {"tail": 0.9}, None),  # less than retrained models show is no fault: they may hold the concept
        ("latent", {"tail": 0.9}, None),
        ("concept", {"tail": 0.1}, False),  # more than they show is one
        ("concept", {}, None),
        ("observed", {}, True),
    ],
)
def test_where_retrained_models_are_the_wrong_reference_only_the_leaking_side_counts(target, numbers, holds):
    report = report_of(np.random.default_rng(1), target=target, **numbers)
    found = check_of(report, report["rows"][1], "C2", "tail:")
    assert found.holds is holds
    assert found.unknown == (WRONG_REFERENCE if holds is None else "")
    assert (f"({WRONG_REFERENCE})" in found.evidence) == (holds is None)
    assert found.evidence.startswith(f"{int(holds is False)} of 1 numbers outside")


@pytest.mark.parametrize("numbers", [{}, {"use": 0.9}])
def test_of_the_wrong_reference_c3_is_open_inside_the_band_and_outside(numbers):
    report = report_of(np.random.default_rng(1), target="concept", **numbers)
    found = check_of(report, report["rows"][1], "C3", "inside the band")
    assert (found.holds, found.unknown) == (None, WRONG_REFERENCE)


def test_what_was_not_tested_is_not_called_a_wrong_reference():
    few = report_of(np.random.default_rng(1), retrains=4, target="concept")
    absent = replace(LADDER, attacks=lambda report, row: {"rate": ["rate_auc"], "unrun": []})
    for level, words in (("C2", "rate:"), ("C2", "unrun:"), ("C2", TELLS), ("C3", "inside the band")):
        found = check_of(few, few["rows"][1], level, words, absent)
        assert found.holds is None
        assert WRONG_REFERENCE not in found.evidence + found.unknown
    whole = report_of(np.random.default_rng(1))
    told = check_of(whole, whole["rows"][1], "C2", TELLS, absent).evidence
    assert told == "rate of 2"  # of an attack that was not run, its own condition speaks


def test_c3_is_open_where_a_row_lacks_a_number_that_every_retrained_model_has():
    report = report_of(np.random.default_rng(1))
    row = report["rows"][1]
    for model in row["retrain_band"]:
        model["metrics"] |= {"more": 1.0}
    found = check_of(report, row, "C3", "inside the band")
    assert (found.holds, found.unknown) == (None, "")
    assert found.evidence.startswith(f"0 of 4 outside; {NOT_TESTED}: more; of the retrained models")
    row["retrain_band"][3]["metrics"]["more"] = None
    assert check_of(report, row, "C3", "inside the band").holds is True
    out = edited(report, use={"place": BELOW})
    row["retrain_band"][3]["metrics"]["more"] = 1.0
    assert check_of(report, out, "C3", "inside the band").holds is False


def test_forgetting_and_privacy_are_counted_and_usefulness_is_not():
    report = report_of(np.random.default_rng(1), use=0.9)
    row = report["rows"][1]
    row["metrics"]["use"]["better"] = "lower"  # now the band has a side on which models know
    assert LADDER.counted(report, row) == ["seen", "rate_auc", "tail"]
    assert LADDER.leaking(report, row)[1] == 3


def test_a_number_without_a_side_tells_nothing_of_who_knows():
    report = report_of(np.random.default_rng(1))
    report["rows"][1]["metrics"]["use"]["section"] = "privacy"
    assert len(LADDER.counted(report, report["rows"][1])) == 4
    assert LADDER.leaking(report, report["rows"][1])[1] == 3


@pytest.mark.parametrize(("share", "count"), [(0.99, 0), (1.01, 1)])
def test_numbers_leak_outside_their_own_interval_not_the_one_of_all_together(share, count):
    report = report_of(np.random.default_rng(1))
    row = report["rows"][1]
    band = band_of([model["metrics"]["seen"] for model in row["retrain_band"]])
    value = band.mean + share * band.half_width(3)
    assert value < band.limits(3, 2)[1]
    assert LADDER.leaking(report, edited(report, seen={"value": value}))[0] == count


@pytest.mark.parametrize(("beyond", "count"), [(0.09, 0), (0.11, 1)])
def test_what_a_band_without_width_cannot_tell_does_not_leak(beyond, count):
    """Of 30 things of which none shows an event, 3 / 30 may have it."""
    report = report_of(np.random.default_rng(1))
    row = edited(report, seen={"value": 0.5 + beyond})
    for model in row["retrain_band"]:
        model["metrics"]["seen"] = 0.5
    assert LADDER.leaking(report, row)[0] == count


def test_numbers_beyond_the_other_side_of_the_band_are_overshooting():
    report = report_of(np.random.default_rng(1), seen=0.1, rate_auc=0.9, tail=0.9, use=0.9)
    row = report["rows"][1]
    row["metrics"]["use"]["better"] = "higher"
    assert LADDER.overshooting(row) == ["seen", "tail"]
    assert LADDER.overshooting(edited(report_of(np.random.default_rng(1)))) == []
    report["rows"][1]["metrics"]["use"] |= {"section": "forgetting", "better": "band"}  # no side is that of members
    assert LADDER.overshooting(report["rows"][1]) == ["seen", "tail"]
    assert LADDER.outside("use", row["metrics"]["use"]).endswith(": above")


def test_what_nobody_can_read_says_what_is_missing():
    few, none = report_of(np.random.default_rng(2), retrains=4), report_of(np.random.default_rng(2))
    for entry in none["rows"][1]["metrics"].values():
        entry["section"] = "utility"
    more = "4 retrained models, of at least 5: more of these are needed"
    for report, words in ((few, more), (none, "no number of forgetting or privacy has a side, a value and a band")):
        row = report["rows"][1]
        for level, name in [("C1", "not flagged")] + [("C3", "inside the band")] * (report is few):
            assert check_of(report, row, level, name) == Check(
                check_of(report, row, level, name).name, None, f"{NOT_TESTED}: {words}"
            )
        assert LADDER.controls(report, row)[1].evidence == words
    assert LADDER.strict_passes(few["rows"][1]) == f"{NOT_TESTED}: {more}"
    passed = none["rows"][1]["judged"]["held_out_inside"]
    assert LADDER.strict_passes(none["rows"][1]).endswith(f"held out, {passed} of 5 have all numbers inside")


@pytest.mark.parametrize(("models", "verdict", "share"), [(8, PASS, "2 of 8"), (7, FAIL, "2 of 7")])
def test_a_quarter_of_the_retrained_models_held_out_may_be_flagged(models, verdict, share):
    """Two models know, each by two numbers of four; of four numbers, chance puts one outside and not two."""
    names = [f"{k}_auc" for k in range(4)]
    trees = [{name: 0.5 + 0.01 * ((j + k) % 3) for j, name in enumerate(names)} for k in range(models)]
    trees[0] |= {"0_auc": 0.9, "1_auc": 0.9}
    trees[1] |= {"2_auc": 0.9, "3_auc": 0.9}
    report = judge(
        {"rows": [row_of("edit", trees, [trees[2]])], "requests": {"few": {"n": 30, "target": "observed"}}}, LADDER
    )
    control = LADDER.controls(report, report["rows"][0])[1]
    assert (control.verdict, control.evidence[:14]) == (verdict, f"{share} flagged")
    assert f"{4 / (4 * models):.1%} of their numbers lie outside" in control.evidence


def test_distance_from_the_wrong_reference_fails_and_closeness_to_it_is_unknown():
    near, far, open_ = Check("near", True, "1"), Check("far", False, "2"), Check("open", None, "3")
    assert by_reference([near, far, open_], True) == [near, far, open_]
    unknown = Check("near", None, f"1 ({WRONG_REFERENCE})", WRONG_REFERENCE)
    assert by_reference([near, far, open_], False) == [unknown, far, open_]


@pytest.mark.parametrize(
    ("place", "also", "holds"),
    [
        (INSIDE, (), True),
        (None, (), True),
        (ABOVE, (), False),
        (BELOW, (), False),
        (BELOW, (BELOW,), True),
        (ABOVE, (BELOW,), False),
        (TOO_FEW, (), None),
    ],
)
def test_a_number_is_inside_by_its_place(place, also, holds):
    row = edited(report_of(np.random.default_rng(1)), rate_auc={"place": place})
    found = is_inside(row, "rate_auc", also)
    assert (found.holds, found.name) == (holds, f"rate auc {'not above' if also else 'inside'} the band")
    assert found.unknown == (f"rate_auc: {TOO_FEW}" if place == TOO_FEW else "")


@pytest.mark.parametrize("lacking", [{"value": None}, {"band": None}])
def test_a_number_without_a_value_or_a_band_is_not_tested(lacking):
    row = edited(report_of(np.random.default_rng(1)), rate_auc=lacking)
    expected = Check("rate auc inside the band", None, f"{NOT_TESTED}: rate_auc, or its band")
    assert is_inside(row, "rate_auc") == expected
    assert is_inside(row, "absent").evidence == f"{NOT_TESTED}: absent, or its band"


def test_what_a_record_says_holds_or_not_and_silence_is_unknown():
    assert [recorded("seeds", value, value == 3).holds for value in (3, 4, None)] == [True, False, None]
