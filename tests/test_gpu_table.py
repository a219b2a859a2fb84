"""``scripts/gpu_table.sh``: steps by the minutes, a resume with what it began with, and the paper's figures."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "gpu_table.sh"
TINY = {
    "data": "{name: digits}",
    "request.labels": "[3]",
    "network.channels": "[8]",
    "training.steps": "2",
    "training.batch_size": "8",
    "evaluation.samples": "8",
    "evaluation.nll_items": "2",
    "evaluation.likelihood.steps": "2",
    "evaluation.judge.epochs": "1",
    "sampling.steps": "2",
    "evaluation.options": "{inpainting: {n: 2, steps: 2, resamples: 1}, reconstruction: {n: 2, steps: 2}}",
}
STUB = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
case "$*" in
*--dry-run*) printf 'title\\nrow  seconds a step\\ndo-nothing  x  0.25\\nredirect  x  0.75\\na note of 9\\n' ;;
*config.yaml*) ;;
*) mkdir -p "$OUT" && touch "$OUT/config.yaml" && sleep 60 ;;
esac
"""


def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    given = {"PATH": path, **environment}
    return subprocess.run(
        [SCRIPT, *map(str, arguments)], env=os.environ | given, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def stub(tmp_path):
    """A command ``msgm`` that notes how it is called; the first comparison takes a minute."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "msgm"
    command.write_text(STUB)
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    path = os.pathsep.join([str(command.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {"PATH": path, "CALLS": str(tmp_path / "calls"), "OUT": str(tmp_path / "out")}


def test_the_time_decides_on_the_steps_and_the_same_command_goes_on(stub):
    arguments = [0.03, stub["OUT"], "--set", "seed=5"]
    first = call(*arguments, **stub)
    assert first.returncode == 124, first.stderr
    assert "0.03 minutes are over; the same command goes on" in first.stderr
    again = call(*arguments, **stub)
    assert again.returncode == 0, again.stderr
    assert "Standard 11.2, Unseen 3.4" in again.stdout
    dry, begun, resumed = Path(stub["CALLS"]).read_text().splitlines()
    assert "--dry-run" in dry
    assert "--set seed=5" in dry
    # Two thirds of 1.8 seconds are 1.2, and a step of all rows takes one.
    assert "--set training.steps=1 --set seed=5 --start scratch" in begun
    assert resumed.startswith(f"compare {stub['OUT']}/config.yaml --only do-nothing,unseen-scratch,")
    assert "--set" not in resumed


def test_without_minutes_it_says_how_it_is_called(stub):
    refused = call(**stub)
    assert refused.returncode != 0
    assert "usage: scripts/gpu_table.sh MINUTES [OUT]" in refused.stderr


@pytest.mark.slow
def test_on_a_cpu_with_tiny_settings_it_prints_three_tables(tmp_path):
    overrides = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
    done = call(5, tmp_path / "out", *overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("closed-set", "Inpainting", "Reconstruction", "The paper's Table 2", "The paper's Tables 3"):
        assert part in done.stdout
    assert sorted(path.name for path in (tmp_path / "out" / "rows").iterdir()) == sorted(
        ["do-nothing", "unseen-scratch", "orthogonal", "obtuse", "erasediff-weighted", "redirect"]
    )
