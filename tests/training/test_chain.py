"""A second request leaves the first one alone: generators."""

import hashlib
import json
import os
import shutil
import stat

import numpy as np
import pytest
import yaml

from msgm.chain import read_chain
from msgm.config import load_config
from msgm.data import Dataset, load_dataset
from msgm.data.feed import EpochOrder
from msgm.diffusion import ScoreModel
from msgm.digests import KEY
from msgm.errors import UserError
from msgm.reading import read_json
from msgm.runs import Run
from msgm.training import train, unlearn
from msgm.training.earlier import chain_of
from msgm.training.run import load_data
from tests.conftest import TINY

REDIRECT = ["objective.name=redirect", "training.steps=2"]


def experiment(labels: str, *overrides: str):
    return load_config(None, [*TINY, f"request.labels={labels}", *REDIRECT, *overrides])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An original and the results of two requests, one after the other."""
    folder = tmp_path_factory.mktemp("chain")
    train(load_config(None, [*TINY, "objective.name=standard", "training.steps=2"]), folder / "O", device="cpu")
    unlearn(experiment("[3]"), folder / "O", folder / "A", device="cpu")
    unlearn(experiment("[5]"), folder / "A", folder / "B", device="cpu")
    return folder


@pytest.fixture
def read(monkeypatch) -> set[int]:
    """The items that are trained on, or taken out of the data, from here on."""
    found: set[int] = set()
    init, take, digests = EpochOrder.__init__, Dataset.take, Dataset.item_digests

    def ordered(self, indices, seed, stream):
        found.update(indices.tolist())
        init(self, indices, seed, stream)

    def taken(self, indices):
        found.update(np.asarray(indices).tolist())
        return take(self, indices)

    def unseen(self):
        """Yield the contents for digests, which no model sees."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Dataset, "take", take)
            return list(digests(self))

    monkeypatch.setattr(EpochOrder, "__init__", ordered)
    monkeypatch.setattr(Dataset, "take", taken)
    monkeypatch.setattr(Dataset, "item_digests", unseen)
    return found


def items_of(*labels: int) -> set[int]:
    return set(np.flatnonzero(np.isin(load_dataset("digits").labels, labels)).tolist())


def texts(folder) -> list[str]:
    return [entry.text.rsplit(" ", 1)[-1] for entry in read_chain(folder / "model").requests]


def test_each_model_folder_says_what_it_was_asked(runs):
    assert [texts(runs / name) for name in "OAB"] == [[], ["3"], ["3", "5"]]
    entry = read_chain(runs / "B" / "model").requests[0]
    assert set(entry.positions.tolist()) == items_of(3)
    assert (entry.by, entry.selector) == ("redirect", "labels")
    assert read_json(runs / "B" / "manifest.json")["items"]["gone"] > 0


def test_the_key_is_nobody_elses_and_no_part_of_the_model(runs):
    assert stat.S_IMODE(os.stat(runs / "B" / KEY).st_mode) == 0o600
    assert not list((runs / "B" / "model").rglob("*key*"))
    assert (runs / "A" / KEY).read_bytes() != (runs / "B" / KEY).read_bytes()


@pytest.mark.parametrize("name", ["redirect", "unseen", "orthogonal", "erasediff"])
def test_no_item_of_the_first_request_is_read_again(runs, tmp_path, read, name):
    options = ["objective.variant=marginal", "objective.teacher_steps=2"] if name == "orthogonal" else []
    unlearn(experiment("[5]", f"objective.name={name}", *options), runs / "A", tmp_path / "B", device="cpu")
    assert read
    assert not read & items_of(3)
    assert read & items_of(5) or name == "unseen"


def test_a_copied_model_folder_keeps_its_chain(runs, tmp_path, capsys):
    shutil.copytree(runs / "A" / "model", tmp_path / "elsewhere")
    unlearn(experiment("[5]"), tmp_path / "elsewhere", tmp_path / "B", device="cpu")
    assert texts(tmp_path / "B") == ["3", "5"]
    assert "known by position alone" in capsys.readouterr().out


def test_a_loaded_and_saved_model_keeps_its_chain(runs, tmp_path):
    ScoreModel.load(runs / "B" / "model").save(tmp_path / "model")
    assert texts(tmp_path) == ["3", "5"]


def test_out_of_the_source_itself_is_refused(runs, cli, tmp_path):
    shutil.copytree(runs / "A", tmp_path / "A")
    os.symlink(tmp_path / "A", tmp_path / "same")
    config = tmp_path / "c.yaml"
    config.write_text(experiment("[5]").to_yaml())
    for out in ("A", "same"):
        found = cli("unlearn", config, "--from", tmp_path / "A", "--out", tmp_path / out, "--device", "cpu")
        assert found.code == 2
        assert "holds the model of --from" in found.err
    assert texts(tmp_path / "A") == ["3"]


def swapped(dataset: Dataset) -> None:
    dataset.items[[10, 20]] = dataset.items[[20, 10]]
    dataset.labels[[10, 20]] = dataset.labels[[20, 10]]


def changed(dataset: Dataset) -> None:
    dataset.items[7, 0, 0, 0] = 15 - dataset.items[7, 0, 0, 0]


@pytest.mark.parametrize(("change", "told"), [(swapped, "item 10 .*stands at 20 now"), (changed, "item 7 .*nowhere")])
def test_other_data_is_refused(runs, tmp_path, monkeypatch, change, told):
    def other(settings):
        dataset = load_dataset(settings)
        dataset.items, dataset.labels = dataset.items.clone(), dataset.labels.copy()
        change(dataset)
        return dataset

    monkeypatch.setattr("msgm.training.run.load_dataset", other)
    with pytest.raises(UserError, match=told):
        unlearn(experiment("[5]"), runs / "A", tmp_path / "B", device="cpu")
    assert not (tmp_path / "B").exists()


