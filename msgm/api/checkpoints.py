"""The folder that ``fit`` keeps its checkpoints in, and what it says of the fit that they are of."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgm.digests import KEY, positions_digest
from msgm.errors import UserError
from msgm.folders import LOCK, locked, write_json
from msgm.reading import read_json
from msgm.settings import differences
from msgm.splits import Part

FACTS = "fit.json"


@contextmanager
def working_folder(checkpoints: Path | str | None) -> Iterator[Path]:
    """Yield the folder of checkpoints, locked; without one a folder that is removed again."""
    if checkpoints is None:
        with TemporaryDirectory(prefix="msgm-") as folder:
            yield Path(folder)
    else:
        with locked(Path(checkpoints)):
            yield Path(checkpoints)


def occupy(folder: Path, facts: dict[str, Any], part: Part) -> None:
    """Write what a fit depends on into its new folder, or check that the fit in it is this one.

    Args:
        folder: of the checkpoints.
        facts: what the fit depends on, but for its items.
        part: its items, which are written as keyed digests.

    Raises:
        UserError: the folder holds another fit, or something else.
    """
    if int(os.environ.get("RANK", "0")):
        return  # the first process does it for all
    file = folder / FACTS
    if not file.is_file() and any(path.name not in (KEY, LOCK) for path in folder.iterdir()):
        raise UserError(f"fit: checkpoints: {folder} holds something else; give a new folder.")
    facts |= {kind: positions_digest(folder, getattr(part, kind)) for kind in ("retain", "forget")}
    if not file.is_file():
        write_json(file, facts)
    changed = differences(read_json(file, dict[str, Any]), facts)
    if changed:
        raise UserError(f"fit: {folder} holds checkpoints of another fit ({'; '.join(changed[:3])}); give a new one.")
