"""A second request leaves the first one alone: classifiers, SISA's kept ensemble among them."""

import json
import shutil

import numpy as np
import pytest
import torch

from msgm.chain import Chain, Entry, read_chain
from msgm.classifier import earlier
from msgm.classifier.config import ClassifierConfig, load_config
from msgm.classifier.data import Examples
from msgm.classifier.earlier import verdict_beside_chance
from msgm.classifier.experiment import Experiment
from msgm.classifier.outputs import load_outputs
from msgm.classifier.single import train, unlearn
from msgm.classifier.sisa import SISA
from msgm.classifier.store import load_classifier
from msgm.data import Dataset, load_dataset
from msgm.digests import KEY
from msgm.errors import UserError
from msgm.reading import read_json
from msgm.seeding import derive_seed

REQUESTS = [
    "requests.three.labels=[3]",
    "requests.five.labels=[5]",
    "requests.some={random: 20, goal: removal, target: observed}",
    "requests.random={random: 20, goal: removal, target: observed}",
]
QUICK = ["network.hidden=[16]", "training.epochs=6", "methods.sisa.shards=3", "methods.finetune.epochs=2"]


def config(*overrides: str) -> ClassifierConfig:
    return load_config(None, [*REQUESTS, *QUICK, *overrides])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An original, and chains of two requests by fine-tuning and by SISA."""
    folder = tmp_path_factory.mktemp("chain")
    train(config(), folder / "O", device="cpu")
    unlearn(config(), folder / "O", "retrain", "three", out=folder / "A", device="cpu")
    unlearn(config(), folder / "A", "finetune", "five", out=folder / "B", device="cpu")
    unlearn(config(), folder / "O", "sisa", "three", out=folder / "S1", device="cpu")
    return folder


@pytest.fixture
def read(monkeypatch) -> set[int]:
    """The items whose inputs are read from here on."""
    found: set[int] = set()
    inputs = Examples.inputs

    def watched(self, positions, device="cpu"):
        found.update(self.indices[np.asarray(positions)].tolist())
        return inputs(self, positions, device)

    monkeypatch.setattr(Examples, "inputs", watched)
    # What is measured afterwards reads earlier requests' items too.
    monkeypatch.setattr("msgm.classifier.single.tested", lambda *_: [])
    return found


def items_of(*labels: int) -> set[int]:
    return set(np.flatnonzero(np.isin(load_dataset("digits").labels, labels)).tolist())


def texts(folder) -> list[str]:
    return [entry.text for entry in read_chain(folder / "model").requests]


def history(folder) -> dict:
    return read_json(folder / "manifest.json")["history"]


def test_each_model_folder_says_what_it_was_asked(runs):
    assert texts(runs / "O") == []
    assert [text[-1] for text in texts(runs / "B")] == ["3", "5"]
    assert [entry.by for entry in read_chain(runs / "B" / "model").requests] == ["retrain", "finetune"]
    assert (runs / "B" / KEY).stat().st_mode & 0o777 == 0o600


def test_the_second_request_does_not_bring_the_first_one_back(runs):
    (earlier,) = history(runs / "B")["earlier"]
    assert earlier["text"].endswith("3")
    assert earlier["verdict"] == "PASS"
    assert earlier["numbers"]["accuracy on its training items"].startswith("0.0%")


@pytest.mark.parametrize(
    "method", ["finetune", "retrain", "ssd", "influence", "fisher", "scrub", "bad-teacher", "salun", "sisa", "neggrad"]
)
def test_no_method_reads_an_item_of_the_first_request(runs, tmp_path, read, method):
    small = {"influence": ["methods.influence.iterations=2"]}.get(method, [])
    unlearn(config(*small), runs / "A", method, "five", out=tmp_path / "B", device="cpu")
    assert read & items_of(5)
    assert not read & items_of(3)


def test_methods_that_forget_nothing_would_be_told(runs, tmp_path, capsys):
    """The negative control: with the history started anew, fine-tuning brings the first request back."""
    run = unlearn(config(), runs / "A", "finetune", "five", out=tmp_path / "B", device="cpu", fresh_chain=True)
    assert [text[-1] for text in texts(run.path)] == ["5"]
    assert history(run.path)["anew"] == ["suppression of the concept given by labels 3"]
    again = unlearn(config(), runs / "O", "do-nothing", "three", out=tmp_path / "N", device="cpu")
    capsys.readouterr()
    unlearn(config(), again.path, "do-nothing", "five", out=tmp_path / "M", device="cpu")
    assert history(tmp_path / "M")["earlier"][0]["verdict"] == "FAIL"
    assert "earlier request, suppression of the concept given by labels 3: FAIL" in capsys.readouterr().out


def test_items_of_instances_are_tested_by_membership(runs, tmp_path):
    run = unlearn(config(), runs / "O", "retrain", "some", out=tmp_path / "A", device="cpu")
    unlearn(config(), run.path, "retrain", "five", out=tmp_path / "B", device="cpu")
    (earlier,) = history(tmp_path / "B")["earlier"]
    assert set(earlier["numbers"]) == {
        "accuracy on its training items",
        "accuracy on held-out items of its classes",
        "AUC of membership by loss",
    }
    assert earlier["verdict"] in ("PASS", "INCONCLUSIVE")


def test_a_patient_who_was_forgotten_is_told_from_his_own_held_out_items_alone():
    """His items are easier than others' for a model that never saw any item, so that it has nothing to forget."""
    rng = np.random.default_rng(0)
    labels, his = rng.integers(0, 2, 2000), np.arange(2000) % 4 == 0
    items = (2 * labels - 1) * (rng.normal(size=2000) + 2 * his)
    patient = {"patient": np.where(his, "ann", "bob")}
    dataset = Dataset("d", torch.tensor(items).float()[:, None], (1,), None, labels, ["0", "1"], groups=patient)
    entry = Entry("removal of ann", "removal", "observed", "group", "retrain", "2026-01-01", np.flatnonzero(his))
    settings = load_config(None, ["requests.bobs={indices: [1]}"])
    experiment = Experiment(settings, dataset, 0, torch.device("cpu"), chain=Chain((entry,)))
    experiment.parts["train"] = np.union1d(experiment.parts["train"], [1])
    own = [at for part in ("nonmembers", "test") for at in experiment.parts[part] if his[at]]
    model = torch.nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model.bias.zero_()
    (found,) = earlier.tested(model, experiment, experiment.split("bobs"), "bobs")
    assert found.numbers["accuracy on held-out items of its classes"].endswith(f"of {len(own)}")
    area = float(found.numbers["AUC of membership by loss"].split()[0])
    assert area == pytest.approx(0.5, abs=0.06)
    assert found.verdict != "FAIL"


