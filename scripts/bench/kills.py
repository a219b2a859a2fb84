"""Kills of a recommender that forgets: of the command that forgets, and of a server and of each of its processes.

Example: ``python scripts/bench/kills.py --forget 200 --serve 20 --seed 0``.

A kill is SIGKILL at an instant drawn at random. The command is given again afterwards, and so is that of a server of
which not only the reader or the writer was killed. While a server is killed, one caller has users forgotten, each until
there is an answer, and another asks for lists. Counted at the end:

- lost: users who were answered, and requests that were planned, which the journal does not call done; and a model that
  differs from that of one undisturbed call for the same users;
- twice: requests and users of which the journal says more than once that they are done, and answers with another number
  than the journal's;
- shown: lists for users whose caller had been told that they are forgotten;
- strays: files of the folder, or among the temporary files, that an undisturbed call does not leave.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import numpy as np
import psutil

from msgm.cli import main as msgm
from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.journal import DONE, PLANNED, Journal, id_digest
from msgm.recommender.models.base import load_recommender
from msgm.recommender.pending import PENDING
from msgm.recommender.service import Service

CONFIG = ["data={name: synthetic, users: 900, items: 30, interactions: 13000, least: 5}", "models={ease: {}}"]
AT_ONCE = 4
"""Users of a command that is killed."""
ROUNDING = 1e-10
"""Largest difference of scores, about 1 in size, of EASE after the same requests in other groups."""
BETWEEN = 3
"""Answers between two kills of a server."""
PATIENCE = 120
"""Seconds until a process, or an answer, counts as hanging."""
VICTIMS = ("first process", "all processes", "writer", "reader")
"""What is killed of a server, in turn."""


@dataclass
class Found:
    """What was found after kills of one kind: how many there were, and the faults, see the head of this file.

    Attributes:
        kills: how many.
        pending: of these, while a request was planned and not done.
        answered: users whom the journal calls forgotten.
        lists: that were answered meanwhile.
    """

    kills: int = 0
    pending: int = 0
    answered: int = 0
    lists: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """Faults of every kind."""
        return [*self.lost, *self.twice, *self.shown, *self.strays]


# The folder


def made(place: Path) -> tuple[Path, list[str]]:
    """Return a served folder, and the ids of its users; a copy of it stays undisturbed."""
    folder = fit(load_config(None, CONFIG), "ease", place / "shop")
    shutil.copytree(folder, place / "undisturbed")
    return folder, json.loads((folder / "ids.json").read_text())["users"]


def examine(found: Found, folder: Path, users: Sequence[str], told: dict[str, list[int]]) -> None:
    """Note what is lost, answered twice or left in a folder.

    Args:
        found: where it is noted.
        folder: that ``made`` made; nobody changes it any more.
        users: its users.
        told: numbers of the requests that callers were told, by user.
    """
    lines, done, key = Journal(folder).lines, Journal(folder).done(), Service(folder).key
    numbers = {user: done.get(id_digest(key, "users", user)) for user in users}
    gone = [user for user in users if numbers[user] is not None]
    found.answered = len(gone)
    found.lost += [f"{user}: answered, and not done" for user in told if numbers[user] is None]
    planned, finished = ([line["request"] for line in lines if line["state"] == state] for state in (PLANNED, DONE))
    found.lost += [f"request {number}: planned, and not done" for number in sorted({*planned} - {*finished})]
    every = Counter(digest for line in lines if line["state"] == DONE for digest in line["digests"])
    found.twice += [f"request {number}: done {count} times" for number, count in Counter(finished).items() if count > 1]
    found.twice += [f"digest {digest}: done {count} times" for digest, count in every.items() if count > 1]
    wrong = [user for user, said in told.items() if numbers[user] is not None and said != [numbers[user]]]
    found.twice += [f"{user}: told {told[user]}, and the journal has {numbers[user]}" for user in wrong]
    undisturbed = folder.with_name("undisturbed")
    Service(undisturbed).forget("users", gone)
    one, other = load_recommender(folder), load_recommender(undisturbed)
    scores = [model.score(np.arange(len(users))) for model in (one, other)]
    if np.abs(scores[0] - scores[1]).max() > ROUNDING or (one.gone_users != other.gone_users).any():
        found.lost.append("the model is not that of one undisturbed call")
    names = {path.name for path in undisturbed.iterdir()}
    found.strays += sorted(path.name for path in folder.iterdir() if path.name not in names)


# Kills of the command


def kill_forget(place: Path, kills: int, draws: random.Random) -> Found:
    """Kill ``msgm recommender forget`` so often, each time with other users, and give it again."""
    (folder, users), found = made(place), Found()
    if kills * AT_ONCE > len(users):
        raise SystemExit(f"--forget: at most {len(users) // AT_ONCE} kills of one folder; give several seeds.")
    seconds = 0.0
    for number in range(kills + 1):
        file = place / "users.txt"
        file.write_text("\n".join(users[number * AT_ONCE : (number + 1) * AT_ONCE]) + "\n")
        command = ["recommender", "forget", str(folder), "--users", str(file)]
        if number == 0:  # not killed, to tell how long it takes
            seconds, _ = _forked(command)
            continue
        _, killed = _forked(command, draws.uniform(0, seconds))
        found.kills += killed
        found.pending += (folder / PENDING).exists()
        seconds, _ = _forked(command)
    examine(found, folder, users, {user: [k + 1] for k, user in enumerate(users[: (kills + 1) * AT_ONCE])})
    return found


def _forked(command: list[str], after: float | None = None) -> tuple[float, bool]:
    """Run ``msgm COMMAND`` in a process of its own; return its seconds, and whether it was killed.

    Args:
        command: its arguments.
        after: seconds until it is killed; None lets it end.
    """
    start, process = time.perf_counter(), os.fork()
    if process == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(msgm(command))
    if after is not None:
        time.sleep(after)
        os.kill(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"msgm {' '.join(command)} ends with {os.WEXITSTATUS(status)}.")
    return time.perf_counter() - start, os.WIFSIGNALED(status)


# Kills of a server


class Commanded:
    """A server that the command starts.

    Args:
        folder: to serve.
        port: to listen at.
    """

    def __init__(self, folder: Path, port: int) -> None:
        command = [sys.executable, "-m", "msgm", "recommender", "serve", str(folder), "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._errors = ""

    def ended(self) -> int:
        self._errors = self.process.communicate(timeout=PATIENCE)[1]
        return self.process.returncode

    def said(self, stream: str) -> str:
        return {"stderr": self._errors}[stream]


class Callers:
    """Two threads: one has users forgotten, each until there is an answer, and one asks for lists.

    Args:
        url: of the server.
        users: whom to forget, in this order.
    """

    def __init__(self, url: str, users: Sequence[str]) -> None:
        self.answers: dict[str, list[int]] = {}
        self.shown: list[str] = []
        self.lists = 0
        self._url, self._users, self._ended = url, users, Event()
        self._threads = [Thread(target=self._forget), Thread(target=self._read)]
        for thread in self._threads:
            thread.start()

    def _post(self, client: httpx.Client, path: str, body: Any) -> httpx.Response | None:
        try:
            return client.post(path, json=body)
        except httpx.TransportError:
            time.sleep(0.05)
            return None

    def _forget(self) -> None:
        with httpx.Client(base_url=self._url, timeout=PATIENCE) as client:
            for user in self._users:
                found = None
                while found is None or found.status_code != 200:
                    if self._ended.is_set():
                        return
                    found = self._post(client, "/forget", {"users": [user]})
                self.answers[user] = found.json()["requests"] + found.json()["before"]

    def _read(self) -> None:
        draws = random.Random(1)
        with httpx.Client(base_url=self._url, timeout=PATIENCE) as client:
            while not self._ended.is_set():
                user = draws.choice([*list(self.answers)[-3:], self._users[-1]])
                forgotten = user in self.answers
                found = self._post(client, "/recommend", {"user": user})
                if found is not None and found.status_code == 200:
                    self.lists += 1
                    self.shown += [f"{user}: has a list, though forgotten"] if forgotten else []

    def wait(self, more: int) -> None:
        """Wait until so many more users are forgotten."""
        enough, end = len(self.answers) + more, time.monotonic() + PATIENCE
        while len(self.answers) < enough:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self.answers)} answers, and no more in {PATIENCE} s")
            time.sleep(0.01)

    def end(self) -> None:
        """Let both end."""
        self._ended.set()
        for thread in self._threads:
            thread.join()


def kill_server(
    place: Path,
    kills: int,
    draws: random.Random,
    victims: Sequence[str] = VICTIMS,
    start: Callable[[Path, int], Any] = Commanded,
) -> dict[str, Found]:
    """Kill a server, or one of its processes, so often while it is asked; return what was found, by what was killed.

    What is lost, answered twice or left is noted for all of them together, under ``serve``.

    Args:
        place: an empty folder, which takes the place of that of temporary files, too.
        kills: how many.
        draws: of the instants.
        victims: what to kill, in turn.
        start: starts a server; returns its ``process``, and methods as those of ``Commanded``.
    """
    (folder, users), temporary = made(place), place / "t"
    temporary.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    port = _free_port()
    found = {name: Found() for name in (*victims, "serve")}
    running, callers = start(folder, port), Callers(f"http://127.0.0.1:{port}", users)
    try:
        for number in range(kills):
            callers.wait(BETWEEN)
            time.sleep(draws.uniform(0, 0.3))
            victim = victims[number % len(victims)]
            goes_on = kill(victim, running, temporary)
            found[victim].kills += 1
            found[victim].pending += (folder / PENDING).exists()
            if not goes_on:
                running = start(folder, port)
        callers.wait(BETWEEN)
        running.process.terminate()
        if (running.ended(), said := running.said("stderr")) != (0, ""):
            found["serve"].lost.append(f"the server did not end well: {said or 'its exit code is not 0'}")
    finally:
        clear(running)
        callers.end()
    found["serve"].kills, found["serve"].lists = kills, callers.lists
    found["serve"].pending = sum(found[name].pending for name in victims)
    found["serve"].shown = callers.shown
    examine(found["serve"], folder, users, callers.answers)
    found["serve"].strays += [f"{path.name} (temporary)" for path in temporary.iterdir()]
    return found


def kill(victim: str, running: Any, temporary: Path) -> bool:
    """Kill a server, or one of its processes, and return whether it goes on by itself.

    Args:
        victim: one of ``VICTIMS``.
        running: the server.
        temporary: folder of temporary files, where the writer's socket lies.
    """
    first = psutil.Process(running.process.pid)
    if victim in ("writer", "reader"):
        _one(victim, first, temporary).kill()
        return True
    others = first.children(recursive=True)
    for one in [first, *others] if victim == "all processes" else [first]:
        one.kill()
    running.ended()
    if psutil.wait_procs(others, timeout=10)[1]:
        raise TimeoutError("processes of a server outlive its first one by more than 10 s")
    return False


def _one(victim: str, first: psutil.Process, temporary: Path) -> psutil.Process:
    """Return the writer, which listens at a socket of its own, or the reader, as soon as both are there."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(psutil.NoSuchProcess):
            working = [one for one in first.children() if "resource_tracker" not in " ".join(one.cmdline())]
            writers = [one for one in working if _listens(one, temporary)]
            if len(working) > 1 and writers:
                return writers[0] if victim == "writer" else next(one for one in working if one not in writers)
        time.sleep(0.01)
    raise TimeoutError(f"no {victim} in {PATIENCE} s")


