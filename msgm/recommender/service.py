"""A served recommender: fitted into a folder, it forgets there and recommends from there.

    FOLDER/  recommender.safetensors  ids.json  manifest.json  journal.jsonl  key  lock  [pending.json]

A request is safe against a crash at any moment. It is written to ``pending.json`` first, with its number; from then on
it is not lost. The model file carries the number of the last request that is in it and is replaced whole, once for a
group of answers (``answering``); so no request is applied twice. Resuming answers the pending requests whose number the
model does not carry yet. Numbers of rows and columns never change. Lists are computed on demand and not stored, and the
users and items of a request are no longer served once it is pending. A folder holds one model at rest, and one more
while that is replaced; what a killed process left is removed by the next command that writes.

A request that the model fails to answer is journalled as refused, with the reason, and the model is as before it.

After a request the folder holds no id of a forgotten user or item: ``ids.json`` has null in its place.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from msgm.digests import KEY
from msgm.errors import UserError
from msgm.folders import locked, write_json
from msgm.reading import read_json
from msgm.recommender.answering import Answering, Ids, seal
from msgm.recommender.data.base import IdMap, Interactions
from msgm.recommender.journal import DONE, PLANNED, REFUSED, Journal, id_digest, served_key
from msgm.recommender.journal import NAME as JOURNAL
from msgm.recommender.leftovers import IDS, not_searched, refuse_leftovers
from msgm.recommender.models.base import FILE, Answer, Recommender, load_recommender
from msgm.recommender.pending import PARTS, PENDING, Pending, checked_pending, deletion_of, named
from msgm.recommender.requests import Deletion, RecommenderRequest, check_ids

if TYPE_CHECKING:
    from msgm.recommender.whatif import WhatIf

T = TypeVar("T")
KINDS = ("users", "items", "interactions")


@dataclass(frozen=True)
class Outcome:
    """Result of a call of ``forget``.

    Attributes:
        numbers: of the requests that were pending or new.
        before: numbers of earlier requests that already covered some of the ids.
        answers: those given now.
        refused: reasons of failure, by number of the request.
        unsearched: files of the folder whose content cannot be searched for ids.
    """

    numbers: list[int]
    before: list[int]
    answers: list[Answer]
    refused: dict[int, str]
    unsearched: list[Path]


class UnreadableError(UserError):
    """A file of the folder is missing, damaged or of another time, which is no fault of the caller."""


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Context that reads files of a served folder; whatever fails in it is an ``UnreadableError``."""
    try:
        yield
    except UserError as error:
        raise UnreadableError(str(error)) from error
    except OSError as error:
        raise UnreadableError(f"{folder} cannot be read ({error.strerror}: {error.filename}).") from error


