"""Folders that somebody sent: nothing in them is run, opened or fetched unless the user trusts them."""

import json
import re

import pytest

from msgm.diffusion import NETWORKS
from msgm.errors import UserError
from msgm.plugins import load_received, plugins_of, trusting
from msgm.recommender.models import MODELS
from tests.conftest import DIGITS, TINY, settings

SPY = "from pathlib import Path\nPath({mark!r}).write_text('ran')\ndef chosen(item, label):\n    return label == 3\n"
NETWORK = """
from dataclasses import dataclass
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from msgm.diffusion.networks import NETWORKS, Network, NetworkSettings

class Scale(Network):
    name = "scale"
    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 3, padding=1)
    @property
    def item_dims(self):
        return self.layer.in_channels
    def forward(self, x, label):
        return self.layer(x)
    def save(self, folder):
        (folder / "scale").mkdir()
        save_file(self.state_dict(), folder / "scale" / "weights.safetensors")
    {load}

@NETWORKS.register("scale")
@dataclass
class ScaleSettings(NetworkSettings):
    def build(self, shape):
        return Scale(shape[0])
"""
LOAD = """
    @classmethod
    def load(cls, folder):
        weights = load_file(folder / "scale" / "weights.safetensors")
        network = cls(len(weights["layer.bias"]))
        network.load_state_dict(weights)
        return network
"""
MODEL = """
from dataclasses import dataclass
import numpy as np
from msgm.recommender.models.base import MODELS
from msgm.recommender.models.ease import EASE

@MODELS.register("mine")
@dataclass
class Mine(EASE):
    pass
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from msgm.cli import main

    out = tmp_path_factory.mktemp("run") / "run"
    assert main(["train", str(DIGITS), "--out", str(out), *settings(TINY)]) == 0
    return out


@pytest.fixture
def received(trained, tmp_path):
    """A copy of a run with something more in its config, and the file that a plugin leaves when it is run."""
    import shutil

    run, mark, spy = tmp_path / "received", tmp_path / "ran", tmp_path / "spy.py"
    shutil.copytree(trained, run)
    spy.write_text(SPY.format(mark=str(mark)))

    def make(old, new):
        text = (run / "config.yaml").read_text()
        assert re.search(old, text, re.M), text
        (run / "config.yaml").write_text(re.sub(old, new.replace("SPY", str(spy)), text, count=1, flags=re.M))
        return run, mark

    return make


COMMANDS = {
    "data": ["data", "RUN"],
    "sample": ["sample", "RUN", "-n", "2", "--steps", "2", "--out", "OUT"],
    "evaluate": [
        "evaluate",
        "RUN",
        "--out",
        "OUT",
        *settings(["evaluation.samples=4", "evaluation.metrics=[ur]", "sampling.steps=2"]),
    ],
    "inpaint": ["inpaint", "RUN", "--mask", "left", "-n", "2", "--steps", "2", "--out", "OUT"],
    "reconstruct": ["reconstruct", "RUN", "-n", "2", "--steps", "2", "--out", "OUT"],
}
FAST = settings(["evaluation.judge.epochs=1"])


def arguments(command, run, out):
    whole = COMMANDS[command] + (FAST if command not in ("sample", "data") else [])
    return [{"RUN": run, "OUT": out}.get(one, one) for one in whole]


@pytest.mark.parametrize("command", COMMANDS)
def test_plugins_of_a_received_run_are_run_only_when_trusted(command, received, cli, tmp_path):
    run, mark = received(r"^plugins: \[\]", "plugins: ['SPY']")
    done = cli(*arguments(command, run, tmp_path / "out"))
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert f"{run}/config.yaml names plugins: {tmp_path}/spy.py, which would be run" in done.err
    assert "--trust" in done.err
    assert not mark.exists()
    assert cli(*arguments(command, run, tmp_path / "out"), "--trust").code == 0
    assert mark.exists()


@pytest.mark.parametrize("command", ["evaluate", "inpaint", "reconstruct", "data"])
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (r"predicate: null", "predicate: 'SPY:chosen'", "request.predicate"),
        (r"^  file: null", "  file: /etc/passwd", "request.file: /etc/passwd, which would be opened"),
        (r"^plugins: \[\]", "plugins: []\nextends: /etc/passwd", "extends no other file"),
        (r"^  name: digits", "  name: table\n  path: /etc/passwd", "data.path: /etc/passwd, which would be opened"),
        (r"^  name: digits", "  name: mnist\n  download: true", "data.download: true, by which files would be fetched"),
        (r"^  name: digits", "  name: mnist\n  download: 'yes'", "data.download: yes, by which files would be fetched"),
        (r"^  name: digits", "  name: mnist\n  download: 1", "data.download: 1, by which files would be fetched"),
    ],
)
def test_what_a_received_run_names_is_not_run_opened_or_fetched(command, old, new, said, received, cli, tmp_path):
    run, mark = received(old, new)
    done = cli(*arguments(command, run, tmp_path / "out"))
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert said in done.err
    assert "root:" not in done.err + done.out
    assert not mark.exists()


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_samples_need_no_trust_in_the_data_that_a_run_names(command, received, cli, tmp_path):
    run, _ = received(r"^  name: digits", "  name: folder\n  root: pictures")
    done = cli(*arguments(command, run, tmp_path / "out"))
    if command == "sample":
        assert done.code == 0
    else:
        assert "data.root: pictures, which would be opened" in done.err


def test_a_received_run_reads_nothing_of_the_environment(received, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    run, _ = received(r"^name: .*", "name: ${oc.env:SECRET}")
    done = cli(*arguments("evaluate", run, tmp_path / "out"))
    assert done.code == 0
    texts = [path.read_text() for path in (tmp_path / "out").glob("report.*")]
    assert texts
    assert not any("hunter2" in text for text in [*texts, done.out, done.err])
    run, _ = received(r"^  sampler: .*", "  sampler: ${oc.env:SECRET}")
    for command in ("sample", "evaluate"):
        done = cli(*arguments(command, run, tmp_path / "other"))
        assert done.code == 2
        assert "hunter2" not in done.err


def test_a_received_config_that_is_no_yaml_shows_nothing_of_itself(received, cli, tmp_path):
    run, _ = received(r"^name: .*", "root:x:0:0: secret: {{")
    done = cli(*arguments("sample", run, tmp_path / "out"))
    assert done.code == 2
    assert "secret" not in done.err


@pytest.mark.parametrize("content", ["", "name: x\n", "seed: 0\n"])
def test_an_empty_or_half_config_does_not_mean_the_defaults(content, received, cli, tmp_path):
    run, _ = received(r"^name: ", "name: ")
    (run / "config.yaml").write_text(content)
    for command in COMMANDS:
        done = cli(*arguments(command, run, tmp_path / "out"))
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert str(run / "config.yaml") in done.err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_that_names_nothing_needs_no_trust(command, trained, cli, tmp_path):
    assert cli(*arguments(command, trained, tmp_path / "out")).code == 0


def test_a_config_that_the_user_names_runs(received, cli, tmp_path):
    run, mark = received(r"^plugins: \[\]", "plugins: ['SPY']")
    done = cli(*arguments("evaluate", run, tmp_path / "out"), "--config", run / "config.yaml")
    assert done.code == 0
    assert mark.exists()


def test_what_the_user_names_too_is_his(tmp_path):
    (tmp_path / "config.yaml").write_text("plugins: [/a.py]\ndata: {path: /x.csv}\nnetwork: {function: 'b.py:f'}\n")
    own = {"plugins": ["/a.py"], "data": {"path": "/x.csv"}, "network": {"function": "b.py:f"}}
    assert load_received(tmp_path, own=own)["plugins"] == ["/a.py"]
    for key in own:
        with pytest.raises(UserError, match="--trust"):
            load_received(tmp_path, own={name: part for name, part in own.items() if name != key})
    with trusting():
        assert load_received(tmp_path)["data"] == {"path": "/x.csv"}
    with pytest.raises(UserError, match="is not whole: it lacks seed"):
        load_received(tmp_path, ["plugins", "seed"], own)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.setattr(NETWORKS, "entries", dict(NETWORKS.entries))
    path = tmp_path / "scale.py"
    path.write_text(NETWORK.replace("{load}", LOAD.strip()))
    return path


def forgotten(monkeypatch, path):
    """A process in which the plugin was never imported."""
    import sys

    for registry in (NETWORKS, MODELS):
        monkeypatch.setattr(registry, "entries", {k: v for k, v in registry.entries.items() if not plugins_of(v)})
    for name in [name for name in sys.modules if name.startswith(f"msgm_plugin_{path.stem}_")]:
        del sys.modules[name]


@pytest.fixture
def mine(plugin, tmp_path, cli):
    """A config with a plugin's network, and a run of it."""
    config = tmp_path / "mine.yaml"
    config.write_text(
        f"plugins: [{plugin}]\nrequest: {{labels: [3]}}\nnetwork: {{name: scale}}\nobjective: {{name: unseen}}\n"
        "training: {steps: 2, batch_size: 8, trackers: []}\nsampling: {steps: 2}\n"
    )
    assert cli("train", config, "--out", tmp_path / "run").code == 0
    return config, tmp_path / "run"


