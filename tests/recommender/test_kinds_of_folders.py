"""A folder that serves holds nothing else: other commands refuse it, and ``fit`` refuses the folder of a run."""

import re
from pathlib import Path

import pytest

from msgm.errors import UserError
from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.journal import NAME
from msgm.recommender.models.base import FILE
from msgm.runs import SERVED, Run, refuse_served
from tests.conftest import settings

TINY = ["name=tiny", "data={name: synthetic, users: 60, items: 40, interactions: 900, least: 5}", "models={ease: {}}"]
COMPARED = [*TINY, "requests={few: {random_users: 5}}"]


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("{}\n")
    return fit(load_config(None, TINY), "ease", tmp_path / "runs" / "tiny")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_names_are_those_of_the_service():
    assert SERVED == (FILE, NAME)


@pytest.mark.parametrize("out", [[], ["--out", "runs/tiny/in"]])
def test_a_comparison_leaves_a_served_folder_as_it_is(cli, served, out):
    before = contents(served)
    told = cli("recommender", "compare", "c.yaml", *settings(COMPARED), "--only", "do-nothing,retrain", *out)
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "holds a recommender that is served, a run of another kind; give another --out" in told.err
    assert contents(served) == before


@pytest.mark.parametrize("name", SERVED)
def test_whatever_makes_a_run_refuses_the_model_and_the_journal_that_outlives_it(tmp_path, name):
    (tmp_path / name).write_text("")
    for path in (tmp_path, tmp_path / "in" / "it"):
        with pytest.raises(UserError, match="run of another kind"):
            Run(path).create()
        with pytest.raises(UserError, match="run of another kind"):
            refuse_served(path)


@pytest.mark.parametrize("command", [["train", "digits/vp"], ["classifier", "train", "classifier/digits"]])
def test_training_refuses_a_served_folder(cli, served, command):
    before = contents(served)
    told = cli(*command, "--out", served)
    assert (told.code, "run of another kind" in told.err) == (2, True), told.err
    assert contents(served) == before


def test_a_fit_refuses_the_folder_of_a_comparison_and_folders_in_it(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("{}\n")
    only = ("--only", "do-nothing,retrain")
    assert cli("recommender", "compare", "c.yaml", *settings(COMPARED), *only).code == 0
    before = contents(tmp_path / "runs")
    for out in ([], ["--out", "runs/tiny"]):
        told = cli("recommender", "fit", "c.yaml", *settings(TINY), *out)
        assert (told.code, "holds a run of another kind; give another --out" in told.err) == (2, True)
    assert contents(tmp_path / "runs") == before


def test_a_fit_refuses_a_folder_within_a_served_one(cli, served):
    told = cli("recommender", "fit", "c.yaml", *settings(TINY))
    assert (told.code, "run of another kind" in told.err) == (2, True)
    assert not (served / "ease").exists()


def test_a_refusal_names_a_folder_once_and_says_in_which_it_lies(served):
    ending = " holds a recommender that is served, a run of another kind; give another --out."
    for folder, said in (
        (served, f"{served}{ending}"),
        (served / "in", f"{served / 'in'} lies in {served}, which{ending}"),
        (Path("runs/tiny"), f"runs/tiny{ending}"),
        (Path("runs/tiny/in"), f"runs/tiny/in lies in {served.resolve()}, which{ending}"),
    ):
        with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
            refuse_served(folder)