def test_the_logits_say_it_too(runs):
    found = load_outputs(runs / "B" / "outputs" / "five" / "finetune.npz")
    assert found.history == history(runs / "B")
    assert (runs / "B" / "outputs" / "five" / "source.npz").is_file()
    assert (runs / "A" / "outputs" / "three" / "original.npz").is_file()


def test_random_requests_of_two_names_draw_different_items(runs):
    digits = load_dataset("digits")
    experiment = Experiment(config(), digits, 0, torch.device("cpu"))
    one, other = (experiment.selected(name) for name in ("some", "random"))
    assert one.sum() == other.sum() == 20
    assert (one & other).sum() < 5


def test_a_random_request_draws_none_of_what_was_forgotten(runs, tmp_path):
    run = unlearn(config(), runs / "A", "retrain", "random", out=tmp_path / "B", device="cpu")
    first, second = read_chain(run.model).requests
    assert len(second.positions) == 20
    assert not set(first.positions) & set(second.positions)


@pytest.mark.parametrize("out", ["A", "link"])
def test_out_of_the_source_itself_is_refused(runs, tmp_path, out):
    shutil.copytree(runs / "A", tmp_path / "A")
    (tmp_path / "link").symlink_to(tmp_path / "A")
    with pytest.raises(UserError, match="holds the model of --from"):
        unlearn(config(), tmp_path / "A", "finetune", "five", out=tmp_path / out, device="cpu")
    assert texts(tmp_path / "A") == texts(runs / "A")


@pytest.mark.parametrize("file", ["A/model/model.safetensors", "S1/model/shards"])
def test_a_file_of_a_model_that_msgm_wrote_is_refused(runs, tmp_path, file):
    path = runs / file if file.endswith("safetensors") else next((runs / file).glob("*.safetensors"))
    with pytest.raises(UserError, match=r"is part of a model that msgm wrote.*give its run, .*(A|S1)\."):
        unlearn(config(), path, "finetune", "five", out=tmp_path / "B", device="cpu")


def test_a_model_that_was_asked_to_forget_is_not_overwritten(runs, tmp_path):
    shutil.copytree(runs / "A", tmp_path / "A")
    with pytest.raises(UserError, match="holds a model that was asked to forget.*would be lost"):
        train(config(), tmp_path / "A", device="cpu")
    with pytest.raises(UserError, match="holds a model that was asked to forget.*would be lost"):
        unlearn(config(), runs / "O", "retrain", "five", out=tmp_path / "A", device="cpu")
    assert texts(tmp_path / "A") == texts(runs / "A")


