"""Work that the processes of one launch share."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from msgm import processes
from msgm.cli import main
from msgm.errors import RunError
from msgm.folders import whole_folder, write_bytes
from tests.conftest import DIGITS, settings
from tests.forks import launched
from tests.test_cli import COMPARISON

SMALL = [
    "network.classes=10",
    *COMPARISON,
    "network.mid_attention=false",
    "network.dropout=0",
    "evaluation.metrics=[ur,nll,membership,partial-noise,fid]",
    "evaluation.samples=22",
    "evaluation.nll_items=5",
    "evaluation.likelihood.batch_size=2",
    "sampling.batch_size=4",
    "evaluation.options.membership.items=9",
    "evaluation.options.partial-noise.items=7",
]
ROWS = ["do-nothing", "redirect"]


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    given = [*command, *map(str, arguments)]
    return subprocess.run(
        given, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300, check=False
    )


def report_of(folder: Path) -> dict:
    """Return what is measured in a report: nothing that depends on when and where."""
    report = json.loads((folder / "report.json").read_text())
    return {key: report[key] for key in ("judge", "real", "protocol", "rows", "failed")}


def agree(one: Any, two: Any, key: str = "") -> None:
    """Check that two trees are the same: likelihoods but for rounding, all other numbers bit for bit."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for name in one.keys() - {"forget_digest"}:  # keyed by the folder
            agree(one[name], two[name], f"{key}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(two)
        for first, second in zip(one, two, strict=True):
            agree(first, second, key)
    elif isinstance(one, float) and "nll" in key.lower():
        assert two == pytest.approx(one, rel=1e-5), key
    else:
        assert two == one, key


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """A comparison in one process."""
    out = tmp_path_factory.mktemp("one") / "run"
    arguments = ["compare", DIGITS, *settings(SMALL), "--only", ",".join(ROWS), "--device", "cpu", "--out", out]
    assert main([str(argument) for argument in arguments]) == 0
    return out


def test_two_processes_measure_what_one_measures(one, tmp_path):
    arguments = ["evaluate", one / "rows" / "redirect", "--config", one / "config.yaml", "--device", "cpu", "--out"]
    assert main([str(argument) for argument in (*arguments, tmp_path / "alone")]) == 0
    both = launched(lambda rank: main([str(argument) for argument in (*arguments, tmp_path / "both")]))
    agree(report_of(tmp_path / "alone"), report_of(tmp_path / "both"))
    told = "".join(process.said("stdout") for process in both)
    assert told.count("redirect: measuring nll") == told.count("wrote ") == 1
    assert not (tmp_path / "both" / "lock").exists()


@pytest.mark.slow
def test_two_processes_compare_what_one_compares(one, tmp_path):
    script = Path(__file__).parent.parent / "scripts" / "compare.py"
    out = tmp_path / "both"
    arguments = [script, DIGITS, *settings(SMALL), "--only", ",".join(ROWS), "--device", "cpu", "--out", out]
    done = torchrun(*arguments, "--no-cache")
    assert done.returncode == 0, done.stderr
    alone, both = report_of(one), report_of(out)
    assert (both["judge"], both["failed"]) == (alone["judge"], {})
    for row, other in zip(alone["rows"], both["rows"], strict=True):
        # Training differs by rounding, as each process averages half of the batch.
        assert other["nll"]["retain"]["mean"] == pytest.approx(row["nll"]["retain"]["mean"], rel=1e-4)
        weights, others = (
            load_file(next((run / "rows" / row["name"] / "model").rglob("*.safetensors"))) for run in (one, out)
        )
        for name in weights:
            torch.testing.assert_close(others[name], weights[name], rtol=1e-3, atol=1e-4)
    manifest = json.loads((out / "rows" / "redirect" / "manifest.json").read_text())
    assert (manifest["processes"], manifest["status"]) == (2, "finished")
    again = torchrun(*arguments, "--no-cache")
    assert again.returncode == 0, again.stderr
    assert "redirect: kept" in again.stdout
    refused = torchrun(*arguments, "--set", "seed=5")
    assert "holds a comparison with other settings" in refused.stderr


def test_alone_every_batch_is_worked_on_in_order():
    assert processes.spread([1, 2, 3], lambda batch: batch * 2) == [2, 4, 6]
    assert processes.writes()
    assert processes.sharing() == 1


def test_what_a_later_process_writes_is_dropped(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    token = processes._sharing.set(2)
    try:
        write_bytes(tmp_path / "file", b"x")
        with whole_folder(tmp_path / "folder") as new:
            (new / "file").write_text("x")
        with processes.alone():
            assert processes.sharing() == 1
    finally:
        processes._sharing.reset(token)
    assert not list(tmp_path.iterdir())
    write_bytes(tmp_path / "file", b"x")  # a process that does not work together with others, as in msgm sample
    assert (tmp_path / "file").exists()


def fail_in_the_second(rank: int) -> None:
    def work(batch: int) -> int:
        if batch == 1:
            raise ValueError("no more of this")
        return batch

    with processes.together("cpu"):
        assert processes.spread(range(5), str) == ["0", "1", "2", "3", "4"]
        with pytest.raises((RunError, ValueError)) as caught:
            processes.spread(range(5), work)
        print(caught.typename, caught.value, file=sys.stderr)


def test_when_one_process_fails_all_are_told():
    first, second = launched(fail_in_the_second)
    assert second.said("stderr") == "ValueError no more of this\n"
    assert first.said("stderr") == "RunError another process failed: ValueError: no more of this\n"