def test_a_model_folder_names_the_plugin_of_its_network(mine, plugin):
    import hashlib

    stored = json.loads((mine[1] / "model" / "process.json").read_text())
    assert stored["plugins"] == [{"path": str(plugin), "sha256": hashlib.sha256(plugin.read_bytes()).hexdigest()}]


@pytest.mark.parametrize("command", ["sample", "evaluate", "compare", "unlearn"])
def test_a_model_whose_network_is_a_plugin_is_loaded_again(command, mine, plugin, cli, tmp_path, monkeypatch):
    config, run = mine
    plain = tmp_path / "plain.yaml"
    plain.write_text(config.read_text().replace(f"plugins: [{plugin}]\n", "").replace("network: {name: scale}\n", ""))
    whole = {
        "sample": ["sample", run, "-n", 2],
        "evaluate": ["evaluate", run, *settings(["evaluation.samples=4", "evaluation.metrics=[ur]"]), *FAST],
        "compare": ["compare", plain, "--from", run, "--only", "do-nothing", *FAST, "--metrics", "ur"],
        "unlearn": ["unlearn", plain, "--from", run],
    }[command]
    whole += ["--out", tmp_path / "out"]
    forgotten(monkeypatch, plugin)
    done = cli(*whole)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"{plugin}, which would be run" in done.err
    assert not plugins_loaded(plugin)
    assert cli(*whole, "--trust").code == 0
    assert plugins_loaded(plugin)


