"""The text files of LightGCN and of RecEraser: ``train.txt`` and ``test.txt``, on each line a user and his items."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msgm.errors import UserError
from msgm.ids import shown
from msgm.recommender.data.base import SOURCES, Interactions
from msgm.recommender.data.rating_rows import FileSource, RatingRows
from msgm.tabular import read_lines

NUMBERS = re.compile("(?:0|[1-9][0-9]*)(?: (?:0|[1-9][0-9]*))*")


@SOURCES.register("lightgcn")
@dataclass
class LightGCN(FileSource):
    """Implicit feedback; the published test part is marked, and the split ``published`` keeps to it.

    Example:
        >>> data = LightGCN(path="data/gowalla").load()  # a folder of the published train.txt and test.txt
        >>> data.explicit, data.test is not None
        (False, True)

    Attributes:
        path: folder of ``train.txt`` and, if published, ``test.txt``. A pair in both is a duplicate; with
            ``duplicates: last`` it is of the test part alone.
    """

    path: str | None = None

    def load(self) -> Interactions:
        if self.path is None:
            raise UserError("data.path: say which folder holds train.txt and test.txt.")
        train, test = Path(self.path) / "train.txt", Path(self.path) / "test.txt"
        users, items, places = _read(train)
        if not test.is_file():
            return self.collect(RatingRows(users, items, places.__getitem__))
        more_users, more_items, more_places = _read(test)
        places += more_places
        marks = np.arange(len(places)) >= len(users)
        return self.collect(RatingRows(users + more_users, items + more_items, places.__getitem__, test=marks))


def _read(path: Path) -> tuple[list[str], list[str], list[str]]:
    """Return users, items and places, pair by pair; a user alone on a line has none.

    Raises:
        UserError: the file cannot be read, has no pair, or holds anything but whole numbers without leading zeros: the
            format numbers users and items, so that 01 would be 1.
    """
    users: list[str] = []
    items: list[str] = []
    places: list[str] = []
    for number, line in read_lines(path, "data.path"):
        user, *liked = line.split()
        if not NUMBERS.fullmatch(" ".join([user, *liked])):
            raise UserError(
                f"{path}, line {number}: expected whole numbers without leading zeros, a user and his items, "
                f"got {shown(line, 40)}."
            )
        users += [user] * len(liked)
        items += liked
        places += [f"{path}, line {number}"] * len(liked)
    if not users:
        raise UserError(f"{path} holds no interaction.")
    return users, items, places
