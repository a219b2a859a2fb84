"""Configs that msgm brings along are found by name, by every command that takes a config."""

import re
from pathlib import Path

import pytest

from msgm import configs
from msgm.config import load_config
from msgm.errors import UserError
from msgm.settings import module_of, read_settings
from tests.conftest import ROOT

TINY = ["training.steps=2", "network.channels=[8]", "evaluation.samples=8"]


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_yaml_file_of_the_repository_has_a_name():
    files = {path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in ROOT.glob("configs/**/*.yaml")}
    assert set(configs.names()) == files
    assert "recommender/ml100k" in files


@pytest.mark.parametrize("name", ["digits/vp", "digits/vp.yaml", Path("digits/vp"), "configs/digits/vp.yaml"])
def test_a_name_is_found_in_any_working_folder(empty, name):
    assert configs.find(name).samefile(ROOT / "configs/digits/vp.yaml")


def test_a_path_that_exists_goes_before_a_name(empty):
    (empty / "digits").mkdir()
    own = empty / "digits/vp.yaml"
    own.write_text("name: mine\n")
    assert configs.find("digits/vp.yaml") == Path("digits/vp.yaml")
    assert load_config("digits/vp.yaml").name == "mine"
    assert load_config("digits/vp").name == "digits-vp"


@pytest.mark.parametrize(
    ("given", "meant"),
    [("digits/vq", "digits/vp"), ("configs/mnist/vf.yaml", "mnist/ve"), ("classifer/digits", "classifier/digits")],
)
def test_what_is_neither_file_nor_name_is_one_sentence_with_the_nearest_name(empty, given, meant):
    sentence = f"{given} does not exist, and msgm configs lists no {given!r}. Did you mean {meant!r}?"
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}$"):
        configs.find(given)


def test_a_config_may_extend_a_shipped_one(empty):
    (empty / "own.yaml").write_text("extends: digits/ve\nname: own\n")
    config = load_config("own.yaml")
    assert (config.name, config.process["name"], config.network["channels"]) == ("own", "ve", [16, 32])


def test_a_file_beside_a_config_goes_before_the_shipped_name_that_it_extends(empty):
    (empty / "sub/digits").mkdir(parents=True)
    (empty / "sub/digits/vp").write_text("name: beside\n")
    (empty / "sub/own.yaml").write_text("extends: digits/vp\n")
    assert read_settings("sub/own.yaml") == {"name": "beside"}


def test_an_extended_name_that_nothing_has_is_refused_with_the_file_that_names_it(empty):
    (empty / "own.yaml").write_text("extends: digits/vq\n")
    with pytest.raises(UserError, match=r"^own\.yaml: extends: digits/vq does not exist.* Did you mean 'digits/vp'\?$"):
        load_config("own.yaml")


@pytest.mark.parametrize(
    ("name", "module"), [("classifier/digits", "classifier"), ("recommender/ml1m", "recommender"), ("digits/ve", None)]
)
def test_the_module_of_a_shipped_config_is_known_by_its_name(empty, name, module):
    assert module_of(Path(name)) == module


def test_train_takes_a_name(empty, cli):
    outcome = cli("train", "digits/vp", "--out", "out", *[word for tiny in TINY for word in ("--set", tiny)])
    assert outcome.code == 0, outcome.err
    assert (empty / "out/model").is_dir()


@pytest.mark.parametrize("name", ["digits/vp", "classifier/digits", "recommender/synthetic", "recommender/attributes"])
def test_data_takes_a_name_of_every_domain(empty, cli, name):
    outcome = cli("data", name)
    assert outcome.code == 0, outcome.err
    assert "forget" in outcome.out or "attribute" in outcome.out


@pytest.mark.parametrize(
    "command",
    [
        ["compare"],
        ["train"],
        ["unlearn", "--from", "run"],
        ["data"],
        ["classifier", "compare"],
        ["classifier", "train"],
        ["classifier", "unlearn", "--from", "run", "--method", "scrub"],
        ["recommender", "compare"],
        ["recommender", "fit"],
        ["recommender", "attributes"],
    ],
)
def test_every_command_that_takes_a_config_names_the_nearest_one(empty, cli, command):
    domain = command[0] if command[0] in ("classifier", "recommender") else "digits"
    near = {"classifier": "classifier/digits", "recommender": "recommender/synthetic", "digits": "digits/vp"}[domain]
    outcome = cli(*command, near + "x")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert f"Did you mean {near!r}?" in outcome.err


FAMILIES = ["subtract", "siss", "salun", "sfr-on", "selective-amnesia", "erasediff-pcgrad"]
PAPERS = [
    "cifar10/vp",
    "cifar10/class",
    "cifar10/vp_small",
    "cifar10/ddpm",
    "stl10/vp",
    "stl10/vp_small",
    "celeba/vp",
    "celeba/vp_small",
]


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_data_sets_have_rows_of_every_family_that_run_when_they_are_named(name):
    rows = load_config(name).rows
    for family in (*FAMILIES, "task-vector", "dampen", "refit-head"):
        assert rows[family].optional, family
    assert [rows[edit].edit["name"] for edit in ("task-vector", "dampen", "refit-head")] == [
        "task-vector",
        "dampen",
        "refit-head",
    ]
    assert not rows["redirect"].optional
