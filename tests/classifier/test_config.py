import numpy as np
import pytest

from msgm.classifier.config import RequestSettings, load_config
from msgm.classifier.methods import METHODS
from msgm.classifier.metrics import METRICS
from msgm.data import load_dataset
from msgm.errors import UserError
from tests.conftest import ROOT


def test_every_registered_method_is_a_row_and_a_name_of_ones_own_is_one_more(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("methods:\n  finetune: {epochs: 2}\n  long: {name: finetune, epochs: 9}\n  ssd: null\n")
    rows = load_config(file).rows()
    assert set(rows) == set(METHODS.entries) - {"ssd"} | {"long"}
    assert (rows["finetune"].epochs, rows["long"].epochs, rows["long"].name) == (2, 9, "finetune")


def test_resolved_settings_are_read_back_the_same(tmp_path):
    config = load_config(None, ["requests.a.random=5", "methods.ssd=null", "methods.finetune.epochs=3"])
    file = tmp_path / "again.yaml"
    file.write_text(config.to_yaml())
    assert load_config(file).to_dict() == config.to_dict()


def test_a_file_extends_another_one_and_overrides_come_last(tmp_path):
    (tmp_path / "base.yaml").write_text("training: {epochs: 7, lr: 0.5}\nrequests: {a: {random: 3}}\n")
    (tmp_path / "c.yaml").write_text("extends: base.yaml\ntraining: {lr: 0.2}\n")
    config = load_config(tmp_path / "c.yaml", ["training.batch_size=8"])
    assert (config.training.epochs, config.training.lr, config.training.batch_size) == (7, 0.2, 8)
    assert config.requests["a"].random == 3


def test_costly_metrics_are_measured_when_asked_for_by_name_alone():
    default = {metric.name for metric in load_config().measures()}
    assert default == {name for name, metric in METRICS.entries.items() if not metric.costly}
    chosen = load_config(None, ["metrics=[accuracy,relearning]", "options.relearning.cap=5"]).measures()
    assert [metric.name for metric in chosen] == ["accuracy", "relearning"]
    assert chosen[1].cap == 5


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("nme=x", ["nme"]),
        ("seeds=0", ["seeds must be at least 1"]),
        ("methods.finetun.epochs=1", ["methods.finetun", "unknown method 'finetun'", "Did you mean 'finetune'?"]),
        ("methods.finetune.epoch=1", ["methods.finetune", "epoch"]),
        ("metrics=[acuracy]", ["metrics: unknown metric 'acuracy'", "Did you mean 'accuracy'?"]),
        ("options.acuracy.x=1", ["options: unknown metric 'acuracy'"]),
        ("requests.a.goal=removal", ["requests.a", "exactly one of", "random", "found none"]),
        ("requests.a={random: 5, labels: [1]}", ["request.labels and request.random"]),
        ("requests.a.random=0", ["requests.a.random must be at least 1"]),
        ("methods.scrub.epcohs=3", ["methods.scrub.epcohs: unknown setting; known: "]),
        ("methods.scrub=3", ["methods.scrub: expected settings by name", "got '3'"]),
        ("plugins=[nosuch.py]", ["plugins: the file 'nosuch.py' does not exist."]),
        ("plugins=[nosuch.txt]", ["plugins: 'nosuch.txt' is no Python file"]),
        ("network.name=mpl", ["unknown network 'mpl'", "Did you mean 'mlp'?"]),
        ("data.validation=0.3", ["data.validation means nothing to a classifier", "shares.tuning"]),
        ("shares.test=1.5", ["shares.test must lie between 0 and 1"]),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(override, parts):
    with pytest.raises(UserError) as error:
        load_config(None, [override])
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value)[0].isalpha()


def test_random_items_are_training_items_drawn_by_the_seed_and_the_request():
    digits, train = load_dataset("digits"), np.arange(0, 1000, 3)
    request = RequestSettings(random=20)
    masks = [request.chosen(digits, train, seed, name) for seed, name in [(1, "a"), (1, "a"), (2, "a"), (1, "b")]]
    assert [int(mask.sum()) for mask in masks] == [20, 20, 20, 20]
    assert np.isin(np.flatnonzero(masks[0]), train).all()
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    assert not np.array_equal(masks[0], masks[3])
    with pytest.raises(UserError, match="334 of 334 training items leave none"):
        RequestSettings(random=334).chosen(digits, train, 0, "a")
    assert np.array_equal(RequestSettings(labels=[3]).chosen(digits, train, 0, "a"), np.asarray(digits.labels == 3))


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "classifier").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_configs_load(path):
    config = load_config(path)
    assert config.requests
    assert config.retrains >= 5
    assert {"do-nothing", "retrain"} <= set(config.rows())
