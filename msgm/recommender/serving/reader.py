"""The reading side of a server: lists from a model that is kept in memory until its file is replaced."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from msgm.plugins import trusting
from msgm.recommender.data.base import Interactions
from msgm.recommender.journal import NAME as JOURNAL
from msgm.recommender.journal import PLANNED, Journal
from msgm.recommender.leftovers import IDS
from msgm.recommender.models.base import FILE, Recommender, load_recommender
from msgm.recommender.pending import read_pending
from msgm.recommender.requests import Deletion
from msgm.recommender.service import Service, reading
from msgm.recommender.whatif import WhatIf

T = TypeVar("T")


class Reader(Service):
    """A served folder that is read many times.

    Lists are made one after the other, as a model need not bear being used by two threads. Nothing is read before it is
    asked for, so that a reader that is started while the folder cannot be read serves from it as soon as it can be.

    Args:
        folder: that ``fit`` made.
        trust: whether to run the Python files that the folder names.
    """

    def __init__(self, folder: Path, trust: bool = False) -> None:
        self.folder = folder
        self._trust, self._turn = trust, Lock()
        self._applied: int | None = None
        self._held: dict[str, tuple[Any, Any]] = {}
        self._shown: tuple[Any, tuple[Interactions, Recommender, Deletion]] | None = None
        self._journal: tuple[Any, dict[int, dict[str, Any]]] | None = None

    def recommend(self, user: str, k: int) -> list[str]:
        """Return the ids of the k best items for a user, and raise, as ``Service.recommend`` does."""
        with self._turn:
            return super().recommend(user, k)

    def what_if(self, user: str, items: Sequence[Any] | None, k: int) -> WhatIf:
        """Return a user's list as it is and without items, and raise, as ``Service.what_if`` does."""
        with self._turn:
            return super().what_if(user, items, k)

    def status(self, number: int) -> dict[str, Any] | None:
        """Return the last journal line on a request, without digests; None where there is no such request.

        Raises:
            UnreadableError: the journal, or the list of pending requests, was edited or damaged.
        """
        with self._turn, reading(self.folder):
            return self._last_lines().get(number) or self._only_planned(number)

    def _last_lines(self) -> dict[int, dict[str, Any]]:
        path = self.folder / JOURNAL
        now = path.stat()
        state = (now.st_ino, now.st_mtime_ns, now.st_size)
        if self._journal is None or self._journal[0] != state:
            self._journal = state, {line["request"]: _public(line) for line in Journal(self.folder).lines}
        return self._journal[1]

    def _only_planned(self, number: int) -> dict[str, Any] | None:
        """Return a request that is pending, and of which the journal says nothing yet."""
        found = [request for request in read_pending(self.folder) if request["request"] == number]
        return {**_public(found[0]), "state": PLANNED} if found else None

    def _current(self) -> tuple[Interactions, Recommender, Deletion]:
        state = self._state()
        if self._shown is None or self._shown[0] != state:
            with reading(self.folder):
                self._shown = state, self._refreshed(*state[1:])
        return self._shown[1]

    def _refreshed(self, model_file: Any, ids_file: Any) -> tuple[Interactions, Recommender, Deletion]:
        """Return the ids, the model and what is pending, from the states of the files of model and ids."""
        model = self._kept(FILE, model_file, self._read_model)
        data, _ = self._joined(*self._kept(IDS, ids_file, self._load_ids), model)
        shown = copy.copy(model)
        shown.gone_users, shown.gone_items = model.gone_users.copy(), model.gone_items.copy()
        return self._without_pending(data, shown)

    def _read_model(self) -> Recommender:
        """Return the model, which is not older than the journal.

        Reading that takes longer with every request, so it is read for the first model, and for one that has forgotten
        less than the one before.
        """
        with trusting(self._trust):
            model = load_recommender(self.folder)
        if self._applied is None or model.applied < self._applied:
            self._refuse_older(Journal(self.folder), model)
        self._applied = model.applied
        return model

    def _kept(self, name: str, state: Any, read: Callable[[], T]) -> T:
        """Return what was read from a file, which is read again only where its state is another.

        The state is taken before the file is read. Of a file that was replaced in between, the state is too old, and it
        is read once more.
        """
        if name not in self._held or self._held[name][0] != state:
            self._held[name] = state, read()
        found: T = self._held[name][1]
        return found


def _public(line: Any) -> dict[str, Any]:
    names = ("request", "kind", "size", "state", "time", "exactness", "seconds", "reason")
    return {name: line[name] for name in names if name in line}
