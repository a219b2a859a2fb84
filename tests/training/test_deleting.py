"""``msgm unlearn --from`` a sharded generator: exact, with the models of other shards, and after a kill."""

import json
import os
import re
import shutil
import signal

import numpy as np
import pytest

import msgm
from msgm.chain import read_chain
from msgm.cli import main
from msgm.runs import Run
from msgm.training import shards
from msgm.training.shards import FOLDER, Ensemble, shards_of
from tests.conftest import settings
from tests.forks import Forked
from tests.training.test_shards import UNET

COUNT = 3
FAST = {"steps": 9, "batch_size": 8, "device": "cpu", "log_every": 3}


@pytest.fixture(scope="module")
def dataset():
    return msgm.load_dataset("digits")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded") / "run"
    return msgm.ShardedModel.train(folder, "digits", UNET, shards={"count": COUNT, "mixture": "drawn"}, **FAST)


@pytest.fixture(scope="module")
def items(made):
    return made._items(made.chain)


@pytest.fixture(scope="module")
def second(dataset, items):
    """Two items of the second shard."""
    return items[shards_of(dataset, COUNT, 0)[items] == 1][:2].tolist()


def arguments(source, out, indices, *more):
    asked = ["request.labels=[]", f"request.indices={indices}", "request.target=observed", "request.goal=removal"]
    given = settings([*asked, "training.trackers=[]", *(one for one in more if one != "--resume")])
    flags = ["--resume"] if "--resume" in more else []
    return ["unlearn", "digits/vp", "--from", source, "--out", out, "--device", "cpu", *given, *flags]


def weights(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "model").rglob("*.safetensors")}


def never(made, dataset, left, folder):
    """The models of an ensemble that never had the other items."""
    other = Ensemble.load(Run(made.folder), dataset, "cpu").at(Run(folder), "never")
    other.bring_up(left)
    other.mixture(left).save(folder / "model")
    return weights(folder)


def test_the_hit_shard_alone_is_trained_anew_and_equals_one_that_never_had_the_item(
    made, dataset, items, second, cli, tmp_path
):
    before, out = weights(made.folder), tmp_path / "less"
    found = cli(*arguments(made.folder, out, second[:1]))
    assert found.code == 0, found.err
    assert f"deleted 1 of {len(items)} items; trained anew: 1 of 3 shards, 3 steps" in found.out
    assert weights(made.folder) == before
    assert weights(out) == never(made, dataset, np.setdiff1d(items, second[:1]), tmp_path / "never")
    assert len({*before.values()} & {*weights(out).values()}) == COUNT - 1
    assert len([*(out / FOLDER).glob("shard-*")]) == COUNT
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["start"], manifest["deletion"]["hit"], manifest["deletion"]["steps"]) == ("shards", [2], 3)
    (entry,) = read_chain(out / "model").requests
    assert (entry.by, entry.positions.tolist()) == ("sharded", second[:1])
    listed = cli("forget-traces", out).out
    assert re.search(r"run/shards .* saw all items", listed)
    assert re.search(r"^shards .* saw the retain items of removal", listed, flags=re.M)
    again = tmp_path / "again"
    assert cli(*arguments(out, again, second[1:])).code == 0
    assert weights(again) == never(made, dataset, np.setdiff1d(items, second), tmp_path / "never-both")
    assert [entry.positions.tolist() for entry in read_chain(again / "model").requests] == [second[:1], second[1:]]
    gone = cli(*arguments(again, tmp_path / "none", second))
    assert (gone.code, "the request selects no training item" in gone.err) == (2, True)


def killed(given):
    """A process that is killed when the shard's training has ended, before its model is written."""
    shards.Trainer.save = lambda trainer: os.kill(os.getpid(), signal.SIGKILL)
    return main([str(each) for each in given])


def test_a_killed_deletion_goes_on_with_resume(made, dataset, items, second, cli, tmp_path):
    out = tmp_path / "less"
    running = Forked(lambda: killed(arguments(made.folder, out, second)))
    assert running.ended() == -signal.SIGKILL
    assert not (out / "model").exists()
    assert len([*(out / FOLDER).glob("shard-*/trained.json")]) == COUNT - 1
    refused = cli(*arguments(made.folder, out, second))
    assert (refused.code, "--resume" in refused.err) == (2, True)
    assert cli(*arguments(made.folder, out, second, "--resume")).code == 0
    assert weights(out) == never(made, dataset, np.setdiff1d(items, second), tmp_path / "never")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["objective.name=redirect"],
            "objective.name: .* not fine-tuned; leave 'redirect' out",
        ),
        (["edit.name=dampen"], "edit.name: .* leave 'dampen' out"),
        (["shards.count=4"], "shards: .* is divided otherwise"),
        (["data.split_seed=9"], "models of other items than the config's data"),
        (["sampling.sampler=nosuch"], "unknown sampler"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(made, second, cli, tmp_path, more, said):
    found = cli(*arguments(made.folder, tmp_path / "out", second, *more))
    assert found.code == 2
    assert re.search(said, found.err)
    assert not (tmp_path / "out" / "model").exists()


def test_a_new_history_and_a_model_without_its_shards_are_refused(made, second, cli, tmp_path):
    fresh = cli(*arguments(made.folder, tmp_path / "out", second), "--fresh-chain")
    assert (fresh.code, "--fresh-chain: models of shards hold no item" in fresh.err) == (2, True)
    shutil.copytree(made.folder / "model", tmp_path / "alone" / "model")
    alone = cli(*arguments(tmp_path / "alone", tmp_path / "out", second))
    assert (alone.code, "holds no sharded generator" in alone.err) == (2, True)


def test_shards_in_a_config_are_refused_for_other_models(cli, tmp_path):
    msgm.ScoreModel.new("unet", "vp", channels=[8]).save(tmp_path / "plain" / "model")
    found = cli(*arguments(tmp_path / "plain", tmp_path / "out", [3], "shards.count=4"))
    assert (found.code, "unlearn --from one of these deletes from it" in found.err) == (2, True)
