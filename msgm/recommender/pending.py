"""Requests in progress of a served model: ``pending.json`` holds them from submission until they are done.

A request is stored as row and column numbers, because its ids will be erased. Its keyed digests, which the journal has
as well, are those of the same ids; so an edited file, or one of another folder, is noticed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np

from msgm.errors import UserError
from msgm.reading import read_json
from msgm.recommender.data.base import Interactions
from msgm.recommender.journal import id_digest
from msgm.recommender.requests import Deletion
from msgm.shapes import Count, Positive

PENDING = "pending.json"
PARTS = ("users", "items", "cells")
FORGOTTEN = "\n(forgotten) "
"""What stands, in memory, for the id of a row or column that is forgotten; no id begins with a line break."""


def named(ids: Sequence[str | None]) -> list[str]:
    """Return the ids with a stand-in, which no file of ids can hold, for each that is forgotten."""
    return [f"{FORGOTTEN}{number}" if name is None else name for number, name in enumerate(ids)]


class Pending(TypedDict):
    """A request in progress: its fields in the journal, and the numbers of its rows, columns and cells."""

    request: Positive
    kind: Literal["users", "items", "interactions"]
    size: Positive
    digests: list[str]
    users: list[Count]
    items: list[Count]
    cells: list[list[Count]]


def read_pending(folder: Path) -> list[Pending]:
    """Return the requests that a crash left in a folder; none where there is no file.

    Raises:
        UserError: the file is damaged, or the requests are not numbered in order.
    """
    path = folder / PENDING
    if not path.is_file():
        return []
    pending: list[Pending] = read_json(path, list[Pending])
    numbers = [request["request"] for request in pending]
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        found = ", ".join(map(str, numbers)) or "none"
        raise UserError(f"{path}: expected requests with numbers in order, got {found}.")
    return pending


def checked_pending(folder: Path, key: bytes, data: Interactions, applied: int) -> list[Pending]:
    """Return the requests that a crash left, each about the ids that its digests stand for.

    Args:
        folder: the served folder.
        key: its key.
        data: the ids of the model, with ``FORGOTTEN`` stand-ins for forgotten ones.
        applied: number of the last request that is in the model.

    Raises:
        UserError: as ``read_pending``, or a request is about other rows or columns.
    """
    pending = read_pending(folder)
    for request in pending:
        if not _is_about_its_ids(request, key, data, applied):
            raise UserError(
                f"{folder / PENDING}: request {request['request']} is not about what its digests stand for; the file "
                "was edited or belongs to another folder."
            )
    return pending


def _is_about_its_ids(request: Pending, key: bytes, data: Interactions, applied: int) -> bool:
    """Return whether the numbers of a request are those of its ids; the ids of one that is applied may be erased."""
    given = {
        "users": [[number] for number in request["users"]],
        "items": [[number] for number in request["items"]],
        "interactions": request["cells"],
    }
    numbers = given.pop(request["kind"])
    maps = {"users": [data.users], "items": [data.items], "interactions": [data.users, data.items]}[request["kind"]]
    fitting = all(len(one) == len(maps) and all(n < len(m) for n, m in zip(one, maps, strict=True)) for one in numbers)
    if any(given.values()) or not fitting or len(numbers) != request["size"]:
        return False
    names = [[ids.ids[n] for n, ids in zip(one, maps, strict=True)] for one in numbers]
    left = [one for one in names if request["kind"] == "interactions" or not one[0].startswith(FORGOTTEN)]
    found = {id_digest(key, request["kind"], one if len(maps) > 1 else one[0]) for one in left}
    if len(left) < len(names):
        return request["request"] <= applied and found <= set(request["digests"])
    return found == set(request["digests"])


def deletion_of(requests: Sequence[Pending]) -> Deletion:
    """Return the union of several requests as one deletion."""
    users = [n for request in requests for n in request["users"]]
    items = [n for request in requests for n in request["items"]]
    cells = [cell for request in requests for cell in request["cells"]]
    return Deletion(
        np.array(users, dtype=np.int64),
        np.array(items, dtype=np.int64),
        np.array(cells, dtype=np.int64).reshape(-1, 2),
    )
