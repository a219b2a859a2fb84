import json
import sys

import pytest
import torch

from msgm import threads
from msgm.threads import Cores


@pytest.mark.parametrize(
    ("usable", "free", "chosen"),
    [(2, 2.0, 2), (2, 1.8, 2), (2, 1.7, 1), (2, 1.0, 1), (2, 0.0, 1), (16, 12.3, 12), (16, 12.8, 13), (1, 1.0, 1)],
)
def test_a_thread_for_every_free_core(usable, free, chosen):
    assert Cores(usable, free).threads() == chosen


@pytest.fixture
def unset(monkeypatch):
    """No number of threads is asked for, and the one in use is what it was after the test."""
    for variable in threads.VARIABLES:
        monkeypatch.setenv(variable, "1")  # so that what a test sets goes with it
        monkeypatch.delenv(variable)
    yield monkeypatch
    threads.use(1)


def idle_by(monkeypatch, seconds, own=0.0):
    """Let the cores be idle for ``seconds`` of each second, and this process busy for ``own``."""
    clock = iter([0.0, 1.0])
    idle = iter([100.0, 100.0 + seconds])
    work = iter([5.0, 5.0 + own])
    monkeypatch.setattr(threads.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(threads.time, "process_time", lambda: next(work))
    monkeypatch.setattr(threads.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(threads, "_idle_seconds", lambda: next(idle))


def test_a_busy_neighbour_is_left_its_core(unset, capsys):
    unset.setattr("joblib.cpu_count", lambda: 2)
    idle_by(unset, 1.0)
    threads.choose(None)
    assert torch.get_num_threads() == 1
    assert threads.in_use() == 1
    assert capsys.readouterr().err == "threads: 1 (1.0 of 2 cores are busy with other work)\n"


def test_our_own_work_counts_as_free(unset):
    unset.setattr("joblib.cpu_count", lambda: 2)
    idle_by(unset, 1.4, own=0.6)
    assert threads.watch() == Cores(2, 2.0)


def test_libraries_that_are_loaded_later_are_told(unset):
    threads.use(3)
    assert {threads.os.environ[variable] for variable in threads.VARIABLES} == {"3"}
    assert torch.get_num_threads() == 3


def test_the_users_number_is_taken(unset, capsys):
    unset.setattr(threads, "watch", lambda: pytest.fail("nothing is to be measured"))
    threads.choose(2)
    assert torch.get_num_threads() == 2
    unset.setenv("OMP_NUM_THREADS", "5")
    threads.choose(None)
    assert torch.get_num_threads() == 2  # PyTorch reads the variable when it is loaded
    assert capsys.readouterr().err == ""


def test_before_pytorch_is_loaded_there_is_no_number(unset):
    unset.delitem(sys.modules, "torch")
    assert threads.in_use() is None


def test_a_run_goes_on_with_the_threads_it_was_begun_with(unset, tmp_path, capsys):
    manifest = tmp_path / "manifest.json"
    threads.keep(manifest)
    unset.setattr(threads, "watch", lambda: Cores(2, 1.0))
    threads.choose(None)
    manifest.write_text(json.dumps({"threads": 2}))
    threads.keep(manifest)
    assert torch.get_num_threads() == 2
    assert capsys.readouterr().err.endswith(f"threads: 2, as the run in {tmp_path} was begun with\n")


def test_another_number_that_the_user_asks_for_is_taken_with_a_note(unset, tmp_path, capsys):
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"threads": 2}))
    threads.choose(3)
    threads.keep(manifest)
    assert torch.get_num_threads() == 3
    assert "was begun with 2 threads; numbers may differ in their last bits." in capsys.readouterr().out


def test_manifests_of_the_first_version_say_nothing(unset, tmp_path):
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{}")
    threads.use(1)
    threads.keep(manifest)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "٢"])
def test_a_number_that_is_none_is_refused(cli, text):
    with pytest.raises(SystemExit) as raised:
        cli("train", "config.yaml", "--threads", text)
    assert raised.value.code == 2


def test_resumed_training_keeps_its_number_bit_for_bit(unset, tiny, tmp_path):
    from msgm.training import train

    unset.setattr(threads, "_asked", False)
    threads.use(2)
    run = train(tiny("training.checkpoint_every=3"), tmp_path / "run")
    assert json.loads(run.manifest.read_text())["threads"] == 2
    threads.use(1)
    train(tiny("training.checkpoint_every=3"), tmp_path / "run", resume=True)
    assert torch.get_num_threads() == 2
