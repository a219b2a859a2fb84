"""What a machine can do to a command: it ends with one sentence and the right code, and leaves nothing half done."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msgm.cli import main
from tests.conftest import DIGITS, ROOT, TINY, settings

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def process(*arguments, **options):
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([sys.executable, "-m", "msgm", *map(str, arguments)], env=ENVIRONMENT, **piped)


def test_a_closed_pipe_ends_quietly():
    # Two thousand cards fill any pipe's buffer, so that the writer meets its end.
    shown = process("classifier", "methods", *["salun"] * 2000)
    shown.stdout.readline()
    shown.stdout.close()
    assert shown.wait(60) == 128 + signal.SIGPIPE
    assert not shown.stderr.read()
    shown.stderr.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_disk_is_named_where_output_goes():
    with open("/dev/full", "w") as full:
        done = process("classifier", "methods", "salun", stdout=full)
        assert done.wait(60) == 1
    assert done.stderr.read() == "msgm: cannot write to the standard output: No space left on device.\n"
    done.stderr.close()


# A shell that starts pytest in the background lets its children ignore SIGINT; this one takes it, as in a terminal.
READY = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
os.write(1, b".")
sys.argv[0] = "msgm"
from msgm.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.8])
def test_an_interrupt_during_imports_and_parsing_ends_without_a_traceback(delay, tmp_path):
    arguments = [sys.executable, "-c", READY, "train", str(DIGITS), "--out", str(tmp_path / "run")]
    with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        try:
            os.read(run.stdout.fileno(), 1)
            time.sleep(0.05 + delay)
            run.send_signal(signal.SIGINT)
            _, error = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 130
    assert error.startswith(b"msgm: ")
    assert error.count(b"\n") == 1


@pytest.mark.parametrize("seed", ["-1", "1.5", "x", str(2**63), "9" * 50])
@pytest.mark.parametrize("command", [["train"], ["classifier", "train"], ["recommender", "fit"], ["sample"]])
def test_seeds_out_of_range_are_refused_in_one_sentence(command, seed, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command, "c.yaml", f"--seed={seed}"])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.count("\n") == 1
    assert "--seed: expected a whole number from 0 on" in error


def test_a_folder_in_the_place_of_a_file_is_named(cli, tmp_path):
    (tmp_path / "run" / "config.yaml").mkdir(parents=True)
    done = cli("train", DIGITS, *settings(TINY), "--out", tmp_path / "run")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"{tmp_path}/run/config.yaml: Is a directory" in done.err
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".")] == []


def test_a_file_in_the_place_of_a_folder_is_named(cli, tmp_path):
    (tmp_path / "run").write_text("")
    done = cli("train", DIGITS, *settings(TINY), "--out", tmp_path / "run")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert str(tmp_path / "run") in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into any folder")
def test_a_folder_that_cannot_be_written_is_named(cli, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    done = cli("train", DIGITS, *settings(TINY), "--out", closed)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert str(closed) in done.err


def test_a_disk_that_fills_up_is_named_with_the_file(cli, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = cli("train", DIGITS, *settings(TINY), "--out", tmp_path / "run")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "No space left on device" in done.err
    assert str(tmp_path / "run") in done.err
    assert [path for path in Path(tmp_path).rglob("*") if path.name.startswith(".")] == []
