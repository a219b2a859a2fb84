"""A recommender that is served: fitted into a folder, made to forget there, and asked for lists.

    FOLDER/  recommender.safetensors  ids.json  manifest.json  journal.jsonl  key  lock  [pending.json]

A request is safe against a crash at any moment. It is written to ``pending.json`` first, with its number; from then on
it is not lost. The model file carries the number of the last request that is in it and is replaced whole; so no request
is applied twice. Going on takes the pending requests whose number the model does not carry yet. Numbers of rows and
columns never change. Lists are made when they are asked for and are not kept, and what is pending is served no more
than what is done: users and items of a request vanish at once.

A request that the model fails to answer is journalled as refused, with the reason, and the model is as before it.

After a request the folder holds no id of a forgotten user or item: ``ids.json`` has null in its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from msgm.digests import folder_key, keyed_digest
from msgm.errors import UserError
from msgm.folders import locked, write_bytes, write_json
from msgm.reading import read_json
from msgm.recommender.config import RecommenderConfig, known
from msgm.recommender.data.base import IdMap, Interactions, load_interactions
from msgm.recommender.journal import DONE, PLANNED, REFUSED, Journal
from msgm.recommender.models import MODELS
from msgm.recommender.models.base import FILE, Answer, Recommender, load_recommender
from msgm.recommender.requests import Deletion, RecommenderRequest, check_ids
from msgm.runs import environment
from msgm.seeding import derive_seed

KINDS = ("users", "items", "interactions")
PARTS = ("users", "items", "cells")
Request = dict[str, Any]


def fit(config: RecommenderConfig, model: str | None, out: Path) -> Path:
    """Fit a model of ``config`` to all interactions of its data, held-out ones included, into a folder to serve from.

    Args:
        config: the experiment.
        model: name of the row; may be None where the config has one model.
        out: the folder; the model file is written last.

    Raises:
        UserError: an unknown model, none named among several, or the folder holds a model already.
    """
    rows = [name for name, settings in config.models.items() if settings is not None]
    if model is None and len(rows) != 1:
        raise UserError(f"--model: say which; the config has {', '.join(rows) or 'none'}.")
    row = rows[0] if model is None else known(model, rows, "--model", "model")
    with locked(out):
        _fit(config, row, out)
    return out


def _fit(config: RecommenderConfig, row: str, out: Path) -> None:
    if (out / FILE).exists():
        raise UserError(f"{out} holds a recommender already; give another --out.")
    data, made = load_interactions(config.data), MODELS.build(config.models[row])
    start = perf_counter()
    made.fit(data.matrix, derive_seed(config.seed, "fit"), data.times)
    seconds = perf_counter() - start
    facts = {"kind": "recommender", "model": row, "settings": made.settings(), "data": config.data["name"]}
    write_json(out / "manifest.json", environment() | facts | {"digest": data.digest(), "fit_seconds": seconds})
    write_json(out / "ids.json", {"users": data.users.ids, "items": data.items.ids})
    folder_key(out)
    write_bytes(out / "journal.jsonl", b"")
    made.save(out)


@dataclass(frozen=True)
class Outcome:
    """What a call of ``forget`` did.

    Attributes:
        numbers: of the requests that were pending or new.
        before: numbers of the requests that had answered some of the ids before.
        answers: those given now.
        refused: why the model failed to answer, by number of the request.
    """

    numbers: list[int]
    before: list[int]
    answers: list[Answer]
    refused: dict[int, str]


class Service:
    """A folder that ``fit`` made.

    Raises:
        UserError: it holds no recommender, or only the model file.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / FILE).is_file():
            raise UserError(f"{folder} holds no recommender; make one with msgm recommender fit.")
        missing = [name for name in ("ids.json", "key", "journal.jsonl") if not (folder / name).is_file()]
        if missing:
            raise UserError(f"{folder} lacks {', '.join(missing)}; it is not as msgm recommender fit left it.")
        self.folder = folder
        self.pending_file = folder / "pending.json"
        self.journal = Journal(folder)
        self.key = folder_key(folder)

    def recommend(self, user: str, k: int) -> list[str]:
        """Return the ids of the k best items for a user, best first; fewer where fewer are left.

        Raises:
            UserError: a user who is unknown, forgotten or without any interaction left, or k below 1.
        """
        pending = self._pending()
        data, model = self._load()
        number = data.users.number(user)
        deletion = _deletion(pending)
        model.gone_users[deletion.users] = True
        model.gone_items[deletion.items] = True
        if model.gone_users[number]:
            raise UserError(f"user {user!r} is being forgotten and is served nothing.")
        if not deletion.without(model.seen)[[number]].nnz:
            raise UserError(f"user {user!r} has no interaction left and is served nothing.")
        found = model.recommend(np.array([number]), k)[0]
        return [data.items.ids[item] for item in found if item >= 0]

    def forget(
        self, kind: str, ids: Sequence[Any], together: bool = False, places: Sequence[str] | None = None
    ) -> Outcome:
        """Forget, one request an id; what was answered before is left alone, what a crash left is gone on with.

        Args:
            kind: one of ``KINDS``.
            ids: ids of users or items, or pairs [user, item].
            together: make all ids one request, which is answered faster.
            places: where each id was read, for errors to begin with.

        Raises:
            UserError: another writer, other pending requests, an unknown id or one given twice, a pair that the model
                never saw, or nothing would be left; nothing is changed then.
        """
        with locked(self.folder):
            pending = self._pending()
            unfinished = {request["request"] for request in pending}  # Some may be done, and the crash came then.
            done = {digest: number for digest, number in self.journal.done().items() if number not in unfinished}
            digests = [self._digest(kind, one) for one in ids]
            before = [self._answered(done, kind, one, digest) for one, digest in zip(ids, digests, strict=True)]
            new = [k for k, number in enumerate(before) if number is None]
            groups = [new] if together and new else [[k] for k in new]
            if pending:
                if [request["digests"] for request in pending] != [[digests[k] for k in group] for group in groups]:
                    raise UserError(f"{self.folder} has unfinished requests; finish them first with --resume.")
            elif new:
                asked = [[(ids[k], digests[k], places[k] if places else "") for k in group] for group in groups]
                pending = self._planned(kind, asked)
                write_json(self.pending_file, pending)
            return self._finish(pending, list(dict.fromkeys(number for number in before if number is not None)))

    def _answered(self, done: dict[str, int], kind: str, one: Any, digest: str) -> int | None:
        """Return the number of the request that answered an id; of a pair, also one for its user or its item."""
        digests = [digest]
        if kind == "interactions":
            digests += [self._digest("users", one[0]), self._digest("items", one[1])]
        return next((done[each] for each in digests if each in done), None)

    def resume(self) -> Outcome:
        """Answer what is pending after a crash; nothing, if nothing is.

        Raises:
            UserError: another writer.
        """
        with locked(self.folder):
            return self._finish(self._pending())

    def _planned(self, kind: str, groups: list[list[tuple[Any, str, str]]]) -> list[Request]:
        """Return requests in numbers, checked together and each for itself; of every id, digest and place are given."""
        data, model = self._load()
        ids, _, places = zip(*(one for group in groups for one in group), strict=True)
        check_ids(data, kind, ids, places)
        _asked(kind, ids).deletion(data, model.seen)
        first = max(self.journal.numbers(PLANNED) | {model.applied}) + 1
        planned = []
        for number, group in enumerate(groups, first):
            deletion = _asked(kind, [one for one, _, _ in group]).deletion(data, model.seen)
            parts = {key: getattr(deletion, key).tolist() for key in PARTS}
            digests = [digest for _, digest, _ in group]
            planned.append({"request": number, "kind": kind, "size": len(group), "digests": digests} | parts)
        return planned

    def _finish(self, pending: list[Request], before: Sequence[int] = ()) -> Outcome:
        """Answer the pending requests that the model does not have yet, journal them all, and drop them."""
        answers, refused = [], {}
        if pending:
            model = load_recommender(self.folder)
            planned, settled = self.journal.numbers(PLANNED), self.journal.numbers(DONE) | self.journal.numbers(REFUSED)
            for request in pending:
                if request["request"] not in planned:
                    self.journal.add(request, PLANNED)
            for request in pending:
                if request["request"] in settled:
                    continue
                try:
                    answer = self._forgotten(model, request)
                except (ValueError, ArithmeticError, RuntimeError) as error:
                    refused[request["request"]] = str(error)
                    self.journal.add(request, REFUSED, reason=str(error))
                    model = load_recommender(self.folder)  # This one may be half changed.
                else:
                    answers.append(self._answer(model, request, answer))
            self.pending_file.unlink()
        return Outcome([request["request"] for request in pending], list(before), answers, refused)

    def _forgotten(self, model: Recommender, request: Request) -> Answer | None:
        """Let the model forget, in memory; None where the saved one has, before the process died."""
        return model.forget(_deletion([request])) if request["request"] > model.applied else None

    def _answer(self, model: Recommender, request: Request, answer: Answer | None) -> Answer:
        """Write what a request came to: the model file first, then the ids, then the journal."""
        if answer is None:  # What it cost is not known.
            answer = Answer(0.0, 0, "not recorded")
        else:
            model.applied = request["request"]
            model.save(self.folder)
        self._erase_ids(model)
        facts = {"seconds": answer.seconds, "touched": answer.touched, "exactness": answer.exactness}
        self.journal.add(request, DONE, **facts)
        return answer

    def _erase_ids(self, model: Recommender) -> None:
        """Write null in place of the ids of forgotten users and items."""
        ids = read_json(self.folder / "ids.json")
        kept = {
            key: [None if lost else name for name, lost in zip(ids[key], gone, strict=True)]
            for key, gone in (("users", model.gone_users), ("items", model.gone_items))
        }
        if kept != ids:
            write_json(self.folder / "ids.json", kept)

    def _pending(self) -> list[Request]:
        return list(read_json(self.pending_file)) if self.pending_file.is_file() else []

    def _digest(self, kind: str, one: Any) -> str:
        name = "\t".join(map(str, one)) if kind == "interactions" else str(one)
        return keyed_digest(self.key, kind, name)

    def _load(self) -> tuple[Interactions, Recommender]:
        ids, model = read_json(self.folder / "ids.json"), load_recommender(self.folder)
        users, items = IdMap(_named(ids["users"]), "user"), IdMap(_named(ids["items"]), "item")
        return Interactions(model.seen, users, items), model


def _asked(kind: str, ids: Sequence[Any]) -> RecommenderRequest:
    request = RecommenderRequest()
    setattr(request, kind, list(ids))
    return request


def _named(ids: list[str | None]) -> list[str]:
    """Return the ids with a stand-in, which no file of ids can hold, for each that is forgotten."""
    return [f"\n(forgotten) {number}" if name is None else name for number, name in enumerate(ids)]


def _deletion(requests: list[Request]) -> Deletion:
    """Return what several requests are to forget."""
    users, items, cells = (np.array([n for r in requests for n in r[key]], dtype=np.int64) for key in PARTS)
    return Deletion(users, items, cells.reshape(-1, 2))
