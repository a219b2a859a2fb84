import numpy as np
import pytest
import torch

from msgm.data import Dataset, duplicates
from msgm.data.duplicates import near_duplicates, squares


def split_of(items, forget, retain, others):
    """The data set, its parts and the fresh items, in the order that near_duplicates takes them."""
    data = Dataset("blobs", items, tuple(items.shape[1:]), None)
    tuning, nonmembers, test = np.array_split(np.array(others), 3)
    parts = {"retain": np.array(retain), "forget": np.array(forget)}
    return data, parts | {"tuning": tuning, "nonmembers": nonmembers, "test": test}, nonmembers


def blobs(count=400, dims=6):
    return torch.randn(count, dims, generator=torch.Generator().manual_seed(0))


def test_planted_copies_are_found_in_every_part_with_their_distance():
    items = blobs()
    items[10] = items[0]  # retain
    items[310] = items[1] + 1e-3  # held out
    found = near_duplicates(*split_of(items, range(5), range(5, 300), range(300, 400)))
    pairs = {(pair.forget, pair.other): pair for pair in found.pairs}
    assert pairs[0, 10].distance == 0
    assert pairs[0, 10].part == "retain"
    assert pairs[1, 310].distance == pytest.approx(1e-3 * float((1 / items[:300].var(0)).sum() ** 0.5), rel=1e-2)
    assert pairs[1, 310].part == "tuning"
    assert found.pairs[0].distance == 0
    assert all(pair.distance < found.threshold for pair in found.pairs)
    assert found.found == len({pair.other for pair in found.pairs})
    assert "1% quantile" in found.method


def test_about_the_stated_share_of_fresh_items_has_a_neighbour_by_chance():
    items = blobs(3000, 4)
    found = near_duplicates(*split_of(items, range(500), range(500, 2000), range(2000, 3000)))
    hit = {pair.forget for pair in found.pairs if pair.part == "retain"}
    assert len(hit) / 500 < 0.04


def test_the_threshold_is_read_from_all_held_out_items(monkeypatch):
    monkeypatch.setattr("msgm.data.duplicates.MOST_HELD_OUT", 20)
    items = blobs()
    items[334:356] *= 100  # the first of the non-members, which are 334 to 366, are of another kind
    found = near_duplicates(*split_of(items, range(5), range(5, 300), range(300, 400)))
    assert "20 held-out items" in found.method
    assert found.threshold < 10


def test_exact_copies_count_even_where_held_out_items_are_copies_too():
    items = blobs(60)
    items[40:] = items[:20]
    found = near_duplicates(*split_of(items, range(5), range(5, 40), range(40, 60)))
    assert found.threshold == 0
    assert {(pair.forget, pair.other) for pair in found.pairs} == {(k, 40 + k) for k in range(5)}


def test_copies_among_held_out_items_leave_the_threshold_to_the_others():
    items = blobs(400)
    items[340:350] = items[5:15]  # a third of the non-members, 334 to 366
    found = near_duplicates(*split_of(items, range(5), range(5, 300), range(300, 400)))
    assert found.threshold > 0.1
    assert "non-zero distances" in found.method


def test_the_unit_of_a_column_does_not_decide():
    items = blobs()
    items[310] = items[1] + 1e-3
    split = [range(5), range(5, 300), range(300, 400)]
    metres = near_duplicates(*split_of(items, *split))
    items[:, 0] *= 1000
    millimetres = near_duplicates(*split_of(items, *split))
    assert [(p.forget, p.other) for p in metres.pairs] == [(p.forget, p.other) for p in millimetres.pairs]
    assert metres.threshold == pytest.approx(millimetres.threshold, rel=1e-3)
    assert "columns standardised" in metres.method


def test_blocks_and_chunks_change_nothing(monkeypatch):
    items = blobs()
    items[10], items[250], items[310] = items[0], items[4], items[3]
    whole = near_duplicates(*split_of(items, range(5), range(5, 300), range(300, 400)))
    monkeypatch.setattr(duplicates, "BLOCK", 2)
    monkeypatch.setattr(duplicates, "CHUNK", 7)
    parts = near_duplicates(*split_of(items, range(5), range(5, 300), range(300, 400)))
    assert [(p.forget, p.other, p.part) for p in parts.pairs] == [(p.forget, p.other, p.part) for p in whole.pairs]
    assert {(p.forget, p.other) for p in whole.pairs if p.distance == 0} == {(0, 10), (4, 250), (3, 310)}


def test_at_most_so_many_items_are_compared_and_it_is_said():
    found = near_duplicates(*split_of(blobs(), range(100), range(100, 300), range(300, 400)), most=10)
    assert found.method.endswith("; 10 of the 100 items to forget were compared")
    assert {pair.forget for pair in found.pairs} <= set(range(0, 100, 11))


def test_images_are_compared_as_a_network_sees_them():
    items = torch.randint(0, 256, (60, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    items[30] = items[2]
    data = Dataset("images", items, (1, 4, 4), 256)
    parts = {"forget": np.arange(5), "retain": np.arange(5, 40)}
    found = near_duplicates(data, parts, np.arange(40, 60))
    assert (found.pairs[0].forget, found.pairs[0].other, found.pairs[0].distance) == (2, 30, 0)


def test_squares_equal_the_plain_formula_also_far_from_the_origin():
    x = blobs(50) + 1000
    y = torch.cat([x[:5], x[:5] + 1e-2, blobs(20)])
    exact = (x[:, None].double() - y.double()).square().sum(2)
    assert squares(x, y).numpy() == pytest.approx(exact.numpy(), rel=2e-3, abs=1e-9)
