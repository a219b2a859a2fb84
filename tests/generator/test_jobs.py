"""Comparisons whose models are made in several processes give what one process gives."""

import json
from multiprocessing import get_context
from pathlib import Path

import pytest

from msgm.cli import main
from tests.conftest import DIGITS, settings
from tests.generator.test_cells import CELLS, SMALL, arguments


def measured(folder: Path) -> dict:
    """Return what is measured of every cell, and their weights."""
    found = {}
    for cell in CELLS:
        row = json.loads((folder / cell / "report.json").read_text())
        row |= {"seconds": None, "history": None}  # when, and for how long
        weights = next((folder / cell / "model").rglob("*.safetensors")).read_bytes()
        found[cell] = (row, weights)
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    assert main([str(argument) for argument in (*arguments(out), "--no-cache")]) == 0
    return out


@pytest.fixture
def forking(monkeypatch):
    """Let the processes of --jobs be forked, which spares them seconds of imports; the others are begun anew."""
    monkeypatch.setattr("msgm.study.executors.multiprocessing.get_context", lambda _: get_context("fork"))


def test_two_processes_make_what_one_makes(alone, cli, tmp_path, forking):
    made = cli(*arguments(tmp_path / "run"), "--jobs", "2", "--no-cache")
    assert made.code == 0, made.err
    assert measured(tmp_path / "run") == measured(alone)
    assert ": measured" in made.out
    assert not list((tmp_path / "run").rglob("lock"))
    (one, two) = (json.loads((folder / "report.json").read_text()) for folder in (alone, tmp_path / "run"))
    assert [row["metrics"] for row in one["rows"]] == [row["metrics"] for row in two["rows"]]
    assert cli("verify", tmp_path / "run").code == 0


PLUGIN = '''
from dataclasses import dataclass
from msgm.objectives import OBJECTIVES, Redirect

@OBJECTIVES.register("broken")
@dataclass
class Broken(Redirect):
    """Cannot be trained."""

    def terms(self, *given):
        raise ZeroDivisionError("nothing left")
'''


def test_a_cell_that_fails_in_another_process_stands_in_the_table(cli, tmp_path):
    """One process is enough, as one model waits for the other: it is begun anew, and so has to load the plugin."""
    plugin = tmp_path / "broken.py"
    plugin.write_text(PLUGIN)
    overrides = [*SMALL, "seeds=1", "retrains=1", f"plugins=[{plugin}]", "rows.broken.objective.name=broken"]
    given = ["compare", DIGITS, *settings(overrides), "--only", "do-nothing,broken", "--device", "cpu"]
    made = cli(*given, "--out", tmp_path / "run", "--jobs", "2")
    assert made.code == 1
    assert "one model failed, and the same command tries again: broken: ZeroDivisionError: nothing left" in made.err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["failed"] == {"broken": "ZeroDivisionError: nothing left."}
    assert [row["name"] for row in report["rows"]] == ["do-nothing"]


def test_rows_wait_for_the_base_model_that_is_given(alone, cli, tmp_path, forking):
    given = ["--from", alone, "--jobs", "2"]
    made = cli(*arguments(tmp_path / "run"), *given)
    assert made.code == 0, made.err
    assert json.loads((tmp_path / "run" / "rows/redirect/seed-1/manifest.json").read_text())["status"] == "finished"


def test_a_cluster_makes_what_one_process_makes(alone, cli, tmp_path):
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    forking = dask.config.set({"distributed.worker.multiprocessing-method": "fork"})
    with forking, distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        made = cli(*arguments(tmp_path / "run"), "--cluster", cluster.scheduler_address, "--no-cache")
    assert made.code == 0, made.err
    assert measured(tmp_path / "run") == measured(alone)


def test_a_cluster_whose_workers_have_several_threads_is_refused(cli, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        told = cli(*arguments(tmp_path / "run"), "--cluster", cluster.scheduler_address)
    assert told.code == 2
    assert "expected workers of one thread each" in told.err
    assert not (tmp_path / "run").exists()
