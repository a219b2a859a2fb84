"""Models trained elsewhere: names of weights, items they were trained on, and how they read images."""

import numpy as np
import pytest
import torch

from msgm.classifier.data import Shares
from msgm.classifier.foreign import parts_around, trained_on, unwrapped
from msgm.classifier.networks import CLASSIFIERS, build
from msgm.classifier.outputs import load_outputs
from msgm.classifier.store import load_classifier
from msgm.data import load_dataset
from msgm.errors import UserError

WEIGHTS = {"0.weight": torch.zeros(2), "0.bias": torch.ones(2)}


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "model.module.", ""])
def test_what_wrappers_put_before_the_names_is_left_out(prefix):
    found = unwrapped({prefix + name: value for name, value in WEIGHTS.items()}, WEIGHTS)
    assert found == WEIGHTS


def test_a_networks_own_names_may_begin_like_a_wrappers():
    own = {f"model.{name}": value for name, value in WEIGHTS.items()}
    assert unwrapped(own, own) == own
    assert unwrapped({f"module.{name}": value for name, value in own.items()}, own) == own


def test_other_names_are_left_as_they_are():
    mixed = {"module.0.weight": WEIGHTS["0.weight"], "0.bias": WEIGHTS["0.bias"]}
    assert unwrapped(mixed, WEIGHTS) == mixed
    assert unwrapped({}, WEIGHTS) == {}


def test_items_that_a_model_was_trained_on_are_read_from_a_file(tmp_path):
    dataset = load_dataset({"name": "digits"})
    (tmp_path / "train.txt").write_text("5\n010\n7\n")
    assert np.flatnonzero(trained_on(tmp_path / "train.txt", dataset)).tolist() == [5, 7, 10]
    (tmp_path / "train.txt").write_text("5\n1797\n")
    with pytest.raises(UserError, match=r"original\.trained_on: index 1797 is out of range"):
        trained_on(tmp_path / "train.txt", dataset)


def test_the_other_items_are_held_out_in_proportion():
    trained = np.zeros(1000, dtype=bool)
    trained[:600] = True
    parts = parts_around(trained, Shares(tuning=0.1, nonmembers=0.2, test=0.1), seed=3)
    assert {name: len(found) for name, found in parts.items()} == {
        "train": 600,
        "tuning": 100,
        "nonmembers": 200,
        "test": 100,
    }
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(1000))
    assert parts["train"].tolist() == list(range(600))
    assert not np.array_equal(parts["test"], parts_around(trained, Shares(0.1, 0.2, 0.1), seed=4)["test"])


def test_a_model_trained_on_all_but_two_items_leaves_too_few():
    trained = np.ones(10, dtype=bool)
    trained[:2] = False
    with pytest.raises(UserError, match="2 items are left that the model was not trained on"):
        parts_around(trained, Shares(), seed=0)
    trained[2] = False
    assert [len(found) for found in parts_around(trained, Shares(), seed=0).values()] == [7, 1, 1, 1]


def normalised(**settings):
    return CLASSIFIERS.build({"name": "normalised", "network": {"name": "cnn", "width": 2}} | settings)


def test_a_normalised_network_sees_what_it_was_trained_to_see():
    network = build(normalised(range=[0, 255], mean=[100.0, 120.0, 140.0], std=[50.0, 60.0, 70.0]), (3, 8, 8), 4, 0)
    bare = build(CLASSIFIERS.build({"name": "cnn", "width": 2}), (3, 8, 8), 4, 0)
    assert network.state_dict().keys() == bare.state_dict().keys()
    levels = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    wanted = (levels - torch.tensor([100.0, 120, 140]).view(3, 1, 1)) / torch.tensor([50.0, 60, 70]).view(3, 1, 1)
    assert torch.allclose(network.eval()(levels / 127.5 - 1), bare.eval()(wanted), atol=1e-5)


