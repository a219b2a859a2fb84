import pytest

from msgm.cards.claims import (
    FAIL,
    INCONCLUSIVE,
    NOT_TESTED,
    PASS,
    Check,
    Claim,
    Control,
    claim_tree,
    decide,
    holds_before,
    level,
)

RIGHT, WRONG, OPEN = Check("right", True, "1"), Check("wrong", False, "2"), Check("open", None, "nobody looked")


def control(verdict, *needed_by) -> Control:
    return Control("a model known to be bad", "flagged", verdict, "3 of 4", needed_by or ("C1",))


@pytest.mark.parametrize(
    ("checks", "verdict", "reasons"),
    [
        ([RIGHT], PASS, []),
        ([RIGHT, OPEN], INCONCLUSIVE, ["nobody looked: open."]),
        ([RIGHT, OPEN, WRONG], FAIL, ["wrong: 2."]),
    ],
)
def test_a_claim_needs_every_condition(checks, verdict, reasons):
    found = decide("C1", checks, [control(PASS)])
    assert (found.verdict, found.reasons) == (verdict, reasons)


@pytest.mark.parametrize("checks", [[RIGHT], [WRONG], [OPEN]])
def test_a_control_that_failed_leaves_everything_open(checks):
    found = decide("C1", checks, [control(PASS), control(FAIL)])
    assert found.verdict == INCONCLUSIVE
    assert found.reasons == ["a model known to be bad failed: expected flagged; 3 of 4."]


def test_a_missing_control_counts_where_it_is_needed():
    missing = [control(NOT_TESTED, "C2")]
    assert decide("C1", [RIGHT], missing).verdict == PASS
    assert decide("C2", [RIGHT], missing).verdict == INCONCLUSIVE


def test_unknown_conditions_of_one_cause_are_one_reason():
    causes = [Check("a", None, "5 of 9", "too few"), Check("b", None, "6 of 9", "too few")]
    assert decide("C1", causes, []).reasons == ["too few: a; b."]


@pytest.mark.parametrize(("verdict", "holds"), [(PASS, True), (FAIL, False), (INCONCLUSIVE, None)])
def test_a_claim_is_a_condition_of_the_next(verdict, holds):
    assert holds_before(Claim("C1", verdict, [], [])).holds is holds


def test_the_level_is_the_highest_that_passed():
    found = [Claim(name, PASS if name in ("C1", "C4") else FAIL, [], []) for name in ("C1", "C2", "C4", "C5")]
    assert level(found) == "C4"
    assert level([]) == "C0"


def test_a_claim_is_made_unless_its_method_makes_none():
    assert (decide("C1", [RIGHT], []).claimed, decide("C4", [WRONG], [], claimed=False).claimed) == (True, False)


def test_a_claims_tree_has_its_rule_and_whether_anybody_makes_it():
    tree = claim_tree(decide("C4", [WRONG], [], claimed=False), {"C4": ("exact", "by its log")})
    assert (tree["name"], tree["rule"], tree["claimed"]) == ("exact", "by its log", False)
    assert tree["checks"][0]["evidence"] == "2"
