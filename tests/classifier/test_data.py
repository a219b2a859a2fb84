import numpy as np
import pytest
import torch

from msgm.classifier.data import Examples, Shares, held_out, split_by
from msgm.data import Dataset, load_dataset
from msgm.errors import UserError
from msgm.requests import ForgetRequest


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def blobs(count=40, classes=3, **known):
    items = torch.arange(2.0 * count).view(count, 2)
    return Dataset("blobs", items, (2,), None, np.arange(count) % classes, list("abc")[:classes], **known)


def test_parts_are_disjoint_cover_all_items_and_depend_on_the_seed_alone(digits):
    parts = held_out(digits, Shares(), 3)
    joined = np.concatenate(list(parts.values()))
    assert np.array_equal(np.sort(joined), np.arange(len(digits)))
    assert {name: len(part) for name, part in parts.items()} == {
        "test": 270,
        "tuning": 180,
        "nonmembers": 270,
        "train": 1077,
    }
    again, other = held_out(digits, Shares(), 3), held_out(digits, Shares(), 4)
    assert all(np.array_equal(parts[name], again[name]) for name in parts)
    assert not np.array_equal(parts["train"], other["train"])


def test_published_test_items_are_the_test_part():
    published = np.arange(40) >= 30
    parts = held_out(blobs(test=published), Shares(), 0)
    assert parts["test"].tolist() == list(range(30, 40))
    assert not published[np.concatenate([parts[name] for name in ("train", "tuning", "nonmembers")])].any()


def test_only_training_items_of_a_request_are_forgotten(digits):
    parts = held_out(digits, Shares(), 0)
    split = split_by(digits, parts, digits.forget_mask(ForgetRequest(labels=[3])))
    assert set(split.forget.labels.tolist()) == {3}
    assert 3 not in split.retain.labels.tolist()
    assert 3 in split.test.labels.tolist()
    assert split.scope == "class"
    assert np.array_equal(split.train.indices, parts["train"])


def test_a_request_that_leaves_items_of_its_class_is_one_of_instances(digits):
    parts = held_out(digits, Shares(), 0)
    mask = np.zeros(len(digits), dtype=bool)
    mask[parts["train"][:5]] = True
    assert split_by(digits, parts, mask).scope == "instances"


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (lambda parts, labels: np.ones(40, dtype=bool), "all .* training items: nothing is left to retain"),
        (lambda parts, labels: np.isin(np.arange(40), parts["test"]), "everything it names is held out"),
        (lambda parts, labels: labels > 0, "items of 1 class only; a classifier needs two"),
    ],
)
def test_requests_that_leave_no_classifier_are_refused(chosen, words):
    data = blobs()
    parts = held_out(data, Shares(), 0)
    with pytest.raises(UserError, match=words):
        split_by(data, parts, chosen(parts, data.labels))


def test_data_without_labels_are_refused():
    data = Dataset("blobs", torch.zeros(10, 2), (2,), None)
    with pytest.raises(UserError, match="blobs data have no class labels"):
        Examples.of(data, np.arange(3))
    with pytest.raises(UserError, match="blobs data have no class labels"):
        split_by(data, held_out(data, Shares(), 0), np.zeros(10, dtype=bool))


@pytest.mark.parametrize(
    ("shares", "words"),
    [({"tuning": 0.0}, "shares.tuning must lie between 0 and 1, got 0.0"), ({"test": 0.8}, "must be below 1")],
)
def test_impossible_shares_are_refused(shares, words):
    with pytest.raises(UserError, match=words):
        Shares(**shares)


def test_images_are_seen_between_minus_one_and_one_and_vectors_as_they_are(digits):
    x = Examples.of(digits, np.arange(50)).inputs(np.arange(50))
    assert x.dtype == torch.float32
    assert x.abs().max() < 1
    assert x.std() > 0.5
    data = blobs()
    assert torch.equal(Examples.of(data, np.array([4, 2])).inputs(np.array([1, 0])), data.items[[2, 4]])


def test_batches_shuffle_by_their_stream_and_keep_order_without_one():
    examples = Examples.of(blobs(), np.arange(40))
    plain = torch.cat([x for x, _ in examples.batches(7)])
    assert torch.equal(plain, examples.dataset.items)
    one, two, other = (torch.cat([x for x, _ in examples.batches(7, *s)]) for s in ([1, "a"], [1, "a"], [2, "a"]))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(one.sort(0).values, plain)


def test_a_stratum_is_a_class_of_one_source():
    groups = {"patient": np.array(["ann", "bob", "ann", "bob", "ann"]), "site": np.array(["x", "x", "x", "x", "y"])}
    dataset = Dataset("d", torch.zeros(5, 2), (2,), None, np.array([0, 0, 1, 0, 0]), ["a", "b"], groups=groups)
    codes = Examples.of(dataset, np.arange(5)).strata
    assert codes[1] == codes[3]
    assert len(set(codes)) == 4
    some = Examples.of(dataset, np.array([3, 1])).relabelled(torch.tensor([1, 1]))
    assert some.strata.tolist() == [codes[3], codes[1]]
    assert some.where(np.array([False, True])).indices.tolist() == [1]


def test_subsets_joins_and_other_labels():
    examples = Examples.of(blobs(), np.array([5, 6, 7, 8]))
    part = examples.subset(np.array([3, 0]))
    assert part.indices.tolist() == [8, 5]
    assert part.labels.tolist() == [2, 2]
    joined = part.join(examples.subset(np.array([1])).relabelled(torch.tensor([1])))
    assert joined.indices.tolist() == [8, 5, 6]
    assert joined.labels.tolist() == [2, 2, 1]


def test_examples_are_drawn_by_the_stream_and_keep_their_order():
    examples = Examples.of(blobs(), np.arange(40)).relabelled(torch.arange(40))
    one, same, other = (examples.drawn(10, *stream) for stream in ([1, "a"], [1, "a"], [2, "a"]))
    assert len(one) == 10
    assert np.array_equal(one.indices, np.unique(one.indices))
    assert np.array_equal(one.indices, same.indices)
    assert not np.array_equal(one.indices, other.indices)
    assert one.labels.tolist() == one.indices.tolist()
    assert np.array_equal(examples.drawn(50, 1).indices, examples.indices)


def test_at_most_a_share_is_trained_on_and_held_out_parts_stay():
    dataset = load_dataset("digits")
    whole, some = held_out(dataset, Shares(), 0), held_out(dataset, Shares(train=0.2), 0)
    assert len(some["train"]) == round(0.2 * len(dataset))
    assert set(some["train"]) < set(whole["train"])
    assert all(np.array_equal(some[name], whole[name]) for name in ("tuning", "nonmembers", "test"))
    with pytest.raises(UserError, match=r"shares.train must lie in \(0, 1\], got 0"):
        Shares(train=0.0)
