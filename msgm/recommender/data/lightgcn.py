"""The text files of LightGCN and of RecEraser: ``train.txt`` and ``test.txt``, on each line a user and his items."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msgm.errors import UserError
from msgm.recommender.data.base import SOURCES, Interactions
from msgm.recommender.data.records import FileSource, Records
from msgm.recommender.data.rows import read_text


@SOURCES.register("lightgcn")
@dataclass
class LightGCN(FileSource):
    """Implicit feedback; the published test part is marked, and the split ``published`` keeps to it.

    Attributes:
        path: folder of ``train.txt`` and, if published, ``test.txt``. A pair in both is a duplicate; with
            ``duplicates: last`` it is of the test part alone.
    """

    path: str | None = None

    def load(self) -> Interactions:
        if self.path is None:
            raise UserError("data.path: say which folder holds train.txt and test.txt.")
        train, test = Path(self.path) / "train.txt", Path(self.path) / "test.txt"
        users, items, lines = _read(train)
        if not test.is_file():
            return self.collect(Records(users, items, lambda row: f"{train}, line {lines[row]}"))
        more_users, more_items, more_lines = _read(test)
        size = len(users)

        def where(row: int) -> str:
            return f"{train}, line {lines[row]}" if row < size else f"{test}, line {more_lines[row - size]}"

        marks = np.arange(size + len(more_users)) >= size
        return self.collect(Records(users + more_users, items + more_items, where, test=marks))


def _read(path: Path) -> tuple[list[str], list[str], list[int]]:
    """Return users, items and lines, pair by pair; a user alone on a line has none.

    Raises:
        UserError: the file cannot be read, has no pair, or holds anything but whole numbers.
    """
    users: list[str] = []
    items: list[str] = []
    lines: list[int] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        user, *liked = line.split() or [""]
        if line.strip() and not (line.isascii() and (user + "".join(liked)).isdecimal()):
            raise UserError(f"{path}, line {number}: expected whole numbers, a user and his items, got {line[:40]!r}.")
        users += [user] * len(liked)
        items += liked
        lines += [number] * len(liked)
    if not users:
        raise UserError(f"{path} holds no interaction.")
    return users, items, lines
