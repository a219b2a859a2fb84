import itertools

import numpy as np
import pytest
import torch

from msgm.data import Dataset, Feed
from msgm.errors import UserError

INDICES = np.arange(100, 123)


class Files:
    """A lazy set: item i is the 1x2x2 image of level i."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((1, 2, 2), index, dtype=torch.uint8)


def dataset(lazy: bool = False, workers: int = 0) -> Dataset:
    items = Files() if lazy else torch.stack([Files()[i] for i in range(200)])
    return Dataset("counted", items, (1, 2, 2), 256, workers=workers)


def feed(size: int = 5, seed: int = 0, stream: str = "retain", lazy: bool = False, workers: int = 0, **place) -> Feed:
    return Feed(dataset(lazy, workers), INDICES, size, seed, stream, **place)


def flat(batches: list[list[int]]) -> list[int]:
    return [item for batch in batches for item in batch]


def first(feed: Feed, count: int, start: int = 0) -> list[list[int]]:
    batches = feed.batches(start)
    found = [batch.items[:, 0, 0, 0].tolist() for batch in itertools.islice(batches, count)]
    batches.close()
    return found


def test_a_batch_is_a_function_of_seed_and_number_alone():
    used = feed()
    first(used, 7)
    assert first(used, 3, start=2) == first(feed(), 3, start=2)


def test_batches_hold_the_items_that_their_indices_name():
    assert first(feed(), 3) == [feed().indices(number).tolist() for number in range(3)]


@pytest.mark.parametrize("other", [{"seed": 1}, {"stream": "forget"}])
def test_seed_and_stream_change_the_order(other):
    assert first(feed(**other), 4) != first(feed(), 4)


@pytest.mark.parametrize("size", [1, 5, 10, 40])
def test_every_epoch_is_a_permutation_and_batches_may_span_epochs(size):
    epochs = 2 * size
    items = flat(first(feed(size=size), 2 * len(INDICES)))
    for epoch in range(epochs):
        assert sorted(items[epoch * len(INDICES) : (epoch + 1) * len(INDICES)]) == INDICES.tolist()


def test_two_epochs_are_ordered_differently():
    items = flat(first(feed(size=1), 2 * len(INDICES)))
    assert items[: len(INDICES)] != items[len(INDICES) :]


@pytest.mark.parametrize("lazy", [False, True])
def test_the_slices_of_two_ranks_join_to_the_global_batch(lazy):
    whole = first(feed(size=6), 9)
    parts = [first(feed(size=6, lazy=lazy, rank=rank, world=2), 9) for rank in (0, 1)]
    assert [left + right for left, right in zip(*parts, strict=True)] == whole
    assert {len(batch) for part in parts for batch in part} == {3}


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_gives_the_same_batches_as_resident_data(workers):
    assert first(feed(lazy=True, workers=workers), 11) == first(feed(), 11)


class Broken(Files):
    """A lazy set whose item 110 cannot be read."""

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 110:
            raise UserError("cannot read item 110.")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_cannot_be_read_ends_in_its_own_sentence(workers):
    broken = Dataset("broken", Broken(), (1, 2, 2), 256, workers=workers)
    with pytest.raises(UserError) as error:
        first(Feed(broken, INDICES, 5, 0, "retain"), 5)
    assert str(error.value) == "cannot read item 110."


def test_streaming_leaves_the_global_random_numbers_alone():
    before = torch.get_rng_state()
    first(feed(lazy=True), 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("lazy", [False, True])
def test_starting_at_a_batch_gives_what_an_uninterrupted_pass_gives(lazy):
    assert first(feed(lazy=lazy), 6, start=7) == first(feed(lazy=lazy), 13)[7:]


def test_a_set_smaller_than_the_batch_repeats_whole_passes():
    assert sorted(first(feed(size=46), 1)[0]) == sorted(INDICES.tolist() * 2)


def labelled(drop: float | None, size: int = 6, lazy: bool = False, seed: int = 0, **place) -> list[list[int] | None]:
    """The labels of the first nine batches of items whose label is their number modulo 7."""
    data = dataset(lazy)
    data.labels = np.arange(200) % 7
    batches = Feed(data, INDICES, size, seed, "retain", drop=drop, **place).batches(0)
    found = [batch.labels for batch in itertools.islice(batches, 9)]
    batches.close()
    return [None if labels is None else labels.tolist() for labels in found]


def test_items_go_unlabelled_where_no_labels_are_asked_for():
    assert labelled(None) == [None] * 9


@pytest.mark.parametrize("lazy", [False, True])
def test_every_item_has_its_own_label(lazy):
    indices = [feed(size=6).indices(number) for number in range(9)]
    assert labelled(0.0, lazy=lazy) == [(chosen % 7).tolist() for chosen in indices]


@pytest.mark.parametrize("lazy", [False, True])
def test_labels_are_dropped_for_the_global_batch(lazy):
    whole, kept = labelled(0.4, lazy=lazy), labelled(0.0)
    parts = [labelled(0.4, lazy=lazy, rank=rank, world=2) for rank in (0, 1)]
    assert [left + right for left, right in zip(*parts, strict=True)] == whole
    assert all(label in (-1, own) for label, own in zip(flat(whole), flat(kept), strict=True))


def test_labels_are_dropped_at_the_given_rate_and_anew_in_every_epoch():
    dropped = np.array(flat(labelled(0.3, size=2000))) < 0
    assert abs(dropped.mean() - 0.3) < 5 * (0.3 * 0.7 / len(dropped)) ** 0.5
    assert labelled(0.3, seed=1) != labelled(0.3)
    epochs = dropped[: 23 * 700].reshape(700, 23)
    assert epochs.mean(1).std() > 0


def test_labels_leave_the_order_of_items_alone():
    data = dataset()
    data.labels = np.zeros(200, dtype=np.int64)
    assert first(Feed(data, INDICES, 5, 0, "retain", drop=0.5), 9) == first(feed(), 9)