class Service:
    """A folder that ``fit`` made.

    Raises:
        UnreadableError: it holds no recommender, or only the model file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._refuse_missing()

    @cached_property
    def key(self) -> bytes:
        """The key of the folder's digests.

        Raises:
            UnreadableError: it is missing or damaged.
        """
        with reading(self.folder):
            return served_key(self.folder)

    def _refuse_missing(self) -> None:
        """Refuse a folder that lacks a file, before anything is written there."""
        if not (self.folder / FILE).is_file():
            raise UnreadableError(f"{self.folder} holds no recommender; make one with msgm recommender fit.")
        missing = [name for name in (IDS, KEY, JOURNAL) if not (self.folder / name).is_file()]
        if missing:
            raise UnreadableError(
                f"{self.folder} lacks {', '.join(missing)}; it is not as msgm recommender fit left it."
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Context that holds the folder's lock; a folder that is gone is not made anew."""
        self._refuse_missing()
        with locked(self.folder):
            yield

    def recommend(self, user: str, k: int) -> list[str]:
        """Return the ids of the k best items for a user, best first; fewer where fewer are left.

        A request that comes while the list is made is in it, too: what it names is not listed.

        Raises:
            UserError: a user who is unknown, forgotten or without any interaction left, or k below 1.
        """
        return self._steady(lambda: self._listed(user, k))

    def what_if(self, user: str, items: Sequence[Any] | None, k: int) -> "WhatIf":
        """Return a user's list, and what it would be had they withdrawn items; nothing in the folder is changed.

        What is pending counts as withdrawn already, and neither list shows it; nor does either see yet what it changes
        in the model.

        Args:
            user: the user's id.
            items: ids of items in the user's history; None for all of it.
            k: length of the lists.

        Raises:
            UserError: as ``recommend``, items that are not in the history or given twice, or a model that cannot tell.
        """
        from msgm.recommender.whatif import by_ids

        return self._steady(lambda: by_ids(*self._serving(user), items, k))

    def _steady(self, read: Callable[[], T]) -> T:
        """Return what is read from files that no other process replaced meanwhile."""
        while True:
            state = self._state()
            try:
                found = read()
            except UserError:
                if state == self._state():
                    raise
            else:
                if state == self._state():
                    return found

    def _state(self) -> list[tuple[int, int] | None]:
        """Return what changes whenever another process replaces a file that lists are made from."""
        found: list[tuple[int, int] | None] = []
        for name in (PENDING, FILE, IDS):
            try:
                now = (self.folder / name).stat()
            except FileNotFoundError:
                found.append(None)
            else:
                found.append((now.st_ino, now.st_mtime_ns))
        return found

    def _listed(self, user: str, k: int) -> list[str]:
        data, model, number, _ = self._serving(user)
        found = model.listed(np.array([number]), k)[0]
        return [data.items.ids[item] for item in found if item >= 0]

    def _serving(self, user: str) -> tuple[Interactions, Recommender, int, Deletion]:
        """Return the ids, the model, the user's row, and what is pending, of which the model serves nothing.

        Raises:
            UserError: a user who is unknown, forgotten or without any interaction left.
        """
        data, model, deletion = self._current()
        number = data.users.number(user)
        if model.gone_users[number]:
            raise UserError(f"user {user!r} is being forgotten and is served nothing.")
        if not deletion.without(model.seen)[[number]].nnz:
            raise UserError(f"user {user!r} has no interaction left and is served nothing.")
        return data, model, number, deletion

    def _current(self) -> tuple[Interactions, Recommender, Deletion]:
        """Return the ids, the model, and what is pending, of which the model serves nothing."""
        with reading(self.folder):
            journal = Journal(self.folder)
            data, model = self._load()
            self._refuse_older(journal, model)
            return self._without_pending(data, model)

    def _without_pending(self, data: Interactions, model: Recommender) -> tuple[Interactions, Recommender, Deletion]:
        """Return ids, model and what is pending, which is marked as gone in the model."""
        deletion = deletion_of(checked_pending(self.folder, self.key, data, model.applied))
        model.gone_users[deletion.users] = True
        model.gone_items[deletion.items] = True
        return data, model, deletion

    def forget(
        self, kind: str, ids: Sequence[Any], together: bool = False, places: Sequence[str] | None = None
    ) -> Outcome:
        """Forget ids, one request each; skips ids that were answered before and finishes requests that a crash left.

        Args:
            kind: one of ``KINDS``.
            ids: ids of users or items, or pairs [user, item].
            together: combine all ids into one request, which is faster.
            places: where each id was read, for errors to begin with.

        Raises:
            UnreadableError: a file of the folder is missing or damaged, or the model is older than the journal.
            UserError: another writer, other pending requests, an unknown id or one given twice, a pair that the model
                never saw, or nothing would be left; nothing is changed then. Also a journal that was edited or cut.
            RunError: a file of the folder still holds an id that was forgotten.
        """
        with self._writing():
            journal, data, model, pending = self._open()
            unfinished = {request["request"] for request in pending}  # Some may be done, and the crash came then.
            done = {digest: number for digest, number in journal.done().items() if number not in unfinished}
            ids = _as_held(kind, ids)
            digests = [id_digest(self.key, kind, one) for one in ids]
            before = [self._answered(done, kind, one, digest) for one, digest in zip(ids, digests, strict=True)]
            new = [k for k, number in enumerate(before) if number is None]
            groups = [new] if together and new else [[k] for k in new]
            if pending:
                if [request["digests"] for request in pending] != [[digests[k] for k in group] for group in groups]:
                    raise UserError(f"{self.folder} has unfinished requests; finish them first with --resume.")
            elif new:
                asked = [[(ids[k], digests[k], places[k] if places else "") for k in group] for group in groups]
                first = max(journal.numbers(PLANNED) | {model.applied}) + 1
                pending = _planned(kind, asked, data, model, first)
                write_json(self.folder / PENDING, pending)
            return self._finish(
                journal, model, pending, list(dict.fromkeys(number for number in before if number is not None))
            )

    def _answered(self, done: dict[str, int], kind: str, one: Any, digest: str) -> int | None:
        """Return the number of the request that answered an id; of a pair, also one for its user or its item."""
        digests = [digest]
        if kind == "interactions":
            digests += [id_digest(self.key, "users", one[0]), id_digest(self.key, "items", one[1])]
        return next((done[each] for each in digests if each in done), None)

    def resume(self) -> Outcome:
        """Answer the requests that a crash left pending, if any.

        Raises:
            UserError: another writer, or a journal or pending requests that were edited or cut.
            RunError: a file of the folder still holds an id that was forgotten.
        """
        with self._writing():
            journal, _, model, pending = self._open()
            return self._finish(journal, model, pending)

    def answered(self) -> list[str]:
        """Return a line for each request that the journal knows, once the folder was searched for forgotten ids.

        Raises:
            UserError: another writer, or a journal or pending requests that were edited or cut.
            RunError: a file of the folder still holds an id that was forgotten.
        """
        with self._writing():
            journal, _, _, _ = self._open()
            closed = self._search(journal)
        last = {line["request"]: line for line in journal.lines}
        return [*(_told(line) for _, line in sorted(last.items())), *map(not_searched, closed)]

    def _open(self) -> tuple[Journal, Interactions, Recommender, list[Pending]]:
        """Load the folder's contents, checked against one another."""
        with reading(self.folder):
            journal = Journal(self.folder)
            data, model = self._load()
            self._refuse_older(journal, model)
            pending = checked_pending(self.folder, self.key, data, model.applied)
            journal.check(model.seal, model.applied, {request["request"] for request in pending})
        return journal, data, model, pending

    def _refuse_older(self, journal: Journal, model: Recommender) -> None:
        """Refuse a model that lacks what the journal calls done."""
        fault = journal.older(model.applied)
        if fault:
            raise UserError(f"{self.folder / FILE}: {fault}.")

    def _finish(
        self, journal: Journal, model: Recommender, pending: list[Pending], before: Iterable[int] = ()
    ) -> Outcome:
        """Answer the pending requests that the model does not have yet, journal them all, and drop them."""
        answering = Answering(self.folder, journal, model)
        answering.answer(pending)
        if pending:
            seal(self.folder)
        (self.folder / PENDING).unlink(missing_ok=True)
        closed = self._search(journal)
        numbers = [request["request"] for request in pending]
        return Outcome(numbers, list(before), answering.answers, answering.refused, closed)

    def _search(self, journal: Journal) -> list[Path]:
        """Search the folder for ids of answered requests; returns and raises as ``refuse_leftovers``."""
        journal.cut()
        return refuse_leftovers(self.folder, self.key, set(journal.done()))

    def _load(self) -> tuple[Interactions, Recommender]:
        return self._joined(*self._load_ids(), load_recommender(self.folder))

    def _load_ids(self) -> tuple[IdMap, IdMap]:
        ids = read_json(self.folder / IDS, Ids)
        return IdMap(named(ids["users"]), "user"), IdMap(named(ids["items"]), "item")

    def _joined(self, users: IdMap, items: IdMap, model: Recommender) -> tuple[Interactions, Recommender]:
        if (len(users), len(items)) != model.seen.shape:
            raise UserError(
                f"{self.folder / IDS} names {len(users)} users and {len(items)} items; the model has others."
            )
        return Interactions(model.seen, users, items), model


