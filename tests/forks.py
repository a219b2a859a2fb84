"""Processes of the tests that are forked from this one, so that nothing is imported anew, which takes seconds each."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryFile

from accelerate.state import AcceleratorState

PATIENCE = 120
"""Seconds until a process counts as hanging."""


class Forked:
    """A process of its own that performs ``call`` and ends with the code that it returns.

    Args:
        call: what it does.
        environment: variables that it sees beside this process's own.
    """

    def __init__(self, call: Callable[[], int | None], **environment: str) -> None:
        self.streams = {name: TemporaryFile("w+") for name in ("stdout", "stderr")}  # noqa: SIM115
        self.process = multiprocessing.get_context("fork").Process(target=self._perform, args=(call, environment))
        self.process.start()

    def _perform(self, call: Callable[[], int | None], environment: dict[str, str]) -> None:
        os.environ.update(environment)
        AcceleratorState._reset_state(reset_partial_state=True)  # that of a process that works alone
        for number, (name, file) in enumerate(self.streams.items(), start=1):
            os.dup2(file.fileno(), number)
            setattr(sys, name, file)
        sys.exit(call())

    def said(self, stream: str) -> str:
        """Return what it wrote to ``stdout`` or ``stderr``, once it has ended."""
        self.streams[stream].seek(0)
        return self.streams[stream].read()

    def ended(self) -> int | None:
        """Return its exit code when it has ended, negative for a signal; None, and kill it, if it hangs."""
        self.process.join(PATIENCE)
        code = self.process.exitcode
        self.process.kill()
        return code


def launched(call: Callable[[int], int | None], count: int = 2) -> list[Forked]:
    """Run ``call`` with its rank in each of the processes of a launch, as ``torchrun`` would start them, to the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    running = [Forked(partial(call, rank), RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(count)]
    for one in running:
        assert one.ended() == 0, one.said("stderr")
    return running
