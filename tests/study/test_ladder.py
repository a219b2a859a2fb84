"""The ladder on a small domain: how often a retrained model passes, and what breaks each rule."""

import numpy as np
import pytest

from msgm.cards.claims import FAIL, INCONCLUSIVE, NOT_TESTED, PASS, Check
from msgm.study.judging import ABOVE, BELOW, judge, means
from msgm.study.ladder import Ladder, is_inside, near_mean, rules_of

NAMES = ("seen", "rate_auc", "tail", "use")
SECTIONS = {"seen": "forgetting", "rate_auc": "privacy", "tail": "privacy", "use": "utility"}
LADDER = Ladder(
    keys=("request",),
    sides=((r"seen|_auc$", ABOVE), (r"tail", BELOW)),
    repeated=r"_gap$",
    size="n",
    retraining="retrain_seconds",
    effect=("seen",),
    rules=rules_of("things", "Behaves", "Exact"),
    behaviour=lambda report, row: [
        is_inside(row, "seen", also=(BELOW,)),
        near_mean(row, "use", "at most .2 below", lambda value, mean: value >= mean - 0.2),
    ],
    attacks=lambda report, row: {"rate": ["rate_auc"], "tail": ["tail"]},
    exactness=lambda report, row: [Check("a record", False, "")],
    exact=lambda row: False,
    bound=lambda report, row: [Check("a proven bound", False, "")],
    bounded=lambda row: False,
)


def tree(rng, knows=0.0):
    numbers = dict(zip(NAMES, rng.normal(0.5, 0.02, len(NAMES)).tolist(), strict=True))
    return numbers | {"seen": numbers["seen"] + knows, "rate_auc": numbers["rate_auc"] + knows}


def row_of(method, models, per_seed):
    summary = means(per_seed)
    return {
        "method": method,
        "request": "few",
        "seconds": 1.0,
        "retrain_seconds": 4.0,
        "metrics": {name: summary[name] | {"better": "band", "section": SECTIONS[name]} for name in summary},
        "per_seed": [{"seed": k, "metrics": numbers} for k, numbers in enumerate(per_seed)],
        "retrain_band": [{"retrain": k, "of": 1, "metrics": numbers} for k, numbers in enumerate(models)],
    }


def report_of(rng, retrains=5, target="observed", knows=0.0, **numbers):
    models = [tree(rng) for _ in range(retrains)]
    mine = [tree(rng, knows) | numbers for _ in range(3)]
    rows = [row_of("do-nothing", models, [tree(rng, 0.3) for _ in range(3)]), row_of("edit", models, mine)]
    return judge({"rows": rows, "requests": {"few": {"n": 30, "target": target}}}, LADDER)


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
