"""A server that is killed as a whole, and one that is told to stop, while deletions and lists are asked for."""

import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from threading import Event, Thread
from unittest.mock import patch

import httpx
import psutil
import pytest
from uvicorn import _subprocess

from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.journal import DONE, PLANNED, Journal, id_digest
from msgm.recommender.models.base import load_recommender
from msgm.recommender.service import Service
from msgm.recommender.serving import server
from tests.forks import PATIENCE, Forked

CONFIG = ["data={name: synthetic, users: 900, items: 30, interactions: 13000, least: 5}", "models={ease: {}}"]


class Callers:
    """Two threads: one has users forgotten, each until there is an answer, and one asks for lists."""

    def __init__(self, url, users):
        self.answers, self.shown_though_forgotten, self.lists = {}, [], 0
        self._url, self._users, self._ended = url, users, Event()
        self._threads = [Thread(target=self._forget), Thread(target=self._read)]
        for thread in self._threads:
            thread.start()

    def _post(self, client, path, body):
        try:
            return client.post(path, json=body)
        except httpx.TransportError:
            time.sleep(0.05)
            return None

    def _forget(self):
        with httpx.Client(base_url=self._url, timeout=20) as client:
            for user in self._users:
                found = None
                while found is None or found.status_code != 200:
                    if self._ended.is_set():
                        return
                    found = self._post(client, "/forget", {"users": [user]})
                self.answers[user] = found.json()["requests"] + found.json()["before"]

    def _read(self):
        draws = random.Random(1)
        with httpx.Client(base_url=self._url, timeout=20) as client:
            while not self._ended.is_set():
                user = draws.choice([*list(self.answers)[-3:], self._users[-1]])
                forgotten = user in self.answers
                found = self._post(client, "/recommend", {"user": user})
                if found is not None and found.status_code == 200:
                    self.lists += 1
                    if forgotten:
                        self.shown_though_forgotten.append(user)

    def wait(self, more):
        """Wait until so many more users are forgotten."""
        enough, end = len(self.answers) + more, time.monotonic() + PATIENCE
        while len(self.answers) < enough:
            assert time.monotonic() < end, f"{len(self.answers)} answers, and no more in {PATIENCE} s"
            time.sleep(0.01)

    def end(self):
        self._ended.set()
        for thread in self._threads:
            thread.join()


class Commanded:
    """A server that the command starts, each process of which imports everything anew."""

    def __init__(self, folder, port):
        command = [sys.executable, "-m", "msgm", "recommender", "serve", str(folder), "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def ended(self):
        self._errors = self.process.communicate(timeout=60)[1]
        return self.process.returncode

    def said(self, stream):
        return {"stderr": self._errors}[stream]


def forked(folder, port):
    """Start a server whose processes are forked from this one; all else is as ``Commanded``."""
    return Forked(partial(served, folder, port))


def served(folder, port):
    forking = get_context("fork")
    with patch.object(_subprocess, "spawn", forking), patch.object(server, "get_context", lambda _: forking):
        server.serve(folder, "127.0.0.1", port, 1, None)


def kill(running):
    """Kill the server's first process and wait until the others have noticed."""
    children = psutil.Process(running.process.pid).children(recursive=True)
    running.process.kill()
    running.ended()
    assert len(children) >= 2
    assert psutil.wait_procs(children, timeout=10)[1] == []


def clear(running):
    """Kill what is left of a server, so that a test that fails leaves no process that holds a lock or a port."""
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(running.process.pid)
        for one in [first, *first.children(recursive=True)]:
            one.kill()


def survives(place, monkeypatch, started, kills, between):
    """Kill a server so often, each time after ``between`` answers more and a moment."""
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    folder = fit(load_config(None, CONFIG), "ease", place / "shop")
    names, draws = {path.name for path in folder.iterdir()}, random.Random(0)
    users = json.loads((folder / "ids.json").read_text())["users"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running, callers, pending = started(folder, port), Callers(f"http://127.0.0.1:{port}", users), 0
    try:
        for _ in range(kills):
            callers.wait(between)
            time.sleep(draws.uniform(0, 0.3))
            kill(running)
            pending += (folder / "pending.json").exists()
            running = started(folder, port)
        callers.wait(between)
        running.process.terminate()
        assert (running.ended(), running.said("stderr")) == (0, "")
    finally:
        clear(running)
        callers.end()
    assert {path.name for path in folder.iterdir()} <= names
    assert callers.shown_though_forgotten == []
    assert callers.lists
    done, key = Journal(folder).done(), Service(folder).key
    numbers = [[line["request"] for line in Journal(folder).lines if line["state"] == each] for each in (PLANNED, DONE)]
    assert numbers == [list(range(1, len(numbers[0]) + 1))] * 2
    assert all(given == [done[id_digest(key, "users", user)]] for user, given in callers.answers.items())
    assert load_recommender(folder).gone_users.sum() == len(done)
    assert len(callers.answers) <= len(done) <= len(callers.answers) + 1
    return len(done), callers.lists, pending


def test_a_killed_server_goes_on_and_a_stopped_one_finishes_what_was_begun(tmp_path_factory, monkeypatch):
    survives(tmp_path_factory.mktemp("k"), monkeypatch, forked, 1, 3)


def test_a_test_that_fails_leaves_no_process(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(Callers, "wait", lambda *_: pytest.fail("as if no answer came"))
    running = []

    def noted(folder, port):
        running.append(forked(folder, port))
        while len(children := psutil.Process(running[0].process.pid).children(recursive=True)) < 2:
            time.sleep(0.01)
        running.extend(children)
        return running[0]

    with pytest.raises(pytest.fail.Exception, match="no answer came"):
        survives(tmp_path_factory.mktemp("k"), monkeypatch, noted, 1, 3)
    running[0].process.join(10)
    assert running[0].process.exitcode == -signal.SIGKILL
    assert psutil.wait_procs(running[1:], timeout=10)[1] == []


@pytest.mark.slow
def test_twenty_kills_of_the_server_lose_nothing_and_repeat_nothing(tmp_path_factory, monkeypatch):
    print(
        "{} answered, {} lists, {} kills while a request was pending".format(
            *survives(tmp_path_factory.mktemp("k"), monkeypatch, Commanded, 20, 5)
        )
    )
