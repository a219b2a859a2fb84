"""Kills of the writer while deletions stream to it: nothing lost, nothing answered twice, nothing left behind."""

import json
import os
import random
import signal
import time

import pytest

from msgm.errors import RunError
from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.journal import DONE, PLANNED, Journal, id_digest
from msgm.recommender.models.base import load_recommender
from msgm.recommender.service import Service
from msgm.recommender.serving import writer
from msgm.recommender.serving.writer import Asked, ask

CONFIG = ["data={name: synthetic, users: 900, items: 30, interactions: 13000, least: 5}", "models={ease: {}}"]


def forked(work, *arguments):
    process = os.fork()
    if process == 0:
        try:
            work(*arguments)
        finally:
            os._exit(1)
    return process


def killed(process):
    os.kill(process, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


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


def stopped(address, process):
    """Let the writer finish, once it listens."""
    while True:
        try:
            writer.stop(address)
            break
        except OSError:
            time.sleep(0.01)
    os.waitpid(process, 0)


def survives(tmp_path, kills):
    folder, address, answers = (
        fit(load_config(None, CONFIG), "ease", tmp_path / "shop"),
        str(tmp_path / "w"),
        tmp_path / "a",
    )
    names, draws = {path.name for path in folder.iterdir()} | {"lock"}, random.Random(0)
    users = json.loads((folder / "ids.json").read_text())["users"]
    process, caller, while_asked = (
        forked(writer.run, folder, address, False),
        forked(stream, address, users, answers),
        0,
    )
    for kill in range(kills):
        time.sleep(draws.uniform(0, 0.1))
        while kill % 8 == 0 and not (folder / "pending.json").exists():
            time.sleep(0.0005)
        while_asked += (folder / "pending.json").exists()
        assert killed(process)
        process = forked(writer.run, folder, address, False)
    time.sleep(0.3)
    assert killed(caller)
    stopped(address, process)
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


def test_a_few_kills_of_the_writer_lose_nothing_and_repeat_nothing(tmp_path):
    answered, while_asked = survives(tmp_path, 8)
    assert answered
    assert while_asked


@pytest.mark.slow
def test_two_hundred_kills_of_the_writer_lose_nothing_and_repeat_nothing(tmp_path):
    answered, while_asked = survives(tmp_path, 200)
    print(f"{answered} answered; {while_asked} kills while a request was pending")
    assert while_asked > 20
