"""Kills of the writer while deletions stream to it: nothing lost, nothing answered twice, nothing left behind."""

import json
import random
import signal
import time
from contextlib import contextmanager
from functools import partial

import pytest

from msgm.errors import RunError
from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.journal import DONE, PLANNED, Journal, id_digest
from msgm.recommender.models.base import load_recommender
from msgm.recommender.service import Service
from msgm.recommender.serving import writer
from msgm.recommender.serving.writer import Asked, ask
from tests.forks import PATIENCE, Forked

CONFIG = ["data={name: synthetic, users: 900, items: 30, interactions: 13000, least: 5}", "models={ease: {}}"]


@contextmanager
def processes():
    """Starts processes. Those that still run at the end, however it comes, are killed."""
    running = []

    def start(work, *arguments):
        running.append(Forked(partial(work, *arguments)))
        return running[-1].process

    try:
        yield start
    finally:
        for one in running:
            killed(one.process)


@pytest.fixture
def started():
    with processes() as start:
        yield start


def killed(process):
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def stream(address, users, answers):
    """Ask for one user after the other, each until there is an answer, and note the answers."""
    with answers.open("w") as file:
        for user in users:
            while True:
                try:
                    outcome = ask(address, Asked("users", [user], False))
                    break
                except RunError:
                    time.sleep(0.002)
            file.write(json.dumps([user, outcome.numbers + outcome.before]) + "\n")
            file.flush()


def until(found, seconds=PATIENCE):
    """Wait until something is found."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, f"nothing in {seconds} s"
        time.sleep(0.0005)


def stopped(address):
    """Return whether the writer listens, and was told to finish."""
    try:
        writer.stop(address)
    except OSError:
        return False
    return True


def survives(tmp_path, started, kills):
    folder, address, answers = (
        fit(load_config(None, CONFIG), "ease", tmp_path / "shop"),
        str(tmp_path / "w"),
        tmp_path / "a",
    )
    names, draws = {path.name for path in folder.iterdir()} | {"lock"}, random.Random(0)
    users = json.loads((folder / "ids.json").read_text())["users"]
    process, caller = started(writer.run, folder, address, False), started(stream, address, users, answers)
    pending, while_asked = folder / "pending.json", 0
    for kill in range(kills):
        time.sleep(draws.uniform(0, 0.1))
        if kill % 8 == 0:
            until(pending.exists)
        while_asked += pending.exists()
        assert killed(process)
        process = started(writer.run, folder, address, False)
    time.sleep(0.3)
    assert killed(caller)
    until(lambda: stopped(address))
    process.join(PATIENCE)
    assert process.exitcode == 0
    lines, key = Journal(folder).lines, Service(folder).key
    numbers = [[line["request"] for line in lines if line["state"] == state] for state in (PLANNED, DONE)]
    assert numbers == [list(range(1, len(numbers[0]) + 1))] * 2
    answered = [json.loads(line) for line in answers.read_text().splitlines()]
    done = Journal(folder).done()
    assert [[done[id_digest(key, "users", user)]] for user, _ in answered] == [given for _, given in answered]
    assert load_recommender(folder).gone_users.sum() == len(done)
    assert len(answered) <= len(done) <= len(answered) + 1
    assert {path.name for path in folder.iterdir()} <= names
    return len(answered), while_asked


def test_a_few_kills_of_the_writer_lose_nothing_and_repeat_nothing(tmp_path, started):
    answered, while_asked = survives(tmp_path, started, 8)
    assert answered
    assert while_asked


def test_a_test_that_fails_leaves_no_process():
    with pytest.raises(ZeroDivisionError), processes() as start:
        process = start(time.sleep, 100)
        raise ZeroDivisionError
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_two_hundred_kills_of_the_writer_lose_nothing_and_repeat_nothing(tmp_path, started):
    answered, while_asked = survives(tmp_path, started, 200)
    print(f"{answered} answered; {while_asked} kills while a request was pending")
    assert while_asked > 20
