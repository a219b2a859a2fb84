"""Rows read against their retrained models: how many there are, held-out ones, and which numbers tell anything."""

from msgm.cards.reading import differing, enough, held_out, oracles, readings


def make_row(counts, value=0.5):
    """A row with so many retrained models at each seed."""
    band = [
        {"seed": seed, "metrics": {"a": k / 10, "b": 1.0}} for seed, count in enumerate(counts) for k in range(count)
    ]
    parts = [{"seed": seed, "metrics": {"a": value, "b": 1.0}} for seed in range(len(counts))]
    entry = {"value": value, "section": "forgetting", "band": None}
    return {"per_seed": parts, "retrain_band": band, "metrics": {"a": entry, "b": entry | {"section": "privacy"}}}


def test_there_are_as_many_retrained_models_as_at_the_seed_that_has_fewest():
    assert oracles(make_row([6, 3])) == 3
    assert oracles(make_row([4])) == 4
    assert oracles({"per_seed": [], "retrain_band": []}) == 0


def test_five_retrained_models_are_enough_at_every_seed():
    assert enough(make_row([5, 6])).holds is True
    assert enough(make_row([6, 4])).holds is None


def test_each_retrained_model_is_held_out_beside_those_of_its_seed():
    found = held_out(make_row([3, 2]))
    assert [len(each.retrains) for each in found] == [2, 2, 2, 1, 1]
    assert [each.numbers["a"] for each in found] == [0.0, 0.1, 0.2, 0.0, 0.1]
    assert all(each.numbers not in each.retrains for each in found)
    assert [len(each.retrains) for each in readings(make_row([3, 2]))] == [3, 2]


def test_numbers_that_are_the_same_everywhere_tell_nothing():
    row, original = make_row([2]), make_row([2], value=0.9)
    assert differing(row, None) == ["a"]
    row["retrain_band"] = [{"seed": 0, "metrics": {"a": 0.5, "b": 1.0}}] * 2
    assert differing(row, None) == []
    assert differing(row, original) == ["a"]