def plugins_loaded(path):
    import sys

    return any(name.startswith(f"msgm_plugin_{path.stem}_") for name in sys.modules)


def test_a_named_config_that_imports_the_plugin_is_enough_and_another_version_is_said(
    mine, plugin, cli, tmp_path, monkeypatch
):
    config, run = mine
    done = cli("unlearn", config, "--from", run, "--out", tmp_path / "out")
    assert (done.code, "another version" in done.out) == (0, False)
    plugin.write_text(plugin.read_text() + "# changed\n")
    forgotten(monkeypatch, plugin)
    done = cli("unlearn", config, "--from", run, "--out", tmp_path / "again")
    assert (done.code, "was made with another version of scale.py" in done.out) == (0, True)


def test_a_plugin_that_is_gone_is_named(mine, plugin, cli, tmp_path, monkeypatch):
    _, run = mine
    plugin.unlink()
    forgotten(monkeypatch, plugin)
    done = cli("sample", run, "-n", 2, "--trust", "--out", tmp_path / "out")
    assert done.code == 2
    assert str(plugin) in done.err


def test_a_network_that_cannot_be_loaded_again_is_refused_before_it_is_trained(tmp_path, cli, monkeypatch):
    monkeypatch.setattr(NETWORKS, "entries", dict(NETWORKS.entries))
    path, config = tmp_path / "other.py", tmp_path / "mine.yaml"
    path.write_text(NETWORK.replace("{load}", "").replace('"scale"', '"unreadable"'))
    config.write_text(f"plugins: [{path}]\nrequest: {{labels: [3]}}\nnetwork: {{name: unreadable}}\n")
    done = cli("train", config, "--out", tmp_path / "run")
    assert done.code == 2
    assert "load(folder)" in done.err
    assert not (tmp_path / "run").exists()


def test_a_recommender_that_is_a_plugin_is_loaded_again_when_trusted(tmp_path, cli, monkeypatch):
    monkeypatch.setattr(MODELS, "entries", dict(MODELS.entries))
    path, config, folder = tmp_path / "mine.py", tmp_path / "mine.yaml", tmp_path / "served"
    path.write_text(MODEL)
    config.write_text(
        f"plugins: [{path}]\nmodels: {{mine: {{regularisation: 20.0}}}}\n"
        "data: {name: synthetic, users: 60, items: 40, interactions: 900, least: 5}\n"
    )
    (tmp_path / "users").write_text("user3\n")
    assert cli("recommender", "fit", config, "--out", folder).code == 0
    forgotten(monkeypatch, path)
    for command in (["recommend", folder, "--user", "user9"], ["forget", folder, "--users", tmp_path / "users"]):
        done = cli("recommender", *command)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert f"{path}, which would be run" in done.err
    assert not plugins_loaded(path)
    assert cli("recommender", "recommend", folder, "--user", "user9", "--trust").code == 0
    assert cli("recommender", "forget", folder, "--users", tmp_path / "users", "--trust").code == 0


def test_the_code_of_a_received_classifier_is_run_only_when_trusted(tmp_path, cli):
    mark, network = tmp_path / "ran", tmp_path / "network.py"
    network.write_text(
        "from torch import nn\n"
        "def make(shape, classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    common = "data: {name: digits}\ntraining: {epochs: 1}\nrequests: {threes: {labels: [3]}}\n"
    named, plain, run = tmp_path / "named.yaml", tmp_path / "plain.yaml", tmp_path / "run"
    named.write_text(f"{common}network: {{name: module, function: '{network}:make'}}\n")
    plain.write_text(common)
    assert cli("classifier", "train", named, "--out", run).code == 0
    asked = ["--from", run, "--method", "finetune", "--out", tmp_path / "out"]
    assert cli("classifier", "unlearn", named, *asked).code == 0
    spy = tmp_path / "spy.py"
    spy.write_text(SPY.format(mark=str(mark)) + "make = None\n")
    for file in (run / "config.yaml", run / "model" / "network.json"):
        before = file.read_text()
        file.write_text(before.replace(str(network), str(spy)))
        done = cli("classifier", "unlearn", named, *asked)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "which would be run" in done.err
        file.write_text(before)
    assert not mark.exists()


def test_pickled_weights_are_not_read(trained, tmp_path, cli):
    import shutil

    import torch

    shutil.copytree(trained / "model", tmp_path / "model")
    weights = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_name("diffusion_pytorch_model.bin"))
    weights.unlink()
    done = cli("sample", tmp_path / "model", "-n", 2, "--out", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (2, 1)
