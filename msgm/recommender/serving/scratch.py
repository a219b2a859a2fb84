"""The temporary folder of a server, which holds the writer's socket and the metrics, and no id."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "msgm-serve-"
HELD = "held"
"""File of the folder that its server holds locked for as long as it lives, however it ends."""


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a new folder, which is removed at the end; first remove those that killed servers left."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        _remove_left(left)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        own = Path(name)
        new = own / f"{HELD}.new"
        with new.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.replace(new, own / HELD)  # so that nobody ever finds it without its lock
            yield own


def _remove_left(folder: Path) -> None:
    """Remove the folder of a server that has ended."""
    try:
        with (folder / HELD).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    except OSError:  # its server lives, is making or removing it just now, or is another user's
        return