def test_without_mean_and_deviation_the_range_alone_is_mapped():
    network = build(normalised(), (1, 8, 8), 4, 0).eval()
    bare = build(CLASSIFIERS.build({"name": "cnn", "width": 2}), (1, 8, 8), 4, 0).eval()
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network(2 * x - 1), bare(x), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"range": [1.0, 0.0]}, "network.range must be two finite numbers"),
        ({"range": [0.0]}, "network.range must be two finite numbers"),
        ({"std": [0.0]}, "network.std must be positive"),
        ({"mean": [0.0, 0.0]}, "network.mean: expected 1 numbers, one for each channel, or none"),
        ({"network": {"name": "cn"}}, "unknown network 'cn'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        build(normalised(**settings), (1, 8, 8), 4, 0)


def test_vectors_are_not_normalised():
    with pytest.raises(UserError, match="normalised is for images"):
        build(normalised(), (3,), 4, 0)


# Through the command line

CONFIG = """
name: own
seeds: 1
network: {name: mlp, hidden: [16]}
training: {epochs: 3}
requests: {few: {indices: [3, 4, 5, 8]}}
methods: {sisa: null}
metrics: [accuracy]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A config, weights saved by a training script, and the items that it trained on."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "c.yaml").write_text(CONFIG)
    network = build(CLASSIFIERS.build({"name": "mlp", "hidden": [16]}), (1, 8, 8), 10, 7)
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, folder / "mine.pt")
    (folder / "train.txt").write_text("".join(f"{n}\n" for n in range(1000)))
    return folder


def test_a_comparison_takes_an_own_model_and_what_it_was_trained_on(place, cli):
    given = ["--from", place / "mine.pt", "--trained-on", place / "train.txt", "--only", "do-nothing,retrain"]
    done = cli("classifier", "compare", place / "c.yaml", *given, "--out", place / "run")
    assert done.code == 0, done.err
    assert "unseen only if the model was trained on what" in done.out
    outputs = load_outputs(place / "run" / "outputs" / "seed-0" / "few" / "original.npz")
    assert len(outputs.labels["retain"]) == 996
    assert sum(len(outputs.labels[part]) for part in ("tuning", "nonmembers", "test")) == 797
    kept = load_classifier(place / "run" / "models" / "seed-0" / "original")
    saved = torch.load(place / "mine.pt", weights_only=True)["state_dict"]
    for name, value in kept.state_dict().items():
        assert torch.equal(value, saved[f"module.{name}"])
    other = cli("classifier", "compare", place / "c.yaml", "--only", "do-nothing", "--out", place / "run")
    assert "original.weights" in other.err


def test_one_request_takes_an_own_model_too(place, cli):
    given = ["--from", place / "mine.pt", "--trained-on", place / "train.txt", "--method", "finetune"]
    done = cli("classifier", "unlearn", place / "c.yaml", *given, "--out", place / "one")
    assert done.code == 0, done.err
    assert len(load_outputs(place / "one" / "outputs" / "few" / "original.npz").labels["forget"]) == 4


def test_later_requests_know_what_the_own_model_was_trained_on(place, cli):
    given = ["--from", place / "mine.pt", "--trained-on", place / "train.txt", "--method", "finetune"]
    assert cli("classifier", "unlearn", place / "c.yaml", *given, "--out", place / "first").code == 0
    for source, index, out in (("first", 20, "second"), ("second", 30, "third")):
        change = ["--set", f"requests.few.indices=[{index}]", "--method", "finetune", "--trust"]
        done = cli("classifier", "unlearn", place / "c.yaml", "--from", place / source, *change, "--out", place / out)
        assert done.code == 0, done.err
    labels = load_outputs(place / "third" / "outputs" / "few" / "finetune.npz").labels
    # Of the 1,000 items that it was trained on, 4 and 1 are gone and 1 is forgotten now; the others stay held out.
    assert (len(labels["retain"]), len(labels["forget"])) == (994, 1)
    assert sum(len(labels[part]) for part in ("tuning", "nonmembers", "test")) == 797


def test_items_it_was_not_trained_on_cannot_be_forgotten(place, cli):
    given = ["--from", place / "mine.pt", "--trained-on", place / "train.txt", "--only", "do-nothing"]
    change = ["--set", "requests.few.indices=[1500]", "--out", place / "none"]
    done = cli("classifier", "compare", place / "c.yaml", *given, *change)
    assert (done.code, "selects no training item" in done.err) == (2, True)


def test_a_file_of_items_without_weights_is_refused(place, cli):
    done = cli("classifier", "compare", place / "c.yaml", "--trained-on", place / "train.txt")
    assert (done.code, "--trained-on belongs to a file of weights" in done.err) == (2, True)
