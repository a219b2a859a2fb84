"""The journal of forget requests in a served model's folder.

The journal contains no ids, so it may be kept and shown. A request stands in it as its number, kind, size and digests,
one for each id and keyed with the folder's own ``key``, so that only someone who has both the key and an id can find
the id's request. The row and column numbers of a request are in ``pending.json`` alone, and only until it is done.

Its lines are chained: each ends with a keyed digest of itself and of the digest before it. A line that was edited, or
taken out, is noticed, for the digests after it do not fit. The model file holds the number of lines, and the last
digest, at the time when it was written, so that lines missing at the end are noticed too.
"""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np

from msgm.digests import KEY, keyed_digest, read_key
from msgm.errors import UserError
from msgm.reading import parse_json, read_bytes
from msgm.recommender.data.base import Interactions
from msgm.recommender.requests import Deletion
from msgm.recommender.sparse import rows_of
from msgm.shapes import Count, Positive

RESTORE = (
    "To go on, put back recommender.safetensors, ids.json, journal.jsonl and key, together, from one backup, remove "
    "pending.json, and ask again for what was asked since."
)
"""What mends a damaged journal."""
PLANNED, DONE, REFUSED = "planned", "done", "refused"
NAME = "journal.jsonl"


def id_digest(key: bytes, kind: str, one: Any) -> str:
    """Return the keyed digest that represents an id in the journal; for ``interactions``, a pair [user id, item id]."""
    return keyed_digest(key, kind, "\t".join(map(str, one)) if kind == "interactions" else str(one))


def served_key(folder: Path) -> bytes:
    """Return the key of a served folder, which ``fit`` alone makes.

    Raises:
        UserError: it is missing, cut or empty.
    """
    key = read_key(folder)
    if key is None:
        raise UserError(f"{folder} lacks {KEY}; put it back from a backup, for no other fits the journal.")
    return key


class Line(TypedDict):
    """A line of the journal; lines of msgm 0.1 have no ``chain``."""

    state: Literal["planned", "done", "refused"]
    time: str
    request: Positive
    kind: Literal["users", "items", "interactions"]
    size: Positive
    digests: list[str]
    chain: NotRequired[str]


class Seal(TypedDict):
    """A state of a journal: its number of lines, and the digest of the last one."""

    lines: Count
    chain: str


