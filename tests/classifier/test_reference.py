"""The commands of docs/reference/classifier.md, in their order, on an experiment that takes seconds."""

import re
import shlex
from pathlib import Path

import pytest

from msgm import cli
from msgm.classifier.methods import METHODS

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "reference" / "classifier.md").read_text()
PLUGINS = (ROOT / "docs" / "howto" / "plugin.md").read_text()
TINY = f"""\
extends: {ROOT / "configs" / "classifier" / "digits.yaml"}
network: {{hidden: [8]}}
training: {{epochs: 1}}
seeds: 1
metrics: [accuracy, forgetting-rate]
"""


def commands():
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.S | re.M)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("msgm classifier")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny stand-in of the digits' config, and a comparison of three methods in it."""
    folder = tmp_path_factory.mktemp("reference")
    config = folder / "configs" / "classifier" / "digits.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main([*commands()[0], "--only", "do-nothing,retrain", "--out", "runs/digits"]) == 0
    return folder


def test_the_page_compares_first():
    assert commands()[0] == ["classifier", "compare", "configs/classifier/digits.yaml"]
    assert {arguments[1] for arguments in commands()} == {"compare", "train", "unlearn", "methods", "metrics", "audit"}


def test_the_other_commands_run_in_their_order(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    outputs = place / "runs" / "digits" / "outputs" / "seed-0" / "random"
    files = {"TARGET.npz": outputs / "methods" / "retrain.npz", "ORIGINAL.npz": outputs / "original.npz"}
    files |= {f"{name}.npz": outputs / "retrains" / f"{number}.npz" for number, name in enumerate("ABCDE", start=1)}
    for arguments in commands()[1:]:
        assert cli.main([str(files.get(word, word)) for word in arguments]) == 0, capsys.readouterr().err
    assert (place / "runs" / "scrub" / "model" / "model.safetensors").is_file()
    assert (place / "runs" / "audit" / "card.html").is_file()


def test_the_method_of_ones_own_runs(place, monkeypatch, cli):
    monkeypatch.chdir(place)
    monkeypatch.setattr(METHODS, "entries", dict(METHODS.entries))  # the method goes with this test
    source = re.search(r"^```python\n(# noise\.py.*?)^```", PLUGINS, flags=re.S | re.M)
    (place / "noise.py").write_text(source[1])
    wanted = ["--only", "do-nothing,retrain,noise", "--requests", "random", "--out", "runs/noise"]
    done = cli(*commands()[0], "--set", "plugins=[noise.py]", *wanted)
    assert done.code == 0, done.err
    assert any(line.startswith("noise ") for line in done.out.splitlines())
