"""Cooperation of the processes of one launch by ``torchrun`` or ``accelerate launch``.

Inside ``together`` all of them run the same code on the same folder. The first one writes and prints; what the others
write is dropped. Work that falls into batches is shared by ``spread``, after which every process has all results. A
batch is never cut, so that its results are those of one process: samples bit for bit, likelihoods but for rounding.
"""

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from msgm.errors import RunError

if TYPE_CHECKING:
    import torch

Batch = TypeVar("Batch")
Result = TypeVar("Result")

_sharing: ContextVar[int] = ContextVar("_sharing", default=1)
"""How many processes share the work of ``spread`` here."""


def count() -> int:
    """Return how many processes this launch has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this is the first process of its launch, as the only one is."""
    return count() == 1 or int(os.environ.get("RANK", "0")) == 0


def sharing() -> int:
    """Return how many processes share the work of ``spread`` here; 1 outside of ``together``."""
    return _sharing.get()


def writes() -> bool:
    """Return whether this process may write files: inside ``together`` only the first one may."""
    return sharing() == 1 or is_first()


@contextmanager
def together(device: str) -> Iterator["torch.device"]:
    """Work with the other processes of the launch, all of which enter this, and yield this process's device.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        UserError: an unknown device, or one that is not there.
    """
    from msgm.devices import chosen_device

    where = chosen_device(device)
    if count() == 1:
        yield where
        return
    from accelerate.state import PartialState

    state = PartialState(cpu=where.type == "cpu")
    leave_at_exit()
    token = _sharing.set(count())
    try:
        if is_first():
            yield state.device
        else:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                yield state.device
        wait()
    finally:
        _sharing.reset(token)


def device(name: str) -> "torch.device":
    """Return the device that a name means for this process, inside ``together`` its own.

    Raises:
        UserError: an unknown device, or one that is not there.
    """
    from msgm.devices import chosen_device

    if sharing() == 1:
        return chosen_device(name)
    from accelerate.state import PartialState

    found: torch.device = PartialState().device
    return found


@contextmanager
def alone() -> Iterator[None]:
    """Context for a block that other processes may not run, so that ``spread`` does not share its work."""
    token = _sharing.set(1)
    try:
        yield
    finally:
        _sharing.reset(token)


def wait() -> None:
    """Inside ``together``, wait until every process is here, so that files of the first one exist."""
    if sharing() > 1:
        from accelerate.state import PartialState

        PartialState().wait_for_everyone()


@contextmanager
def first_before_others() -> Iterator[None]:
    """Inside ``together``, let the first process run the block before the others, which then find its files."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()


def spread(batches: Sequence[Batch], work: Callable[[Batch], Result]) -> list[Result]:
    """Return ``work(batch)`` of each batch, in order; inside ``together`` each process does its share.

    Args:
        batches: the same ones in every process.
        work: maps a batch to a result that can be sent, such as tensors on the CPU.

    Raises:
        RunError: another process failed.
    """
    if sharing() == 1:
        return [work(batch) for batch in batches]
    from accelerate.utils import gather_object

    mine: dict[int, Result] = {}
    fault: Exception | None = None
    try:
        for number in range(int(os.environ["RANK"]), len(batches), sharing()):
            mine[number] = work(batches[number])
    except Exception as error:  # told to the others, who wait for this share
        fault = error
    told = None if fault is None else f"{type(fault).__name__}: {fault}"
    shares = gather_object([(mine, told)])
    if fault is not None:
        raise fault
    failed = [text for _, text in shares if text is not None]
    if failed:
        raise RunError(f"another process failed: {failed[0]}")
    found = {number: result for part, _ in shares for number, result in part.items()}
    return [found[number] for number in range(len(batches))]


def leave_at_exit() -> None:
    """Close the process group at exit; left open it aborts the interpreter's exit."""
    atexit.unregister(_leave)
    atexit.register(_leave)


def _leave() -> None:
    from accelerate.state import PartialState

    PartialState().destroy_process_group()
