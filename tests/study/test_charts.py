"""Charts of rows by two of their numbers."""

from msgm.cards.chart import ORIGINAL, RETRAINED, SHOWN, UNSHOWN
from msgm.study.charts import chart_of, kind_of


def row(value, band=None, bounds=None):
    entry = {"value": value, "band": band and {"low": band[0], "high": band[1]}, "bounds": bounds}
    return {"metrics": {"use": entry, "known": {"value": value, "band": band and {"low": 0.0, "high": 1.0}}}}


def test_rows_without_a_number_are_left_out_and_the_band_ends_at_the_numbers_bounds():
    rows = {"a": (row(0.5, (-0.2, 0.7), (0, 1)), SHOWN), "b": (row(None), UNSHOWN), "c": ({"metrics": {}}, UNSHOWN)}
    made = chart_of("t", rows, ("use", "use of it"), ("known", "what it knows"))
    assert [point.name for point in made.points] == ["a"]
    assert made.band == ((0, 0.7), (0.0, 1.0))
    assert (made.x, made.y) == ("use of it", "what it knows")
    assert chart_of("t", {"a": (row(0.5), SHOWN)}, ("use", ""), ("known", "")).band is None


def test_a_row_is_told_by_its_method_and_its_level():
    assert [kind_of("do-nothing", "C0"), kind_of("retrain", "C4"), kind_of("x", "C0"), kind_of("x", "C1")] == [
        ORIGINAL,
        RETRAINED,
        UNSHOWN,
        SHOWN,
    ]