class Journal:
    """An append-only file with one JSON line for every state of a request; lines are on disk when ``add`` returns.

    A last line without an end, which a crash may leave, is no line and is cut off by the next ``add``.

    Attributes:
        path: the file.
        lines: all lines, oldest first.

    Raises:
        UserError: the file or its key is missing, or a line is damaged, was edited or comes after a missing one.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._key = served_key(folder)
        content = read_bytes(self.path)
        self._end = content.rfind(b"\n") + 1
        self._chain = [""]
        self.lines: list[dict[str, Any]] = []
        for number, text in enumerate(content[: self._end].split(b"\n")[:-1], 1):
            self.lines.append(self._checked(text, number))

    def _checked(self, text: bytes, number: int) -> dict[str, Any]:
        """Parse and check a line, extend the digest chain and return the line."""
        source = f"{self.path}, line {number}"
        lines = "line 1" if number == 2 else f"lines 1 to {number - 1}"
        trusted = f"{lines} can be trusted" if number > 1 else "no line can be trusted"
        try:
            line: dict[str, Any] = parse_json(text.decode(), source, Line)
        except UnicodeDecodeError as error:
            raise UserError(f"{source} is damaged: it is not UTF-8; {trusted}. {RESTORE}") from error
        except UserError as error:
            raise UserError(f"{str(error).removesuffix('.')}; {trusted}. {RESTORE}") from error
        self._chain.append(self._link(line))
        of_first_version = "chain" not in line and all("chain" not in earlier for earlier in self.lines)
        if not of_first_version and line.get("chain") != self._chain[-1]:
            raise UserError(f"{source}: it was edited, or the line before it is missing; {trusted}. {RESTORE}")
        return line

    def _link(self, line: dict[str, Any]) -> str:
        body = {name: value for name, value in line.items() if name != "chain"}
        return keyed_digest(self._key, "journal", self._chain[-1], json.dumps(body, sort_keys=True))

    def numbers(self, *states: str) -> set[int]:
        """Return the numbers of the requests that have reached one of the states."""
        return {line["request"] for line in self.lines if line["state"] in states}

    def done(self) -> dict[str, int]:
        """Return the numbers of the requests that were answered, by the digests of their ids."""
        lines = [line for line in self.lines if line["state"] == DONE]
        return {digest: line["request"] for line in lines for digest in line["digests"]}

    def forgotten(self, data: Interactions) -> Deletion:
        """Return the parts of ``data`` that answered requests asked to forget."""
        done = set(self.done())
        users, items = (
            np.array([n for n, name in enumerate(ids.ids) if id_digest(self._key, kind, name) in done], dtype=np.int64)
            for kind, ids in (("users", data.users), ("items", data.items))
        )
        if not any(line["kind"] == "interactions" for line in self.lines):
            return Deletion(users, items)
        cells = zip(rows_of(data.matrix).tolist(), data.matrix.indices.tolist(), strict=True)
        pairs = [[data.users.ids[u], data.items.ids[i]] for u, i in cells]
        marked = np.array([id_digest(self._key, "interactions", pair) in done for pair in pairs])
        found = np.stack([rows_of(data.matrix), data.matrix.indices], axis=1)[marked]
        return Deletion(users, items, found.astype(np.int64))

    def seal(self) -> Seal:
        """Return the journal's present state."""
        return {"lines": len(self.lines), "chain": self._chain[-1]}

    def check(self, seal: Seal, applied: int, pending: set[int]) -> None:
        """Refuse a journal from whose end lines are missing.

        Args:
            seal: its state when the model was written.
            applied: number of the last request that is in the model.
            pending: numbers of the requests that a crash left.

        Raises:
            UserError: it ends before the seal, or a request that was planned or answered has no line that says so.
        """
        settled = self.numbers(DONE, REFUSED) | pending
        if len(self.lines) < seal["lines"] or self._chain[seal["lines"]] != seal["chain"]:
            fault = f"the model was written after line {seal['lines']}"
        elif self.numbers(PLANNED) - settled:
            fault = f"it does not say what became of request {min(self.numbers(PLANNED) - settled)}"
        elif applied and applied not in settled:
            fault = f"the model has forgotten what request {applied} asked for, of which no line says so"
        else:
            return
        raise UserError(
            f"{self.path}: lines are missing at its end: {fault}. The {len(self.lines)} lines that are there can be "
            f"trusted, but do not say all that was asked for. {RESTORE}"
        )

    def older(self, applied: int) -> str | None:
        """Return why a model is older than the journal, and what mends it; None where it is not.

        The model file is written before the lines that say so: a kill in between leaves a model that is ahead, or a
        request that is pending, and never one that lacks what the journal calls done.

        Args:
            applied: number of the last request that is in the model.
        """
        last = max(self.numbers(DONE), default=0)
        if last <= applied:
            return None
        return (
            f"it holds the answers up to request {applied}, the journal up to {last}: it is an older one, as from a "
            "backup; delete the model file and run msgm recommender fit with this folder as --out, which leaves out "
            "what the journal says is forgotten"
        )

    def cut(self) -> None:
        """Cut off a last line without an end, which a crash may leave."""
        if self.path.stat().st_size > self._end:
            os.truncate(self.path, self._end)

    def add(self, request: Mapping[str, Any], state: str, **facts: Any) -> None:
        """Append a line about ``request``: its number, kind, size and digests, and ``facts``."""
        self.extend([(request, state, facts)])

    def extend(self, states: Sequence[tuple[Mapping[str, Any], str, dict[str, Any]]]) -> None:
        """Append lines as ``add`` does, in one write; a crash in it leaves the first of them."""
        self.cut()
        with self.path.open("ab") as file:
            for request, state, facts in states:
                content = self._line(request, state, facts)
                file.write(content)
                self._end += len(content)
            file.flush()
            os.fsync(file.fileno())

    def _line(self, request: Mapping[str, Any], state: str, facts: dict[str, Any]) -> bytes:
        """Add a line to those in memory, and return it as it is written."""
        shown = {key: request[key] for key in ("request", "kind", "size", "digests")}
        line = {"state": state, "time": datetime.now(UTC).isoformat(timespec="seconds")} | shown | facts
        line["chain"] = self._link(line)
        self._chain.append(line["chain"])
        self.lines.append(line)
        return json.dumps(line).encode() + b"\n"
