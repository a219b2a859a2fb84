"""README's recommender commands, in its order, on experiments that take seconds."""

import re
import shlex
from pathlib import Path

import pytest

from msgm import cli

ROOT = Path(__file__).parent.parent.parent
TINY = """\
extends: {original}
data: {{users: 60, items: 40, interactions: 900}}
seeds: {seeds}
models: {models}
"""
README = (ROOT / "README.md").read_text()


def commands():
    blocks = re.findall(r"^```sh\n(.*?)^```", README, flags=re.S | re.M)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("msgm recommender")]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with tiny stand-ins of the configs, and a file of one user to forget."""
    folder = ROOT / "configs" / "recommender"
    (tmp_path / "configs" / "recommender").mkdir(parents=True)
    for name, models in (("synthetic", "{ease: {}}"), ("attributes", "{als: {factors: 4}}")):
        text = TINY.format(original=folder / f"{name}.yaml", models=models, seeds=1)
        (tmp_path / "configs" / "recommender" / f"{name}.yaml").write_text(text)
    (tmp_path / "gone.txt").write_text("user2\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_compares_first():
    assert commands()[0] == ["recommender", "compare", "configs/recommender/synthetic.yaml"]


def test_a_served_model_forgets(place, capsys):
    shop = [arguments for arguments in commands() if arguments[1] in ("fit", "recommend", "forget")]
    assert [arguments[1] for arguments in shop] == ["fit", "recommend", "forget"]
    for arguments in shop:
        assert cli.main(arguments) == 0, capsys.readouterr().err
    out = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("item") for line in out) == 10
    assert any("answered 1 request" in line for line in out)


def test_cards_are_printed_and_configurations_named_exist(capsys):
    for what in ("models", "methods", "erasures"):
        assert cli.main(["recommender", what]) == 0
    assert "EASE" in capsys.readouterr().out
    named = set(re.findall(r"configs/recommender/\w+\.yaml", README))
    assert named
    assert all((ROOT / name).is_file() for name in named)
