"""A server that is told to stop finishes what was begun and ends with 0; several readers follow one writer."""

import json
import os
import signal
import socket
import time
from contextlib import contextmanager
from functools import partial
from threading import Thread

import httpx
import psutil
import pytest

from msgm.folders import locked
from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.journal import DONE, Journal
from tests.forks import PATIENCE, Forked
from tests.recommender.serving.test_kills import served

CONFIG = ["data={name: synthetic, users: 60, items: 30, interactions: 700, least: 5}", "models={ease: {}}"]


@pytest.fixture
def folder(tmp_path_factory, monkeypatch):
    place = tmp_path_factory.mktemp("s")
    monkeypatch.setenv("TMPDIR", str(place))
    return fit(load_config(None, CONFIG), "ease", place / "shop")


@contextmanager
def running(folder, readers=1):
    """A server and its address; whatever is left of it at the end is killed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Forked(partial(served, folder, port, readers))
    first = psutil.Process(server.process.pid)
    try:
        until(lambda: len(first.children()) == readers + 1)
        url = f"http://127.0.0.1:{port}"
        httpx.get(f"{url}/health", timeout=PATIENCE)
        yield server, url
    finally:
        for one in [*first.children(), first] if first.is_running() else []:
            one.kill()


def until(found):
    end = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_request_that_was_begun_is_finished_before_it_ends(folder, sign):
    """Ctrl-C reaches every process of the terminal, SIGTERM the first one alone."""
    answers = []
    with running(folder) as (server, url):

        def ask():
            answers.append(httpx.post(f"{url}/forget", json={"users": ["user2"]}, timeout=PATIENCE))

        with locked(folder):  # so that the writer waits
            asking = Thread(target=ask)
            asking.start()
            time.sleep(0.5)
            first = psutil.Process(server.process.pid)
            for one in [first, *first.children()] if sign == signal.SIGINT else [first]:
                os.kill(one.pid, sign)
            time.sleep(0.8)
            assert (answers, server.process.is_alive()) == ([], True)
        asking.join(PATIENCE)
        assert (server.ended(), server.said("stderr")) == (0, "")
    assert (answers[0].status_code, answers[0].json()) == (200, {"requests": [1], "before": []})
    assert Journal(folder).numbers(DONE) == {1}
    assert sorted(path.name for path in folder.parent.iterdir()) == ["shop"]


def test_several_readers_follow_one_writer(folder):
    users = json.loads((folder / "ids.json").read_text())["users"][:5]
    with running(folder, readers=2) as (server, url):
        for user in users:
            assert httpx.post(f"{url}/recommend", json={"user": user}, timeout=PATIENCE).status_code == 200
            assert httpx.post(f"{url}/forget", json={"users": [user]}, timeout=PATIENCE).status_code == 200
            codes = [httpx.post(f"{url}/recommend", json={"user": user}).status_code for _ in range(8)]
            assert codes == [409] * 8
        server.process.terminate()
        assert (server.ended(), server.said("stderr")) == (0, "")
    assert Journal(folder).numbers(DONE) == {1, 2, 3, 4, 5}
