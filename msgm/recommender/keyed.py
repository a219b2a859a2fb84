"""Replaces ids in the folder of a comparison by keyed digests.

A comparison keeps its settings and its records, and requests name users and items. Later readers of the folder should
not learn whose request it was, so each id is replaced by its digest under the folder's key.
"""

from pathlib import Path
from typing import Any, NotRequired, TypedDict

from msgm.digests import folder_key
from msgm.folders import write_json
from msgm.reading import read_json
from msgm.recommender.journal import id_digest

MARK = "keyed:"
IDS = ("users", "items", "interactions")


def keyed_requests(requests: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings of requests, by name, with digests in the place of ids."""
    key = folder_key(folder)
    return {name: _keyed(request, key) for name, request in requests.items()}


class Made(TypedDict):
    """The settings that a record was made with."""

    request: NotRequired[dict[str, Any]]


class Stored(TypedDict):
    """The fields of a record that are read here."""

    made: NotRequired[Made]


def key_records(folder: Path) -> None:
    """Replace the ids in records that msgm 0.1 wrote into a folder."""
    key = folder_key(folder)
    for path in (folder / "records").rglob("*.json"):
        record = read_json(path, Stored)
        made = record.get("made", {})
        keyed = made | {"request": _keyed(made["request"], key)} if "request" in made else made
        if keyed != made:
            write_json(path, record | {"made": keyed})


def _keyed(request: dict[str, Any], key: bytes) -> dict[str, Any]:
    return request | {kind: [_keyed_id(one, kind, key) for one in request.get(kind) or []] for kind in IDS}


def _keyed_id(one: Any, kind: str, key: bytes) -> str:
    return one if isinstance(one, str) and one.startswith(MARK) else MARK + id_digest(key, kind, one)
