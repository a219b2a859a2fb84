"""A stream of requests, killed at random instants: nothing lost, nothing answered twice, nothing left behind."""

import os
import random
import shutil
import signal
import time

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender import answering
from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.journal import DONE, PLANNED, Journal
from msgm.recommender.models.base import load_recommender
from msgm.recommender.service import Service
from msgm.traces import verify

CONFIG = [
    "data={name: synthetic, users: 90, items: 40, interactions: 1500, least: 5}",
    "models={ease: {regularisation: 20.0}}",
]
USERS = [f"user{k}" for k in range(5, 35)]
KILLS = 200


def forget_until(folder, instant, seconds):
    """Forget in a process of its own, with groups of so many seconds, and kill it after ``instant`` seconds."""
    process = os.fork()
    if process == 0:
        answering.AT_RISK, answering.WRITING_SHARE = seconds, float("inf")
        Service(folder).forget("users", USERS)
        os._exit(0)
    time.sleep(instant)
    os.kill(process, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


@pytest.mark.slow
def test_kills_at_random_instants_lose_nothing_and_repeat_nothing(tmp_path):
    served = fit(load_config(None, CONFIG), "ease", tmp_path / "served")
    whole = shutil.copytree(served, tmp_path / "whole")
    start = time.perf_counter()
    Service(whole).forget("users", USERS)
    most, expected = time.perf_counter() - start, load_recommender(whole)
    draws, killed = random.Random(0), 0
    for number in range(KILLS):
        folder = shutil.copytree(served, tmp_path / f"{number}")
        killed += forget_until(folder, draws.uniform(0, 1.2 * most), draws.choice([0.0, 0.005, 10.0]))
        if (folder / "pending.json").exists():
            with pytest.raises(UserError, match="is being forgotten|unknown user"):
                Service(folder).recommend(USERS[-1], 3)
        Service(folder).forget("users", USERS)
        lines = Journal(folder).lines
        for state in (PLANNED, DONE):
            assert [line["request"] for line in lines if line["state"] == state] == list(range(1, 31))
        assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
        assert verify(folder) == (3, [])
        model = load_recommender(folder)
        assert np.abs(model.inverse - expected.inverse).max() < 1e-14
        assert np.array_equal(model.gone_users, expected.gone_users)
        shutil.rmtree(folder)
    assert killed > KILLS / 2
