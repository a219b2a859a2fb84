"""Answers the pending requests of a served model, with few writes of the model.

The journal says first that all of them are planned, in one write. Each is then answered in memory. A group of answers
is written when it has taken some seconds, and at the end: the model file whole, then the ids, then one write of the
journal that says they are done. So none is called done before the model file has forgotten it, and a kill at any moment
costs no more than the seconds of one group: the model file has the number of its last request and ``pending.json`` has
the others, which are then answered again.

The model is written whole. A file of the changes alone would be smaller, but of EASE, for one, the earlier model and
the change together give away the row that was forgotten.
"""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, TypedDict

from numpy.typing import NDArray

from msgm import traces
from msgm.folders import write_json
from msgm.reading import read_json
from msgm.recommender.journal import DONE, PLANNED, REFUSED, Journal
from msgm.recommender.journal import NAME as JOURNAL
from msgm.recommender.leftovers import IDS
from msgm.recommender.models.base import FILE, Answer, Recommender, load_recommender
from msgm.recommender.pending import Pending, deletion_of

AT_RISK = 10.0
"""Seconds of answers that are written as one group; a kill makes them be given again."""
WRITING_SHARE = 0.25
"""A group takes so long, too, that writing the model takes no more than this share of its time."""
UNRECORDED = Answer(0.0, 0, "not recorded")
"""Stands for the answer that a saved model had given before a crash; what it cost is not known."""


class Ids(TypedDict):
    """The ids of a model's rows and columns, null for those that are forgotten."""

    users: list[str | None]
    items: list[str | None]


class Answering:
    """Answers requests with a folder's model, and writes the answers in groups.

    Args:
        folder: the served folder.
        journal: its journal.
        model: its model, as it was saved.

    Attributes:
        answers: those that are written.
        refused: reasons of failure, by number of the request.
    """

    def __init__(self, folder: Path, journal: Journal, model: Recommender) -> None:
        self.folder, self.journal, self.model = folder, journal, model
        self.answers: list[Answer] = []
        self.refused: dict[int, str] = {}
        self._saved = model.applied
        self._stale = False  # whether an answer or a refusal came after the file was written
        self._group: list[tuple[Pending, Answer]] = []
        self._enough = AT_RISK

    def answer(self, pending: Sequence[Pending]) -> None:
        """Answer the requests that the journal does not call done or refused yet, in their order."""
        planned, refused = self.journal.numbers(PLANNED), self.journal.numbers(REFUSED)
        settled = self.journal.numbers(DONE) | refused
        self._stale = any(request["request"] in refused for request in pending)
        self.journal.extend([(request, PLANNED, {}) for request in pending if request["request"] not in planned])
        start = perf_counter()
        for request in pending:
            if request["request"] not in settled:
                self._one(request)
            if perf_counter() - start >= self._enough:
                self._write()
                start = perf_counter()
        self._write()

    def _one(self, request: Pending) -> None:
        """Answer a request in memory; one that fails is journalled as refused, and leaves the model as it was."""
        number = request["request"]
        if number <= self._saved:
            self._group.append((request, UNRECORDED))
            return
        try:
            answer = self._forgotten(request)
        except (ValueError, ArithmeticError, RuntimeError) as error:
            self.refused[number] = str(error)
            self.journal.add(request, REFUSED, reason=str(error))
            self._recover()
        else:
            self._group.append((request, answer))
        self._stale = True

    def _forgotten(self, request: Pending) -> Answer:
        answer = self.model.forget(deletion_of([request]))
        self.model.applied = request["request"]
        return answer

    def _recover(self) -> None:
        """Bring the model, which may be half changed, back to where the last answer left it."""
        self.model = load_recommender(self.folder)
        for request, _ in self._group:
            if request["request"] > self._saved:
                self._forgotten(request)

    def _write(self) -> None:
        """Write the outcome of a group: the model file first, then the ids, then the journal."""
        start = perf_counter()
        if self._stale:
            self.model.seal = self.journal.seal()
            self.model.save(self.folder)
            self._saved, self._stale = self.model.applied, False
        if not self._group:
            return
        write_ids(self.folder, read_json(self.folder / IDS, Ids), self.model)
        self.journal.extend([(request, DONE, _facts(answer)) for request, answer in self._group])
        self.answers += [answer for _, answer in self._group]
        self._group = []
        self._enough = max(AT_RISK, (perf_counter() - start) / WRITING_SHARE)


def _facts(answer: Answer) -> dict[str, Any]:
    return {"seconds": answer.seconds, "touched": answer.touched, "exactness": answer.exactness}


def write_ids(folder: Path, ids: Ids, model: Recommender) -> None:
    """Write the ids of a model's rows and columns, null in place of those that are forgotten."""
    left: Ids = {"users": _left(ids["users"], model.gone_users), "items": _left(ids["items"], model.gone_items)}
    if left != ids or not (folder / IDS).is_file():
        write_json(folder / IDS, left)


def _left(ids: Sequence[str | None], gone: NDArray[Any]) -> list[str | None]:
    return [None if lost else name for name, lost in zip(ids, gone, strict=True)]


def seal(folder: Path) -> None:
    """Keep the hashes of the model, the ids and the journal, for ``msgm verify``."""
    traces.seal(folder, *(folder / name for name in (FILE, IDS, JOURNAL)))
