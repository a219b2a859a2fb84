"""Tasks that other processes perform."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from msgm import threads
from msgm.errors import Interrupted, RunError, UserError
from msgm.folders import locked
from msgm.study.executors import Task, Workers, executor_of, run


def note(folder: Path, name: str) -> int:
    """Write a file, and return which process did."""
    (folder / name).write_text("")
    return os.getpid()


def fail() -> None:
    raise UserError("the file is damaged.")


def stop() -> None:
    raise Interrupted("stopped after step 3.", 130)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def lock_below(folder: Path, name: str, seconds: float) -> int:
    import torch  # noqa: F401 - whose threads are counted

    with locked(folder / name):
        time.sleep(seconds)
    return threads.in_use() or 0


def sleep(folder: Path, name: str) -> None:
    (folder / name).write_text(str(os.getpid()))
    time.sleep(60)


@pytest.fixture(scope="module")
def pool():
    with executor_of(2, None) as workers:
        yield workers


def test_tasks_run_in_other_processes(pool, tmp_path):
    found = dict(run(pool, tmp_path, [Task(name, partial(note, tmp_path, name)) for name in ("one", "two", "three")]))
    assert sorted(found) == ["one", "three", "two"]
    assert os.getpid() not in found.values()


def test_folders_below_one_that_is_held_may_be_locked_one_inside_another(pool, tmp_path):
    with locked(tmp_path):
        tasks = [Task(name, partial(lock_below, tmp_path, name, 1.0)) for name in ("row", "row/seed-1")]
        assert [each for _, each in run(pool, tmp_path, tasks)] == [pool.threads] * 2
    with locked(tmp_path / "row"), pytest.raises(UserError, match="is being changed by process"):
        list(run(pool, tmp_path / "elsewhere", [Task("row", partial(lock_below, tmp_path, "row", 0))]))


@pytest.mark.parametrize(("call", "error"), [(fail, UserError), (stop, Interrupted)])
def test_what_ends_the_command_in_one_process_ends_it_from_another(pool, tmp_path, call, error):
    with pytest.raises(error) as caught:
        list(run(pool, tmp_path, [Task("bad", call)]))
    assert str(caught.value) in ("the file is damaged.", "stopped after step 3.")
    assert getattr(caught.value, "code", 130) == 130


def test_a_process_that_is_killed_is_one_sentence(tmp_path):
    with executor_of(2, None) as workers, pytest.raises(RunError, match="a process was killed"):
        list(run(workers, tmp_path, [Task("dies", die)]))


def test_sigterm_stops_the_processes_too(tmp_path):
    def interrupt() -> None:
        while not (tmp_path / "one").exists() or not (tmp_path / "two").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=interrupt)
    tasks = [Task(name, partial(sleep, tmp_path, name)) for name in ("one", "two", "three", "four")]
    began = time.monotonic()
    with pytest.raises(Interrupted), executor_of(2, None) as workers:
        sender.start()
        list(run(workers, tmp_path, tasks))
    sender.join()
    assert time.monotonic() - began < 40
    assert not (tmp_path / "three").exists()
    for name in ("one", "two"):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / name).read_text()), 0)


def test_any_executor_does(tmp_path):
    with ThreadPoolExecutor(1) as executor:
        tasks = [Task(name, partial(note, tmp_path, name)) for name in ("one", "two")]
        assert dict(run(Workers(executor, None, None), tmp_path, tasks)) == dict.fromkeys(("one", "two"), os.getpid())


def test_one_job_needs_no_process():
    with executor_of(1, None) as workers:
        assert workers is None


def test_what_does_not_go_together_is_refused(monkeypatch):
    with pytest.raises(UserError, match="give --jobs or --cluster"), executor_of(2, "tcp://localhost:1"):
        pass
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="share the work by batch already"), executor_of(2, None):
        pass
