"""What tables say of rows that were judged, or could not be."""

import pytest

from msgm.study.judging import TOO_FEW
from msgm.study.views import _cell, near_retraining


def row(method, *inside, share=0.5):
    metrics = {str(number): {"inside": value} for number, value in enumerate(inside)}
    return {"method": method, "metrics": metrics, "share_of_retraining": share}


def test_rows_near_retraining_are_named_with_what_the_controls_have():
    rows = [row("do-nothing", False, False), row("near", True, True, share=0.1), row("far", True, False)]
    found = near_retraining(rows)
    assert (
        found
        == "at least 90% of the numbers inside the band: near (100% inside, 10% of the time); controls: do-nothing 0%."
    )


def test_rows_without_a_verdict_are_not_far_from_retraining():
    """Four retrained models make no band."""
    assert near_retraining([row("do-nothing", None), row("near", None)]).startswith(
        "no number is judged: a band needs 5"
    )
    assert "do-nothing" not in near_retraining([row("do-nothing", None), row("near", True)])


@pytest.mark.parametrize(
    ("inside", "low", "high", "scale", "text"),
    [
        (False, 0.1204, 0.1264, 1, "0.123 ± 0.003*"),
        (True, -1.2, 1.2, 100, "12.3 ± 120.0"),
        (None, None, None, 1, "0.123"),
        ("too few to tell", None, None, 1, "0.123?"),
    ],
)
def test_a_number_stands_with_half_its_interval_and_a_star_outside_its_band(inside, low, high, scale, text):
    place = inside if inside == TOO_FEW else {True: "inside", False: "above", None: None}[inside]
    number = {"value": 0.1234, "inside": None if inside == TOO_FEW else inside, "place": place}
    assert _cell(number | {"low": low, "high": high}, scale) == text
    assert _cell(None, scale) == "-"
