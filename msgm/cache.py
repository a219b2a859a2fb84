"""The cache of retrained models, which comparisons share: ``~/.cache/msgm``, or the folder that MSGM_CACHE names.

A retrained model is determined by the items it was trained on, its settings, its seed and the versions of the code. An
entry's name is a hash of all of these, so that a model made differently never matches. An entry is a folder:

    retrained/NAME/entry.json   what the model is, which items it saw, what it cost, and the SHA-256 of every file
    retrained/NAME/files/       what training left in the run folder, of which a run goes on as if it had trained

Processes may share the cache. An entry is there whole or not at all; one that is damaged counts as absent, is named in
a line, and is replaced when the model has been trained again. The folder is open to its owner alone.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from msgm.chain import positions_of, ranges
from msgm.digests import file_digest
from msgm.errors import UserError
from msgm.folders import inside, sweep, whole_folder, write_bytes
from msgm.reading import read_json
from msgm.shapes import Positive, Seconds, check

FORMAT = 1
VARIABLE = "MSGM_CACHE"
DEFAULT = "~/.cache/msgm"


class Facts(TypedDict):
    """The keys that are read from the facts of a training; others are passed on."""

    seconds: Seconds


class Stored(TypedDict):
    """``entry.json``."""

    what: str
    request: str
    made: str
    data_digest: str
    items: Positive
    seen: str
    facts: dict[str, Any]
    files: dict[str, str]


@dataclass(frozen=True, eq=False)
class Model:
    """Description of a model in the cache.

    Attributes:
        what: the model in a few words.
        request: the request whose items it was trained without, in words.
        data_digest: of the data set.
        items: how many items that has.
        seen: (n,) sorted positions of the items that the model was trained on.
        facts: the training facts that its run recorded, for runs that reuse it.
    """

    what: str
    request: str
    data_digest: str
    items: int
    seen: NDArray[np.int64]
    facts: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Cached:
    """A model in the cache.

    Attributes:
        folder: where it lies.
        made: when it was trained, in UTC, as ISO 8601.
        model: its description.
        files: SHA-256 by path below ``files/``.
    """

    folder: Path
    made: str
    model: Model
    files: dict[str, str]

    def megabytes(self) -> float:
        """Return its size in MiB."""
        return round(sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()) / 2**20, 3)

    def saw(self, positions: NDArray[np.int64]) -> bool:
        """Return whether the model was trained on any of these items."""
        return bool(np.isin(positions, self.model.seen).any())


def name_of(parts: dict[str, Any]) -> str:
    """Return the name of the entry of a model that is made by ``parts``, a JSON tree."""
    text = json.dumps([FORMAT, parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Cache:
    """A folder of retrained models.

    Attributes:
        folder: where it lies; it need not be there yet.
    """

    folder: Path

    @classmethod
    def of_user(cls) -> "Cache":
        """Return the cache that MSGM_CACHE names, else the one in the home folder."""
        return cls(Path(os.environ.get(VARIABLE) or DEFAULT).expanduser())

    def entries(self) -> list[Cached]:
        """Return the entries in the order in which they were made; a line names one that cannot be read."""
        found = []
        for path in sorted(self._place.glob("*/entry.json")):
            try:
                found.append(_read(path.parent))
            except UserError as error:
                print(f"note: the cache is damaged: {error}", flush=True)
        return sorted(found, key=lambda entry: entry.made)

    def take(self, name: str, run: Path, parts: Iterable[str]) -> Cached | None:
        """Copy the entry ``name`` of the cache into a run folder.

        Args:
            name: of the entry.
            run: the run folder.
            parts: files and folders of a run, each of which comes whole or not at all, in this order. Only the last
                lets the run go on without training.

        Returns:
            The entry; None where it is absent, damaged, or being removed by somebody else.
        """
        folder = self._place / name
        if not folder.exists():
            return None
        try:
            entry = _read_whole(folder)
            _copy(folder / "files", run, parts)
        except UserError as error:
            print(f"note: the cache is damaged, and the model is trained again: {error}", flush=True)
            return None
        except FileNotFoundError:
            return None
        return entry

    def keep(self, name: str, model: Model, run: Path, parts: Iterable[str]) -> None:
        """Copy the results of training from a run folder into the cache, unless the entry exists.

        If the cache cannot be written, this is printed and is not an error.
        """
        entry = self._place / name
        try:
            with self._alone():
                with suppress(UserError):
                    _read_whole(entry)
                    return
                with whole_folder(entry) as new:
                    _copy(run, new / "files", parts)
                    (new / "entry.json").write_text(json.dumps(_stored(model, new / "files"), indent=2))
        except OSError as error:
            print(
                f"note: the retrained model is not kept in the cache: {error.filename}: {error.strerror}.", flush=True
            )

    def remove(self, names: Iterable[str]) -> list[Path]:
        """Remove entries, damaged ones too.

        Returns:
            Where they were.

        Raises:
            UserError: there is none of a name; nothing is removed then.
        """
        with self._alone():
            known = {path.name: path for path in self._place.glob("*") if path.is_dir()}
            for name in names:
                if name not in known:
                    raise UserError(f"{self._place} has no entry {name!r}; msgm cache lists what it has.")
            found = [known[name] for name in names]
            for path in found:
                shutil.rmtree(path)
        return found

    def clear(self) -> list[Path]:
        """Remove all entries and return where they were."""
        return self.remove([path.name for path in sorted(self._place.glob("*")) if path.is_dir()])

    @property
    def _place(self) -> Path:
        return self.folder / "retrained"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the cache's write lock: wait for other writers, then remove leftovers of dead ones."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            sweep(self._place)
            yield
        finally:
            os.close(file)


def _read(folder: Path) -> Cached:
    """Return the entry in a folder.

    Raises:
        UserError: it is not there, or damaged.
    """
    path = folder / "entry.json"
    tree: Stored = read_json(path, Stored)
    check(tree["facts"], Facts, f"{path}: facts")
    try:
        seen = positions_of(tree["seen"], tree["items"])
    except ValueError as error:
        raise UserError(f"{path} is damaged: seen: {error}.") from error
    model = Model(tree["what"], tree["request"], tree["data_digest"], tree["items"], seen, tree["facts"])
    return Cached(folder, tree["made"], model, tree["files"])


def _read_whole(folder: Path) -> Cached:
    """Return the entry in a folder as ``_read`` does; refuse one whose files are not as they were written."""
    entry = _read(folder)
    for name, digest in entry.files.items():
        path = inside(folder / "files", name, f"{folder / 'entry.json'}: files")
        if not path.is_file() or file_digest(path) != digest:
            raise UserError(f"{path} is {'not as it was written' if path.is_file() else 'missing'}.")
    return entry


def _copy(source: Path, target: Path, parts: Iterable[str]) -> None:
    """Copy those of the files and folders ``parts`` that are there, each whole or not at all."""
    for name in parts:
        if (source / name).is_dir():
            with whole_folder(target / name) as new:
                shutil.copytree(source / name, new, dirs_exist_ok=True)
        elif (source / name).exists():
            write_bytes(target / name, (source / name).read_bytes())


def _stored(model: Model, files: Path) -> Stored:
    return {
        "what": model.what,
        "request": model.request,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "data_digest": model.data_digest,
        "items": model.items,
        "seen": ranges(model.seen),
        "facts": model.facts,
        "files": {path.relative_to(files).as_posix(): file_digest(path) for path in files.rglob("*") if path.is_file()},
    }
