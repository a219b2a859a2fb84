"""Near-duplicates of items to forget among those to retain: searched once, in the report and on the cards."""

from dataclasses import replace

import numpy as np
import pytest

from msgm.evaluation import near
from tests.evaluation.benches import digits_bench

FOUND = near.Near(
    method="by distance", found=2, retained=2, included=False, pairs=[{"forget": 3, "retain": 8, "distance": 0.5}]
)


@pytest.fixture(scope="module")
def bench():
    return digits_bench()


def test_retain_items_that_are_copies_are_found_nearest_first(bench, tmp_path):
    train, items = bench.split.train, bench.dataset.items.clone()
    forgotten, exact, close = int(train.forget[0]), int(train.retain[7]), int(train.retain[3])
    items[exact] = items[forgotten]
    items[close] = items[forgotten]
    items[close, 0, 0, 0] += 1
    found = near.near(replace(bench, dataset=replace(bench.dataset, items=items), folder=tmp_path))
    assert (found["found"], found["retained"]) == (2, 2)
    assert found["pairs"] == [
        {"forget": forgotten, "retain": exact, "distance": 0.0},
        {"forget": forgotten, "retain": close, "distance": pytest.approx(2 / 17, rel=0.1)},
    ]


def test_copies_are_compared_once_with_their_item(bench):
    train, origin = bench.split.train, np.arange(len(bench.dataset))
    items = bench.dataset.items.clone()
    items[train.retain[7]] = items[train.forget[0]]
    origin[train.retain[8]] = train.retain[7]
    items[train.retain[8]] = items[train.retain[7]]
    dataset = replace(bench.dataset, items=items, origin=origin)
    assert near.near(replace(bench, dataset=dataset, folder=None))["found"] == 1


def test_it_is_searched_once_for_a_folder_and_again_for_another_request(bench, tmp_path, monkeypatch):
    kept = replace(bench, folder=tmp_path)
    first = near.near(kept)
    monkeypatch.setattr(near, "_searched", lambda _: pytest.fail("it was searched again"))
    assert near.near(kept) == first
    train = bench.split.train
    other = replace(bench.split, train=replace(train, forget=train.forget[:5]))
    with pytest.raises(pytest.fail.Exception):
        near.near(replace(kept, split=other))


def test_nothing_to_forget_has_no_duplicates(bench):
    nothing = np.empty(0, dtype=np.int64)
    assert (
        near.near(replace(bench, split=replace(bench.split, train=replace(bench.split.train, forget=nothing)))) is None
    )


def test_report_and_card_say_what_stays():
    report = {"requests": {"request": {"near_duplicates": FOUND}}}
    (note,) = near.notes(report)
    assert "2, left in (by distance). The nearest by position: 8 of 3 at 0.5." in note
    assert near.unsaid(report) == [
        "That near-duplicates are forgotten: 2 were found among the items to retain, and stay."
    ]
    assert "pairs" not in near.without_pairs(FOUND)
    assert near.notes({"requests": {"request": {}}}) == []