def _told(line: dict[str, Any]) -> str:
    """Return a sentence on the state of a request, from its last journal line."""
    said = f"request {line['request']} ({line['kind']}, {line['size']})"
    if line["state"] == DONE:
        return f"{said}: answered {line['time']}, {line['exactness']}; no file here names what it asked for"
    if line["state"] == REFUSED:
        return f"{said}: refused {line['time']}: {line['reason']}"
    return f"{said}: begun {line['time']} and not finished; go on with --resume"


def _planned(
    kind: str, groups: list[list[tuple[Any, str, str]]], data: Interactions, model: Recommender, first: int
) -> list[Pending]:
    """Return requests as row and column numbers, checked together and singly; a group lists (id, digest, place)."""
    ids, _, places = zip(*(one for group in groups for one in group), strict=True)
    check_ids(data, kind, ids, places)
    _asked(kind, ids).deletion(data, model.seen)
    planned: list[Any] = []
    for number, group in enumerate(groups, first):
        deletion = _asked(kind, [one for one, _, _ in group]).deletion(data, model.seen)
        parts = {key: getattr(deletion, key).tolist() for key in PARTS}
        digests = [digest for _, digest, _ in group]
        planned.append({"request": number, "kind": kind, "size": len(group), "digests": digests} | parts)
    return planned


def _as_held(kind: str, ids: Sequence[Any]) -> list[Any]:
    """Return ids, or pairs of them, as the data hold them: as text, without the spaces around."""
    held: list[Any] = getattr(_asked(kind, ids), kind)
    if kind == "interactions":
        return [[str(one).strip() for one in pair] for pair in held]
    return [str(one).strip() for one in held]


def _asked(kind: str, ids: Sequence[Any]) -> RecommenderRequest:
    return RecommenderRequest(**{kind: ids})  # type: ignore[arg-type]
