"""What a served model's folder needs to forget safely: a journal of what was asked.

The journal may be kept and shown: it holds no id. A request stands in it as its number, kind, size and digests, one for
each id and keyed with the folder's own ``key``, so that whoever knows an id and holds the key can find its request, and
others cannot try ids out. What a request is about stands in ``pending.json`` alone, as numbers of rows and columns, and
only until it is done.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgm.errors import UserError

PLANNED, DONE, REFUSED = "planned", "done", "refused"


class Journal:
    """An append-only file with one JSON line for every state of a request; a line is on disk when ``add`` returns.

    A last line without an end, which a crash may leave, is no line and is cut off by the next ``add``.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        """Return all lines, oldest first.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            return [json.loads(line) for line in self._whole().decode().splitlines()]
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path} is missing or damaged: {error}.") from error

    def numbers(self, state: str) -> set[int]:
        """Return the numbers of the requests that have reached a state."""
        return {line["request"] for line in self.lines() if line["state"] == state}

    def done(self) -> dict[str, int]:
        """Return the numbers of the requests that were answered, by the digests of their ids."""
        lines = [line for line in self.lines() if line["state"] == DONE]
        return {digest: line["request"] for line in lines for digest in line["digests"]}

    def add(self, request: dict[str, Any], state: str, **facts: Any) -> None:
        """Append a line about ``request``: its number, kind, size and digests, and ``facts``."""
        shown = {key: request[key] for key in ("request", "kind", "size", "digests")}
        line = {"state": state, "time": datetime.now(UTC).isoformat(timespec="seconds")} | shown | facts
        with self.path.open("r+b") as file:
            file.seek(len(self._whole()))
            file.truncate()
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _whole(self) -> bytes:
        content = self.path.read_bytes()
        return content[: content.rfind(b"\n") + 1]
