"""The writing side of a server: one process that answers deletions, one after the other, as the command line does.

Readers hand it a request over a socket that only this user may open, and wait for the outcome. A kill at any moment
loses no more than a kill of ``msgm recommender forget`` does: what was planned is finished by the next writer, and what
was not planned yet has had no answer, so that its caller asks again.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import AuthenticationError, parent_process
from multiprocessing.connection import Client, Listener, wait
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from msgm import threads
from msgm.errors import RunError, UserError
from msgm.folders import BusyError
from msgm.plugins import trusting
from msgm.recommender.pending import PENDING
from msgm.recommender.service import Outcome, Service

T = TypeVar("T")
PATIENCE = 30.0
"""Seconds that the writer waits while a command line holds the folder's lock."""
BACKLOG = 128
"""Requests that may wait for the writer; further ones are told to come back."""


@dataclass(frozen=True)
class Asked:
    """A request to forget, as ``Service.forget`` takes it."""

    kind: str
    ids: Sequence[Any]
    together: bool


def ask(address: str, asked: Asked) -> Outcome:
    """Hand a request to the writer and return its outcome.

    Raises:
        UserError, RunError: as ``Service.forget``, or there is no writer just now.
    """
    try:
        with Client(address, "AF_UNIX") as connection:
            connection.send(asked)
            found = connection.recv()
    except (OSError, EOFError) as error:
        raise RunError("the writer is being started again; ask again, for what it had begun is not lost.") from error
    if isinstance(found, Outcome):
        return found
    raise found


def stop(address: str) -> None:
    """Let the writer finish what it was handed, and end."""
    with Client(address, "AF_UNIX") as connection:
        connection.send(None)


def run(folder: Path, address: str, trust: bool) -> None:
    """Be the writer of a folder until ``stop``; finishes first what an earlier writer left pending."""
    for sign in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C reaches every process; readers still wait for answers
        signal.signal(sign, signal.SIG_IGN)
    end_with_parent()
    threads.choose(1)
    Path(address).unlink(missing_ok=True)
    with trusting(trust), Listener(address, "AF_UNIX", BACKLOG) as listener:
        left = _answered(folder, None)
        if isinstance(left, Exception):
            print(left, file=sys.stderr)
        while _served(listener, folder):
            pass


def _served(listener: Listener, folder: Path) -> bool:
    """Answer the next request; return False when it is the one to stop."""
    try:
        with listener.accept() as connection:
            asked = connection.recv()
            if asked is None:
                return False
            connection.send(_answered(folder, asked))
    except (ConnectionError, EOFError, AuthenticationError):  # the reader was killed; its caller asks again
        pass
    return True


def _answered(folder: Path, asked: Asked | None) -> Outcome | Exception | None:
    """Finish what is pending, then answer a request; return the outcome, or what the caller is to be told."""
    try:
        service = Service(folder)
        if (folder / PENDING).exists():
            _when_free(service.resume)
        if asked is None:
            return None
        return _when_free(lambda: service.forget(asked.kind, asked.ids, asked.together))
    except (UserError, RunError) as error:
        return error
    except OSError as error:
        return RunError(f"{folder} could not be written ({error.strerror}); nothing that was planned is lost.")


def _when_free(work: Callable[[], T]) -> T:
    """Do work that needs the folder's lock, as soon as no command line holds it.

    Raises:
        BusyError: it is held for longer than ``PATIENCE``.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except BusyError:
            if time.monotonic() > end:
                raise
        time.sleep(0.02)


def end_with_parent() -> None:
    """End this process when the one that started it is gone, however it went; a port would stay taken otherwise."""
    parent = parent_process()
    if parent is not None:
        Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
