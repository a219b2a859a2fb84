"""Cells of a comparison in several processes: any executor of ``concurrent.futures`` does.

A cell is a ``Task``: a self-contained call that another process can make. That process takes over the command-wide
state of this one (``Surroundings``), and the lock of the folder that both write to. When the command is stopped,
processes of ``executor_of`` are signalled and end at their next safe point; finished results stay.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from msgm import processes, progress, threads
from msgm.downloads import downloading, may_download
from msgm.errors import Interrupted, RunError, UserError
from msgm.folders import borrowed
from msgm.plugins import trusted, trusting


@dataclass(frozen=True)
class Task:
    """A cell, as another process runs it.

    Attributes:
        name: of the cell.
        call: makes and measures it; must be picklable, as must its result.
    """

    name: str
    call: Callable[[], Any]


@dataclass(frozen=True)
class Workers:
    """Processes to run tasks in.

    Attributes:
        executor: of these processes.
        count: how many tasks it is given at a time; None gives it all.
        threads: each computes with; None leaves that to them.
    """

    executor: Executor
    count: int | None
    threads: int | None


@dataclass(frozen=True)
class Surroundings:
    """Process-wide state that a worker process takes over from its parent.

    Attributes:
        place: the working folder.
        held: the folder whose lock the parent holds.
        trust: whether code named in received folders may be run.
        download: whether missing files may be fetched.
        threads: number to compute with; None leaves it as it is.
    """

    place: Path
    held: Path
    trust: bool
    download: bool
    threads: int | None

    def perform(self, call: Callable[[], Any]) -> Any:
        """Return the result of ``call``, made with this state."""
        with contextlib.chdir(self.place), borrowed(self.held), trusting(self.trust), downloading(self.download):
            if self.threads is not None:
                threads.use(self.threads)
            with _stoppable():
                return call()


def run(workers: Workers, held: Path, tasks: Sequence[Task]) -> Iterator[tuple[str, Any]]:
    """Run tasks in other processes, and yield the name and the result of each when it has ended.

    Args:
        workers: where they run.
        held: the folder that they write to, whose lock this process holds.
        tasks: what to run, in the order in which they are begun.

    Raises:
        RunError: a process was killed.
        Exception: what a task raised; no further task is begun then.
    """
    around = Surroundings(Path.cwd(), held.resolve(), trusted(), may_download(), workers.threads)
    waiting = list(tasks)
    running: dict[Future[Any], Task] = {}
    try:
        while waiting or running:
            count = len(waiting) if workers.count is None else workers.count - len(running)
            for task in waiting[:count]:
                running[workers.executor.submit(around.perform, task.call)] = task
            waiting = waiting[count:]
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future).name, future.result()
    except BrokenExecutor as error:
        raise RunError(
            "a process was killed, as by a machine without memory left; finished models are kept."
        ) from error
    finally:
        for future in running:
            future.cancel()


@contextmanager
def executor_of(jobs: int, cluster: str | None) -> Iterator[Workers | None]:
    """Yield ``jobs`` processes of this machine, or those of a dask cluster; None where this process does all.

    Args:
        jobs: number of processes; 1 starts none.
        cluster: address of a dask scheduler, such as ``tcp://10.0.0.1:8786``; None takes this machine.

    Raises:
        UserError: both are asked for, dask is not installed, there is no such cluster, or it has workers of several
            threads each.
    """
    if processes.count() > 1 and (jobs > 1 or cluster):
        raise UserError(
            "--jobs and --cluster: the processes of a launch share the work by batch already; leave them out."
        )
    if jobs > 1 and cluster:
        raise UserError("--jobs: a cluster has as many processes as it has workers; give --jobs or --cluster.")
    if cluster:
        with _cluster(cluster) as executor:
            yield Workers(executor, None, None)
    elif jobs > 1:
        each = max(1, (threads.in_use() or 1) // jobs)
        with _pool(jobs) as executor:
            yield Workers(executor, jobs, each)
    else:
        yield None


@contextmanager
def _pool(jobs: int) -> Iterator[Executor]:
    """Yield processes of this machine; when the block is interrupted they are signalled to stop, and waited for."""
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin)
    with _stopped_by_sigterm():
        try:
            yield pool
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    """Yield the workers of a dask cluster; when the block is interrupted, running tasks finish on their own."""
    try:
        from distributed import Client
    except ImportError as error:
        raise UserError("--cluster: dask.distributed is not installed; pip install 'msgm[cluster]'.") from error
    try:
        client = Client(address)
    except (OSError, ValueError) as error:
        raise UserError(f"--cluster: no dask scheduler answers at {address!r}.") from error
    with client:
        count = max(client.nthreads().values(), default=0)
        if count != 1:
            found = f"one has {count}" if count else "there are none"
            raise UserError(
                f"--cluster: expected workers of one thread each, as torch's seeds are a process's; {found}."
            )
        executor: Executor = client.get_executor(pure=False, retries=0)
        yield executor


_busy = False


def _begin() -> None:
    """Initialise a process of ``_pool``: it ignores Ctrl-C, which its parent handles by sending SIGTERM."""
    os.setsid()
    signal.signal(signal.SIGTERM, _stop)
    progress.plain()


def _stop(number: int, frame: FrameType | None) -> None:
    """End the task; between tasks the pool's own end is waited for."""
    if _busy:
        raise KeyboardInterrupt


@contextmanager
def _stoppable() -> Iterator[None]:
    global _busy
    _busy = True
    try:
        yield
    finally:
        _busy = False


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that processes are stopped with it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted("stopped.", 128 + number)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: signals are its owner's business
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