def test_the_same_command_again_writes_the_same_model(runs, tmp_path):
    again = [unlearn(config(), runs / "O", "finetune", "three", out=tmp_path / "A", device="cpu") for _ in range(2)]
    assert len(read_chain(again[1].model).requests) == 1


def test_other_data_is_refused(runs, tmp_path, monkeypatch):
    def other(settings):
        dataset = load_dataset(settings)
        dataset.items = dataset.items.clone()
        dataset.items[7, 0, 0, 0] = 15 - dataset.items[7, 0, 0, 0]
        return dataset

    monkeypatch.setattr("msgm.classifier.single.load_dataset", other)
    with pytest.raises(UserError, match="item 7 of the data is not the one that stood there"):
        unlearn(config(), runs / "A", "finetune", "five", out=tmp_path / "B", device="cpu")
    assert not (tmp_path / "B").exists()


def test_the_split_is_the_originals_whatever_the_config_says(runs, tmp_path):
    run = unlearn(config("seed=9"), runs / "A", "finetune", "five", out=tmp_path / "B", device="cpu")
    assert read_chain(run.model).data.split["seed"] == 0
    assert load_config(run.config).seed == 0


@pytest.mark.parametrize("seed", [None, -1, 1e300, 0.5])
def test_a_chain_without_a_seed_of_its_split_is_refused(runs, tmp_path, seed):
    shutil.copytree(runs / "A", tmp_path / "A")
    file = tmp_path / "A" / "model" / "chain.json"
    tree = read_json(file)
    tree["data"]["split"] |= {"seed": seed}
    if seed is None:
        del tree["data"]["split"]["seed"]
    file.write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"chain\.json: data\.split\.seed: expected a whole number"):
        unlearn(config(), tmp_path / "A", "finetune", "five", out=tmp_path / "B", device="cpu")


def test_a_network_that_no_memory_holds_is_refused(runs, tmp_path):
    shutil.copytree(runs / "A" / "model", tmp_path / "model")
    file = tmp_path / "model" / "network.json"
    file.write_text(json.dumps(read_json(file) | {"classes": 10**12}))
    with pytest.raises(UserError, match=r"network\.json: no such network can be made"):
        load_classifier(tmp_path / "model")


def test_a_file_of_weights_has_no_known_chain(runs, tmp_path, capsys):
    shutil.copy(runs / "A" / "model" / "model.safetensors", tmp_path / "w.safetensors")
    run = unlearn(config(), tmp_path / "w.safetensors", "finetune", "five", out=tmp_path / "B", device="cpu")
    assert "not known" in capsys.readouterr().out
    assert "is a file of weights" in history(run.path)["unknown"]


def in_memory(runs, *labels: int, **settings):
    """The system that forgets classes one after the other, never written down."""
    config_ = config()
    experiment = Experiment(config_, load_dataset("digits"), 0, torch.device("cpu"))
    seed = derive_seed(experiment.settings("method", 0).seed, "sisa")
    system = SISA(experiment.build, config_.training, seed, 3, 1, "mean", "cpu")
    train_items = Examples.of(experiment.dataset, experiment.parts["train"])
    system.fit(train_items)
    for label in labels:
        system.forget(train_items.indices[train_items.labels.numpy() == label])
    return system.ensemble()


def same_weights(one, other) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_sisa_keeps_its_ensemble_and_answers_the_next_request_bit_for_bit(runs, tmp_path):
    assert same_weights(load_classifier(runs / "S1" / "model"), in_memory(runs, 3))
    run = unlearn(config(), runs / "S1", "sisa", "five", out=tmp_path / "S2", device="cpu")
    assert same_weights(load_classifier(run.model), in_memory(runs, 3, 5))
    assert [text[-1] for text in texts(run.path)] == ["3", "5"]
    assert history(run.path)["earlier"][0]["verdict"] == "PASS"
    assert same_weights(load_classifier(runs / "S1" / "model"), in_memory(runs, 3))  # the source stays


def test_sisa_trains_no_shard_again_that_the_request_does_not_touch(runs, tmp_path):
    one = min(items_of(7) & set(Experiment(config(), load_dataset("digits"), 0, "cpu").parts["train"].tolist()))
    asked = config(f"requests.one.indices=[{one}]")
    run = unlearn(asked, runs / "S1", "sisa", "one", out=tmp_path / "S2", device="cpu")
    made = read_json(run.manifest)["artefacts"]
    assert (made["shards_retrained"], made["points_of_training"]) == (1, 0)


