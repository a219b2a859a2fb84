"""A server of which all or a part is killed, and one that is told to stop, while deletions and lists are asked for."""

import random
import signal
import tempfile
import time
from functools import partial
from multiprocessing import get_context
from unittest.mock import patch

import psutil
import pytest
from uvicorn import _subprocess

from msgm.recommender.serving import server
from scripts.bench import kills
from tests.forks import Forked


@pytest.fixture
def place(tmp_path_factory, monkeypatch):
    """A folder with a short path, as that of a socket is; the folder of temporary files is put back afterwards."""
    folder = tmp_path_factory.mktemp("k")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def forked(folder, port):
    """Start a server whose processes are forked from this one; all else is as ``Commanded``."""
    return Forked(partial(served, folder, port))


def served(folder, port, readers=1):
    forking = get_context("fork")
    with patch.object(_subprocess, "spawn", forking), patch.object(server, "get_context", lambda _: forking):
        server.serve(folder, "127.0.0.1", port, readers, None)


def survives(place, count, victims, start):
    found = kills.kill_server(place, count, random.Random(0), victims, start)
    assert [one.faults for one in found.values()] == [[]] * len(found)
    assert found["serve"].answered > count
    assert found["serve"].lists
    return found


def test_a_killed_server_goes_on_and_a_stopped_one_finishes_what_was_begun(place):
    survives(place, 1, ("first process",), forked)


def test_a_server_goes_on_without_its_writer_and_its_reader(place):
    survives(place, 2, ("writer", "reader"), forked)


def test_a_test_that_fails_leaves_no_process(place, monkeypatch):
    monkeypatch.setattr(kills.Callers, "wait", lambda *_: pytest.fail("as if no answer came"))
    running = []

    def noted(folder, port):
        running.append(forked(folder, port))
        while len(children := psutil.Process(running[0].process.pid).children(recursive=True)) < 2:
            time.sleep(0.01)
        running.extend(children)
        return running[0]

    with pytest.raises(pytest.fail.Exception, match="no answer came"):
        survives(place, 1, ("first process",), noted)
    running[0].process.join(10)
    assert running[0].process.exitcode == -signal.SIGKILL
    assert psutil.wait_procs(running[1:], timeout=10)[1] == []


@pytest.mark.slow
def test_twenty_kills_of_the_server_lose_nothing_and_repeat_nothing(place):
    found = survives(place, 20, kills.VICTIMS, kills.Commanded)
    print({name: (one.kills, one.pending, one.answered, one.lists) for name, one in found.items()})
