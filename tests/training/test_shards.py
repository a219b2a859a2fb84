"""Deletion from sharded generators, bit for bit: a stream of requests, a killed process, and data without the items."""

import signal
import time

import numpy as np
import pytest
import torch

import msgm
from msgm.errors import UserError
from msgm.training.shards import FOLDER, expected_hit, shards_of
from tests.forks import Forked

UNET = {"name": "unet", "channels": [8], "mid_attention": False}
SHARDS = {"count": 3, "mixture": "drawn"}
FAST = {"steps": 45, "batch_size": 8, "device": "cpu", "checkpoint_every": 3, "log_every": 3}
ITEMS = 90


@pytest.fixture(scope="module")
def digits():
    whole = msgm.load_dataset("digits")
    return whole.items[:ITEMS], whole.labels[:ITEMS]


def dataset(digits, without=()):
    """The first digits, those of ``without`` not among them at all."""
    kept = np.setdiff1d(np.arange(ITEMS), without)
    return msgm.data.Dataset("digits", digits[0][kept], (1, 8, 8), 17, digits[1][kept], [str(n) for n in range(10)])


def train(folder, data):
    return msgm.ShardedModel.train(folder, data, UNET, shards=SHARDS, **FAST)


def weights(made):
    folder = made.folder / "model"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


def places(data):
    return shards_of(data, SHARDS["count"], 0)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    return train(tmp_path_factory.mktemp("sharded") / "run", dataset(digits))


@pytest.fixture
def three(digits):
    """An item of each shard, the second one's first."""
    return [int(np.flatnonzero(places(dataset(digits)) == number)[2]) for number in (1, 0, 2)]


def deleting(folder, data, item):
    """A process that deletes an item from an ensemble."""
    made = msgm.ShardedModel.load(folder, data, "cpu")
    made.delete(msgm.ForgetRequest(indices=[item]))
    return 0


def killed_in_the_middle(folder, data, item):
    """Kill a process that deletes an item once its training has written some steps; return what was left."""
    before = {*(folder / FOLDER).glob("shard-*")}
    running, end = Forked(lambda: deleting(folder, data, item)), time.monotonic() + 120
    while True:
        new = {*(folder / FOLDER).glob("shard-*")} - before
        logs = [path / "metrics.jsonl" for path in new]
        if any(log.is_file() and log.read_text().count("\n") >= 1 for log in logs):
            break
        assert running.process.is_alive(), running.said("stderr")
        assert time.monotonic() < end
        time.sleep(0.001)
    running.process.kill()
    assert running.ended() == -signal.SIGKILL
    assert not (folder / "model").exists()


def test_three_deletions_one_of_them_killed_equal_an_ensemble_without_the_items_bit_for_bit(digits, three, tmp_path):
    data = dataset(digits)
    made = train(tmp_path / "run", data)
    first = weights(made)
    works = [made.delete(msgm.ForgetRequest(indices=[three[0]]))]
    after_one = weights(made)
    killed_in_the_middle(made.folder, data, three[1])
    again = msgm.ShardedModel.load(made.folder, data, "cpu")
    works.append(again.delete(msgm.ForgetRequest(indices=[three[2]])))
    never = train(tmp_path / "never", dataset(digits, three))
    assert weights(again) == weights(never)
    assert [work.shards for work in works] == [[1], [2]]
    assert [work.steps for work in works] == [15, 15]
    assert len({*first.values()} & {*after_one.values()}) == 2
    assert not {*first.values()} & {*weights(again).values()}
    assert torch.equal(again.model.sample(4, steps=4), never.model.sample(4, steps=4))
    assert [entry.positions.tolist() for entry in again.chain.requests] == [[item] for item in three]


def test_a_deletion_leaves_the_models_of_other_shards_and_nothing_of_its_own(digits, three, tmp_path, monkeypatch):
    data, seen = dataset(digits), []
    made = train(tmp_path / "run", data)
    old = {path.name for path in (made.folder / FOLDER).glob("shard-*")}
    monkeypatch.setattr(made._ensemble, "_train", lambda *given: seen.append({*(made.folder / FOLDER).iterdir()}))
    with pytest.raises(UserError):  # as the shard is not trained, the mixture cannot be made
        made.delete(msgm.ForgetRequest(indices=[three[0]]))
    left = {path.name for path in seen[0]}
    assert {name for name in old if name not in left} == {name for name in old if name.startswith("shard-1-")}
    assert not (made.folder / "model").exists()


def test_items_keep_their_shards_and_equal_items_share_one(digits):
    whole, less = dataset(digits), dataset(digits, [5, 60])
    kept = np.setdiff1d(np.arange(ITEMS), [5, 60])
    assert np.array_equal(places(whole)[kept], places(less))
    twice = msgm.data.Dataset(
        "digits", digits[0][[3, 3]], (1, 8, 8), 17, digits[1][[3, 3]], [str(n) for n in range(10)]
    )
    assert len({*places(twice).tolist()}) == 1
    assert len({*places(whole).tolist()}) == 3


def test_a_repeated_request_and_one_of_all_items_are_refused(digits, trained):
    trained.delete(msgm.ForgetRequest(indices=[7]))
    with pytest.raises(UserError, match="no item of it is trained on"):
        trained.delete(msgm.ForgetRequest(indices=[7]))
    with pytest.raises(UserError, match="leaves no item"):
        trained.delete(msgm.ForgetRequest(indices=[k for k in range(ITEMS) if k != 7]))


def test_a_folder_of_another_ensemble_is_refused(digits, trained):
    with pytest.raises(UserError, match="holds another ensemble"):
        msgm.ShardedModel.train(trained.folder, dataset(digits), UNET, shards={"count": 2}, **FAST)
    with pytest.raises(UserError, match="holds no sharded generator"):
        msgm.ShardedModel.load(trained.folder / "elsewhere", dataset(digits))


@pytest.mark.parametrize(("items", "count"), [(1, 5), (3, 5), (10, 4), (2, 1)])
def test_the_expected_number_of_hit_shards_is_that_of_random_items(items, count):
    draws = np.random.default_rng(0).integers(0, count, (20_000, items))
    hit = np.mean([len({*row.tolist()}) for row in draws])
    assert expected_hit(items, count) == pytest.approx(hit, abs=0.02)