def _listens(process: psutil.Process, temporary: Path) -> bool:
    sockets = process.net_connections("unix")
    return any(str(one.laddr).startswith(str(temporary)) for one in sockets)


def clear(running: Any) -> None:
    """Kill what is left of a server, which would hold a lock and a port."""
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(running.process.pid)
        for one in [first, *first.children(recursive=True)]:
            one.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


# Tables


def main() -> None:
    """Kill, print a table, and end with 1 when there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--forget", type=int, default=200, metavar="N", help="kills of the command (200)")
    parser.add_argument("--serve", type=int, default=20, metavar="N", help="kills of a server (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (0)")
    parser.add_argument("--json", metavar="FILE", help="write everything that was found")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        found = measure(Path(name), options.forget, options.serve, options.seed)
    if options.json:
        Path(options.json).write_text(json.dumps({name: asdict(one) for name, one in found.items()}, indent=2) + "\n")
    sys.exit(1 if any(one.faults for one in found.values()) else 0)


def measure(place: Path, forget: int, serve: int, seed: int) -> dict[str, Found]:
    """Return what was found after so many kills, by what was killed, and print it."""
    found = dict[str, Found]()
    for name in ("forget", "serve"):
        (place / name).mkdir()
    if forget:
        found["forget"] = kill_forget(place / "forget", forget, random.Random(seed))
    if serve:
        found |= kill_server(place / "serve", serve, random.Random(seed))
    head = ("killed", "kills", "while pending", "forgotten", "lists", "lost", "twice", "shown", "strays")
    print(f"| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}")
    for name, one in found.items():
        faults = [len(each) for each in (one.lost, one.twice, one.shown, one.strays)]
        cells = [one.kills, one.pending, *((one.answered, one.lists, *faults) if one.answered else [""] * 6)]
        print(f"| {name} | {' | '.join(map(str, cells))} |")
    print("\n".join(fault for one in found.values() for fault in one.faults))
    return found


if __name__ == "__main__":
    main()
