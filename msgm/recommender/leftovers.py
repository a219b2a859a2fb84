"""Searches a served folder for ids that it was asked to forget, reading each file by its format.

The ids themselves were erased, so every string in a file or file name is hashed with the folder's key and looked up
among the journal's digests. Of msgm's own files only fields that can hold the user's text are searched, because an id
may equal a state of the journal, ``done``, or a request's number, ``1``. ``manifest.json`` is left out: it is written
from the config, before any request.

In files of others an id is found where it is a whole line, cell or string, and where it stands as a word in running
text. Words without a letter are left out of running text: an id that is a number would be found wherever anything is
counted.
"""

import csv
import gzip
import json
import re
import string
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from msgm.digests import KEY
from msgm.errors import RunError, UserError
from msgm.folders import LOCK
from msgm.reading import parse_json, parse_yaml, read_bytes, read_header, read_json
from msgm.recommender.journal import NAME as JOURNAL
from msgm.recommender.journal import id_digest
from msgm.recommender.models.base import FILE
from msgm.recommender.pending import PENDING
from msgm.tabular import read_table
from msgm.traces import FILE as TRACES

IDS = "ids.json"
UNREAD = (KEY, LOCK, "manifest.json")
LETTER = re.compile(r"[^\W\d_]")
SEPARATORS = re.compile(r"[,;\t\r\n\"'|]+|::|: ")
TABLES = (".parquet", ".pq", ".npz", ".npy")
PARSERS = {".json": parse_json, ".jsonl": parse_json, ".yaml": parse_yaml, ".yml": parse_yaml}


def refuse_leftovers(folder: Path, key: bytes, done: set[str]) -> list[Path]:
    """Look for forgotten ids in all files of a folder.

    Args:
        folder: the served folder, and all folders in it.
        key: the folder's own.
        done: digests of the ids of answered requests.

    Returns:
        The files whose content cannot be searched, such as pictures.

    Raises:
        RunError: a file holds one, or its name does.
    """
    found, closed = search(folder, key, done)
    if found:
        names = ", ".join(str(path) for path in found)
        raise RunError(
            f"the requests are answered, but {names} still names users or items that were forgotten; delete what is no "
            "part of the served model, then check again with --resume."
        )
    return closed


def search(folder: Path, key: bytes, done: set[str]) -> tuple[list[Path], list[Path]]:
    """Return the files that name what was forgotten, and those that cannot be searched; as ``refuse_leftovers``."""
    found, closed = [], []
    # A user and an item may have one id: what is still served is no leftover where it can be told apart.
    served = _served(folder)
    held = {one for ids in served.values() for one in ids}
    marks = "".join({mark for one in held for mark in one if not mark.isalnum() and not mark.isspace()})
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name in UNREAD:
            continue
        try:
            texts = _with_words(_of_others(path, name), marks) if name not in OWN else set(OWN[name](path)) - held
        except _NoTexts:
            texts = _with_words(_names(name), marks)
            closed.append(path)
        if any(_is_forgotten(text, key, done) for text in texts):
            found.append(path)
    if any(id_digest(key, kind, one) in done for kind, ids in served.items() for one in ids):
        found.append(folder / IDS)
    return found, closed


def _is_forgotten(text: str, key: bytes, done: set[str]) -> bool:
    return any(id_digest(key, kind, text) in done for kind in ("users", "items"))


# msgm's own files


def _served(folder: Path) -> dict[str, list[str]]:
    """Return the ids that are not forgotten, by their kind."""
    return {kind: [one for one in ids if one is not None] for kind, ids in read_json(folder / IDS).items()}


def _reasons(path: Path) -> Iterator[str]:
    content = read_bytes(path)
    for line in map(json.loads, content[: content.rfind(b"\n") + 1].splitlines()):
        yield from re.split(r"[\s'\",;:.]+", str(line.get("reason", "")))


def _head(path: Path) -> Iterator[str]:
    """Yield the texts at the head of the model file but for its settings, which were there before any request."""
    for text in read_header(path).values():
        facts = json.loads(text)
        yield from _strings({name: facts[name] for name in facts if name not in ("settings", "plugins")})


def _registered(path: Path) -> Iterator[str]:
    for name in read_json(path)["written"]:
        yield from _names(name)


OWN: dict[str, Callable[[Path], Iterator[str]]] = {
    FILE: _head,
    IDS: lambda path: iter(()),  # looked into by kind
    JOURNAL: _reasons,
    PENDING: lambda path: iter(()),  # numbers and digests alone, which are checked when it is read
    TRACES: _registered,
}


# Files of others


class _NoTexts(Exception):
    """A file whose content cannot be searched."""


def _of_others(path: Path, name: str) -> Iterator[str]:
    """Yield all strings in a file that msgm did not write, and in its name, that may be an id."""
    yield from _names(name)
    content, suffix = read_bytes(path), path.suffix.lower()
    if suffix == ".gz":
        content, suffix = _unpacked(content), Path(path.stem).suffix.lower()
    if suffix in TABLES:
        yield from _cells(path)
    else:
        yield from _words(_decoded(content), suffix)


def _with_words(texts: Iterable[str], marks: str) -> set[str]:
    """Return texts, and the words in them that have a letter.

    Args:
        texts: lines, cells and strings.
        marks: characters other than letters and digits that ids have, which do not end a word.
    """
    found = set(texts)
    ends = re.compile(rf"[^\w{re.escape(marks)}]+" if "_" in marks else rf"(?:[^\w{re.escape(marks)}]|_)+")
    words = set[str]()
    for text in found:
        if LETTER.search(text):
            parts = ends.split(text)
            words.update(parts, (part.strip(marks) for part in parts) if marks else ())
            words.update(part.strip(string.punctuation) for part in text.split())
    return found | {word for word in words if LETTER.search(word)}


def _names(name: str) -> Iterator[str]:
    for part in name.split("/"):
        yield from (part, part.split(".")[0])


def _unpacked(content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise _NoTexts from error


def _cells(path: Path) -> Iterator[str]:
    try:
        table = read_table(path)
        for name in table.names:
            yield from (name, *(text.strip() for text in table[name].texts()))
    except UserError as error:
        raise _NoTexts from error


def _decoded(content: bytes) -> str:
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = content.decode("utf-16" if utf16 else "utf-8-sig", errors="replace")
    if "\0" in text:
        raise _NoTexts
    return text


def _words(text: str, suffix: str) -> Iterator[str]:
    """Yield the texts of a file, by its format's reader where it can be read so, and between separators."""
    yield from (word.strip() for word in SEPARATORS.split(text))
    yield from (cell.strip() for row in _rows(text, suffix) for cell in row)
    parse = PARSERS.get(suffix)
    for line in text.splitlines() if suffix == ".jsonl" else [text]:
        try:
            yield from _strings(parse(line, "a file")) if parse else ()
        except UserError:  # damaged: the words between separators are all that can be found
            continue


def _rows(text: str, suffix: str) -> Iterator[list[str]]:
    delimiter = {".csv": ",", ".tsv": "\t"}.get(suffix)
    try:
        yield from csv.reader(text.splitlines(), delimiter=delimiter) if delimiter else ()
    except csv.Error:  # a cell of more than 128 KiB
        return


def _strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        yield from map(str, tree)
    if isinstance(tree, dict | list):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _strings(part)
    elif isinstance(tree, str | int) and not isinstance(tree, bool):
        yield str(tree)


def not_searched(path: Path) -> str:
    """Return a sentence on a file that cannot be searched for ids."""
    return f"{path} was not searched for ids, since it is no text and no table"