def test_sisa_after_another_method_never_sees_what_was_forgotten(runs, tmp_path):
    run = unlearn(config(), runs / "A", "sisa", "five", out=tmp_path / "S", device="cpu")
    assert same_weights(load_classifier(run.model), in_memory(runs, 3, 5))


def test_only_sisa_goes_on_with_an_ensemble(runs, tmp_path):
    with pytest.raises(UserError, match="an ensemble of shards, which only sisa goes on with"):
        unlearn(config(), runs / "S1", "finetune", "five", out=tmp_path / "B", device="cpu")
    with pytest.raises(UserError, match="other data, settings or versions"):
        unlearn(config("methods.sisa.shards=4"), runs / "S1", "sisa", "five", out=tmp_path / "B", device="cpu")
    assert not (tmp_path / "B" / "model").exists()


def test_no_weights_of_forgotten_stages_are_left(runs, tmp_path):
    run = unlearn(config(), runs / "S1", "sisa", "five", out=tmp_path / "S2", device="cpu")
    names = [path.name for path in (run.model / "shards").iterdir()]
    assert sum(name.endswith(".safetensors") for name in names) == 3
    assert not [path for path in run.path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("change", [{"models": {}}, {"models": {"../../x": 3}}, {"aggregation": "loud"}, {"models": 3}])
def test_a_damaged_ensemble_is_named(runs, tmp_path, change):
    shutil.copytree(runs / "S1", tmp_path / "S")
    file = tmp_path / "S" / "model" / "shards" / "ensemble.json"
    file.write_text(json.dumps(read_json(file) | change))
    with pytest.raises(UserError, match=r"ensemble\.json"):
        load_classifier(tmp_path / "S" / "model")


def first_version(folder, source: str, forget: str) -> None:
    """Make a result one of the first version, which wrote no chain, and no digest of the data where it unlearned."""
    (folder / "model" / "chain.json").unlink()
    (folder / KEY).unlink()
    manifest = read_json(folder / "manifest.json") | {"source": source, "forget_digest": forget}
    del manifest["history"], manifest["data_digest"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_runs_of_the_first_version_are_read_with_their_sources(runs, tmp_path, capsys):
    import hashlib

    for name in "OAB":
        shutil.copytree(runs / name, tmp_path / "runs" / name)
    digits = load_dataset("digits")
    trained = Experiment(config(), digits, 0, torch.device("cpu")).parts["train"]
    (tmp_path / "runs" / "O" / "model" / "chain.json").unlink()
    for name, source, label in (("A", "runs/O", 3), ("B", "runs/A", 5)):
        forgotten = trained[digits.labels[trained] == label]
        first_version(tmp_path / "runs" / name, source, hashlib.sha256(forgotten.tobytes()).hexdigest()[:16])
    capsys.readouterr()
    run = unlearn(config(), tmp_path / "runs" / "B", "finetune", "random", out=tmp_path / "C", device="cpu")
    assert capsys.readouterr().out.count("first version") == 1
    assert [text.rsplit(" ", 1)[-1] for text in texts(run.path)[:2]] == ["3", "5"]
    assert len(texts(run.path)) == 3
    assert [one["verdict"] for one in history(run.path)["earlier"]] == ["PASS", "FAIL"]


def test_a_first_version_run_on_other_items_is_refused(runs, tmp_path):
    shutil.copytree(runs / "A", tmp_path / "A")
    first_version(tmp_path / "A", str(runs / "O"), "0" * 16)
    with pytest.raises(UserError, match="none of its requests names the items that it forgot"):
        unlearn(config(), tmp_path / "A", "finetune", "five", out=tmp_path / "B", device="cpu")


def test_an_empty_chain_for_comparisons():
    experiment = Experiment(config(), load_dataset("digits"), 0, torch.device("cpu"))
    assert experiment.chain == Chain()
    assert experiment.split("three").gone is None


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.41, 0.59, "PASS"),
        (0.39, 0.59, "INCONCLUSIVE"),
        (0.41, 0.61, "INCONCLUSIVE"),
        (0.51, 0.52, "FAIL"),
        (0.01, 0.02, "FAIL"),
    ],
)
def test_items_that_look_less_like_members_are_told_too(low, high, verdict):
    assert verdict_beside_chance(low, high) == verdict
