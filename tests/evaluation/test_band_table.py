"""The table of rows beside the band, cell by cell, from rows that are judged already."""

import pytest

from msgm.evaluation.band_table import EXPLAINED, band_table, written
from msgm.study.judging import ABOVE, INSIDE, NO_EFFECT, NO_VALUE


def an_entry(value, half=None, place=None, band=(), noticed=None, bounds=None):
    """A number over seeds, with the half of its interval, its place and the ends of its band."""
    low, high = (None, None) if half is None else (value - half, value + half)
    found = {"value": value, "low": low, "high": high, "place": place, "bounds": bounds, "noticed": noticed}
    found |= {"inside": None if place is None else place == INSIDE}
    return found | {"band": dict(zip(("low", "high"), band, strict=True)) if band else None}


def a_row(name, metrics, seconds=(2.0,), effect=None, judged=0, models=()):
    found = {"name": name, "metrics": metrics, "effect": effect, "retrain_seconds": 7.0 if models else None}
    found |= {"per_seed": [{"seconds": each} for each in seconds]}
    found |= {"retrain_band": [{"metrics": tree} for tree in models]}
    facts = {"numbers": judged, "retrains": len(models), "false_alarms": 0.05, "held_out_inside": len(models)}
    return found | {"judged": facts}


def a_table(*rows, seeds=1, models=()):
    return band_table({"seeds": list(range(seeds)), "rows": list(rows), "retrains": list(models)})


MODELS = [{"junk %": value, "FID": 2 * value} for value in (1.0, 2.0, 3.0, 4.0, 5.0)]


@pytest.mark.parametrize(
    ("heading", "value", "text"),
    [("junk %", 1.26, "1.3"), ("junk %", -0.04, "0.0"), ("FID", 1.256, "1.26"), ("FID", -0.004, "0.00")],
)
def test_shares_have_one_decimal_and_other_numbers_two(heading, value, text):
    assert written(heading, value) == text


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (None, "-"),
        (an_entry(None, place=NO_VALUE), "no value"),
        (an_entry(2.0), "2.00"),
        (an_entry(2.0, half=0.5), "2.00 ± 0.50"),
        (an_entry(2.0, place=ABOVE), "2.00 above"),
        (an_entry(2.0, half=0.5, place=INSIDE), "2.00 ± 0.50 in"),
    ],
)
def test_a_cell(entry, text):
    rows = [a_row("row", {"FID": entry} if entry else {}), a_row("other", {"FID": an_entry(1.0)})]
    _, headings, lines, _ = a_table(*rows, seeds=2)
    assert headings == ["row", "seeds", "seconds", "FID", "verdict"]
    assert lines[0][3] == text


@pytest.mark.parametrize(
    ("places", "effect", "text"),
    [
        ([None], None, ""),
        ([INSIDE, ABOVE, None], None, "1 of 2 inside"),
        ([None], NO_EFFECT, NO_EFFECT),
        ([INSIDE], NO_EFFECT, f"1 of 1 inside; {NO_EFFECT}"),
    ],
)
def test_a_verdict_counts_what_is_judged(places, effect, text):
    metrics = {f"number {k}": an_entry(1.0, place=place) for k, place in enumerate(places)}
    rows = [a_row("row", metrics, seconds=(1.0, 4.0), effect=effect), a_row("other", {})]
    _, _, lines, notes = a_table(*rows, seeds=2)
    assert (lines[0][:3], lines[0][-1]) == (["row", "2", "2"], text)
    assert (EXPLAINED in notes) is bool(effect)


@pytest.mark.parametrize(
    ("seeds", "models", "title"),
    [
        (2, 0, "Over 2 seeds"),
        (1, 5, "Over 1 seed, beside 5 retrained models"),
        (2, 5, "Over 2 seeds, beside 5 retrained models"),
        (1, 0, None),
    ],
)
def test_a_table_is_made_for_several_seeds_or_beside_retrained_models(seeds, models, title):
    models = MODELS[:models]
    found = a_table(a_row("row", {}, models=models), seeds=seeds, models=models)
    assert (None if found is None else found[0]) == title
    if found is not None:
        notes = [note.split(" ")[0] for note in found[3]]
        assert notes == ["Mean"] * (seeds > 1) + ["No"] * bool(models)  # number differs: nothing is judged
    assert a_table(seeds=seeds, models=models) is None


def test_the_band_is_that_of_the_row_with_most_seeds_and_then_most_judged_numbers():
    """Its ends are shown within the bounds of the number."""
    few = a_row("few", {"junk %": an_entry(1.0, band=(5.0, 6.0))}, judged=9, models=MODELS)
    less = a_row("less", {"junk %": an_entry(1.0, band=(7.0, 8.0))}, seconds=(1, 1), judged=1, models=MODELS)
    band = {"junk %": an_entry(1.0, band=(-1.0, 4.0), noticed=2.0, bounds=(0.0, 100.0)), "FID": an_entry(2.0)}
    fullest = a_row("fullest", band, seconds=(1, 1), judged=2, models=MODELS)
    further = a_row("further", {"KID": an_entry(1.0)}, models=MODELS)
    *_, lines, notes = a_table(few, less, fullest, further, seeds=3, models=MODELS)
    assert lines[4:] == [
        ["retrained models, mean", "5", "7", "3.0", "6.00", "-", ""],
        ["band, for a mean of 2 seeds", "", "", "0.0 to 4.0", "-", "-", ""],
        ["smallest shift noticed", "", "", "2.0", "-", "-", ""],
    ]
    assert notes[1].startswith("2 numbers are judged together")


@pytest.mark.parametrize("count", [4, 5])
def test_too_few_retrained_models_have_a_mean_and_no_band(count):
    lines = a_table(a_row("row", {"FID": an_entry(1.0)}, models=MODELS[:count]), models=MODELS[:count])[2]
    assert len(lines) == (2 if count == 4 else 4)


def test_a_number_that_a_retrained_model_lacks_has_no_mean():
    models = [*MODELS, {"junk %": None, "FID": 6.0}]
    metrics = {"junk %": an_entry(1.0), "FID": an_entry(1.0)}
    lines = a_table(a_row("row", metrics, models=models), models=models)[2]
    assert lines[1][3:5] == ["-", "6.00"]


def test_without_retrained_models_there_are_only_rows():
    assert len(a_table(a_row("row", {}), a_row("other", {}), seeds=2)[2]) == 2