def test_another_split_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="data.split_seed is 4 here and was 0"):
        unlearn(experiment("[5]", "data.split_seed=4"), runs / "A", tmp_path / "B", device="cpu")


def test_starting_anew_is_a_named_option(runs, cli, tmp_path, read):
    config = tmp_path / "c.yaml"
    config.write_text(experiment("[5]").to_yaml())
    found = cli("unlearn", config, "--from", runs / "A", "--fresh-chain", "--out", tmp_path / "B", "--device", "cpu")
    assert found.code == 0
    assert texts(tmp_path / "B") == ["5"]
    assert read & items_of(3)
    anew = read_chain(tmp_path / "B" / "model").anew
    assert len(anew) == 1
    assert anew[0].endswith("labels 3")


def test_a_request_that_was_answered_before_may_be_asked_again_and_brings_nothing_back(runs, tmp_path, read):
    unlearn(experiment("[3]"), runs / "B", tmp_path / "C", device="cpu")
    assert texts(tmp_path / "C") == ["3", "5", "3"]
    assert not read & items_of(5)


def test_what_was_forgotten_before_is_no_part_of_a_new_request(runs, tmp_path):
    with pytest.raises(UserError, match="all that it names was forgotten before"):
        item = min(items_of(3))
        unlearn(experiment("[]", f"request.indices=[{item}]"), runs / "A", tmp_path / "B", device="cpu")


def test_retraining_without_the_items_is_a_request_answered_too(runs, tmp_path):
    train(experiment("[3]", "objective.name=unseen"), tmp_path / "A", device="cpu")
    assert texts(tmp_path / "A") == ["3"]
    assert read_chain(tmp_path / "A" / "model").requests[0].by == "unseen from random weights"


def first_version(folder, source=None, labels: str = "[3]") -> None:
    """Make a run of this version one of the first, which wrote no chain, no key and plain digests."""
    (folder / "model" / "chain.json").unlink()
    (folder / KEY).unlink(missing_ok=True)
    manifest = read_json(folder / "manifest.json")
    del manifest["items"]["gone"]
    digits, split = load_data(experiment(labels))
    manifest["forget_digest"] = hashlib.sha256(split.train.forget.tobytes()).hexdigest()[:16]
    content = digits.items.numpy().tobytes() + digits.labels.tobytes()
    manifest["data_digest"] = hashlib.sha256(content).hexdigest()[:16]
    if source is not None:
        manifest["source"] = source
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_runs_of_the_first_version_are_read_with_their_sources(runs, tmp_path, capsys):
    for name in "OA":
        shutil.copytree(runs / name, tmp_path / "runs" / name)
    first_version(tmp_path / "runs" / "O")
    first_version(tmp_path / "runs" / "A", "runs/O/model")
    unlearn(experiment("[5]"), tmp_path / "runs" / "A", tmp_path / "runs" / "B", device="cpu")
    assert texts(tmp_path / "runs" / "B") == ["3", "5"]
    said = capsys.readouterr().out
    assert said.count("first version") == 1
    assert "labels 3" in said
    # B of the first version had forgotten 3 in its source A, and 5 itself, with 3 as items to retain.
    first_version(tmp_path / "runs" / "B", "runs/A/model", "[5]")
    manifest = read_json(tmp_path / "runs" / "B" / "manifest.json")
    chain = chain_of(tmp_path / "runs" / "B" / "model", load_dataset("digits"))
    assert [entry.text[-1] for entry in chain.requests] == ["3", "5"]
    assert manifest["start"] == "finetune"
    assert [entry.date for entry in chain.requests] == [None, None]


def test_a_first_version_run_on_other_items_is_refused(runs, tmp_path):
    shutil.copytree(runs / "A", tmp_path / "A")
    first_version(tmp_path / "A")
    tree = yaml.safe_load((tmp_path / "A" / "config.yaml").read_text())
    tree["request"]["labels"] = [4]
    (tmp_path / "A" / "config.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match="names other items than when it was made"):
        chain_of(tmp_path / "A" / "model", load_dataset("digits"))


def test_a_source_that_is_not_here_is_said(runs, tmp_path, capsys):
    shutil.copytree(runs / "A", tmp_path / "A")
    first_version(tmp_path / "A", "runs/lost/model")
    chain = chain_of(tmp_path / "A" / "model", load_dataset("digits"))
    assert chain.unknown
    assert "runs/lost/model" in chain.unknown
    assert "which is no run that is here" in capsys.readouterr().out


def test_a_model_made_elsewhere_has_no_known_chain(runs, tmp_path, capsys):
    shutil.copytree(runs / "O" / "model", tmp_path / "foreign")
    (tmp_path / "foreign" / "chain.json").unlink()
    unlearn(experiment("[5]"), tmp_path / "foreign", tmp_path / "B", device="cpu")
    assert "not known" in capsys.readouterr().out
    assert "no chain.json" in read_chain(tmp_path / "B" / "model").unknown


def test_a_run_that_goes_on_after_a_stop_has_its_chain(runs, tmp_path):
    config = experiment("[5]")
    run = unlearn(config, runs / "A", tmp_path / "B", device="cpu")
    shutil.rmtree(run.model)
    unlearn(config, runs / "A", tmp_path / "B", resume=True, device="cpu")
    assert texts(Run(tmp_path / "B").path) == ["3", "5"]
