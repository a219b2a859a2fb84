"""Comparisons of every domain whose cells are run in several processes give what one process gives."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from msgm.reading import read_json
from msgm.study import executors
from tests.conftest import settings

TABLE = "label,a,b\n" + "\n".join(f"{k % 3},{k % 3 + (k * 37 % 100) / 90},{(k * 61 % 100) / 50}" for k in range(120))
CLASSIFIER = """
name: tiny
data: {name: table, path: TABLE}
network: {name: mlp, hidden: [5]}
training: {epochs: 2, batch_size: 32, lr: 0.1}
seeds: 2
metrics: [accuracy, weights]
requests:
  few: {random: 8, goal: removal, target: observed}
  two: {labels: [2]}
"""
RECOMMENDER = """
name: tiny
data: {name: synthetic, users: 60, items: 40, interactions: 900, least: 5}
models: {ease: {regularisation: 20.0}, als: {factors: 4, sweeps: 3}}
methods: {sisa: {shards: 3}}
requests:
  few: {random_users: 5}
  fake: {spam: 6, methods: [native]}
"""
ATTRIBUTES = """
name: tiny
data: {name: synthetic, users: 80, items: 40, interactions: 1200, least: 5, correlation: 0.9}
attribute: gender
folds: 2
models:
  als: {factors: 4, sweeps: 3}
  mult-vae: {hidden: 8, latent: 4, epochs: 2}
"""
COMMANDS = {
    "classifier": (CLASSIFIER, ["classifier", "compare"], "do-nothing,retrain,finetune,boundary-shrink"),
    "recommender": (RECOMMENDER, ["recommender", "compare"], "do-nothing,retrain,native,sisa"),
    "attributes": (ATTRIBUTES, ["recommender", "attributes"], "class-mean,leace"),
}
OF_THE_CALL = {"date", "artifacts", "forget_digest", "forget_digests", "environment"}
"""What differs between two calls in one process, too: dates, sizes of files, and digests under a folder's own key."""


def command(domain: str, folder: Path, out: Path) -> list[str]:
    """Return the command line of a small comparison."""
    text, verb, only = COMMANDS[domain]
    (folder / "table.csv").write_text(TABLE)
    config = folder / f"{domain}.yaml"
    config.write_text(text.replace("TABLE", str(folder / "table.csv")))
    return [*verb, str(config), "--only", only, "--out", str(out)]


def untimed(tree: Any) -> Any:
    """Return a report without what two calls in one process do not share."""
    if isinstance(tree, dict):
        return {k: untimed(v) for k, v in tree.items() if k not in OF_THE_CALL and not _is_time(k)}
    return [untimed(each) for each in tree] if isinstance(tree, list) else tree


def _is_time(key: str) -> bool:
    return "seconds" in key or "share" in key or key in ("latencies", "cost")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Reports of comparisons in one process, by domain."""
    from msgm.cli import main

    folder, made = tmp_path_factory.mktemp("alone"), {}
    for domain in COMMANDS:
        assert main(command(domain, folder, folder / domain)) == 0
        made[domain] = untimed(read_json(folder / domain / "report.json"))
    return made


@pytest.mark.parametrize("begun", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("domain", COMMANDS)
def test_two_processes_make_what_one_makes(alone, cli, tmp_path, domain, begun, monkeypatch):
    """Forks spare seconds of imports; tests/generator/test_jobs.py begins a process anew, as outside of tests."""
    monkeypatch.setattr(executors.multiprocessing, "get_context", lambda method=None: get_context(begun))
    line = command(domain, tmp_path, tmp_path / "run")
    done = cli(*line, "--jobs", "2")
    assert done.code == 0, done.err
    assert untimed(read_json(tmp_path / "run" / "report.json")) == alone[domain]
    assert not [path for path in (tmp_path / "run").rglob("*") if "lock" in path.name]
    assert cli("verify", tmp_path / "run").code == 0


@pytest.mark.slow
def test_one_process_goes_on_where_several_were_stopped_by_a_signal(tmp_path):
    from msgm.cli import main

    longer = settings(["training.epochs=300"])  # enough work that some is left when the signal comes
    out, whole = tmp_path / "run", tmp_path / "whole"
    assert main([*command("classifier", tmp_path, whole), *longer, "--no-cache"]) == 0
    line = [*command("classifier", tmp_path, out), *longer, "--no-cache"]
    process = subprocess.Popen([sys.executable, "-m", "msgm", *line, "--jobs", "2"], stderr=subprocess.PIPE, text=True)
    models = out / "models" / "seed-0"
    while process.poll() is None and not (models / "few").is_dir():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.splitlines()[-1] == "msgm: stopped."
    assert not _below(out)
    assert main(line) == 0
    assert untimed(read_json(out / "report.json")) == untimed(read_json(whole / "report.json"))


def _below(folder: Path) -> list[str]:
    """Return the processes that hold a lock in a folder, or write a file there."""
    return [path.name for path in folder.rglob(".*") if path.suffix in (".new", ".lock")] + [
        pid for pid in os.listdir("/proc") if pid.isdigit() and str(folder) in _command_line(pid)
    ]


def _command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


DIES = """
import os, signal
from dataclasses import dataclass
from pathlib import Path
from msgm.classifier.methods import METHODS
from msgm.classifier.methods.base import Card, Method

@METHODS.register("dies")
@dataclass(frozen=True)
class Dies(Method):
    card = Card("none", "none", ("retain",), "edit")
    def _forget(self, model, split, settings, ledger):
        if not Path("lives").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyError("no such layer")
"""


@pytest.mark.slow
def test_a_process_that_dies_is_one_sentence_and_the_same_command_goes_on(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dies.py").write_text(DIES)
    line = [
        *command("classifier", tmp_path, tmp_path / "run"),
        *settings([f"plugins=[{tmp_path / 'dies.py'}]", "seeds=1"]),
    ]
    line[line.index("--only") + 1] = "do-nothing,dies"
    line += ["--requests", "few", "--jobs", "2"]
    died = cli(*line)
    assert died.code == 1
    assert died.err == "msgm: a process was killed, as by a machine without memory left; finished models are kept.\n"
    assert not (tmp_path / "run" / "report.json").exists()
    (tmp_path / "lives").write_text("")
    done = cli(*line)
    assert done.code == 1, done.err
    assert "training retrained model" not in done.out
    (left,) = read_json(tmp_path / "run" / "report.json")["left_out"]
    assert (left["method"], left["status"]) == ("dies", "failed")
    assert "KeyError" in left["reason"]


@pytest.mark.slow
def test_a_cluster_makes_what_one_process_makes(alone, cli, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        line = [*command("recommender", tmp_path, tmp_path / "run"), "--cluster", cluster.scheduler_address]
        done = cli(*line)
    assert done.code == 0, done.err
    assert untimed(read_json(tmp_path / "run" / "report.json")) == alone["recommender"]


@pytest.mark.parametrize("domain", COMMANDS)
def test_a_cluster_that_is_not_there_is_one_sentence_and_nothing_is_written(cli, tmp_path, domain):
    told = cli(*command(domain, tmp_path, tmp_path / "run"), "--cluster", "nowhere")
    assert told.code == 2
    assert "no dask scheduler answers at 'nowhere'" in told.err
    assert not (tmp_path / "run").exists()
