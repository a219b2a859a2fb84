"""Folders and files: atomic writes, and one writer at a time.

A file or a folder is written beside its place under a hidden name, and then renamed. The hidden name carries its owner:
the machine, its boot, the process and when that began. So the next process that opens the folder recognises leftovers
of a dead writer and removes them, as ``locked`` does. The lock is a file ``lock`` that is in the folder while a command
writes; the kernel frees it when its holder ends, however it ends.

Names that people give to rows, methods and requests become files too. ``place`` is the one way from a name to a path.

The file is long because names, writing and locking share the form of hidden names, which each of them must know.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import time
from typing import Any

from msgm import processes
from msgm.errors import UserError

LOCK = "lock"
CHANGING = re.compile(r"\..+\.lock")
"""Names of the locks of ``changing``."""
LONGEST = 180
"""Bytes of the longest name; endings and the marks of a hidden name come on top, and file systems take 255."""
FOREIGN_SECONDS = 24 * 3600
"""What a writer on another machine left is taken for dead when it has not changed for this long."""
WINDOWS = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in "123456789¹²³"}

_HIDDEN = re.compile(
    r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<boot>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}"
    r"\.(?P<kind>new|old)",
    re.DOTALL,
)
_FIRST_VERSION = re.compile(
    r"\.(?P<name>model|png|step-\d+)\.(?P<kind>new|old)"
    r"|\.(.+\.(jsonl?|yaml|md|html|png|np[yz]|safetensors)|key|lock)"
    # Eight drawn characters. Those that might be a word or a date of the user's are left alone.
    r"\.(?=[a-z_]*[0-9])(?=[0-9_]*[a-z])(?![a-z]+_?[0-9]+$)[a-z0-9_]{8}"
)
_held = threading.local()


class BusyError(UserError):
    """Another process holds the lock of a folder; it can be asked again later."""


# Names


def is_hidden(path: Path | str) -> bool:
    """Return whether a path, given from a folder that is shown, has a part that file managers do not show.

    Hidden are names that begin with a dot, such as what macOS leaves beside a file, and the folder ``__MACOSX``.
    """
    return any(part.startswith(".") or part == "__MACOSX" for part in Path(path).parts)


def check_name(name: Any, key: str = "name") -> str:
    """Return ``name`` if it can be one component of a path on every common file system.

    Args:
        name: a user's name of a row, a method, a request and the like.
        key: where it was read, for the error.

    Raises:
        UserError: it cannot.
    """
    fault = _fault(name) if isinstance(name, str) else "is no text"
    if fault:
        raise UserError(f"{key}: {name!r} {fault}; it becomes the name of a file, choose another.")
    return str(name)


def _fault(name: str) -> str | None:
    """Return the reason why ``name`` cannot be a file name, or None."""
    if not name:
        return "is empty"
    if "/" in name or "\\" in name:
        return "has a slash or a backslash"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return "has a control character, a line break or half a character"
    if name.startswith("."):
        return "begins with a dot"
    if name != name.strip() or name.endswith("."):
        return "begins with a space, or ends with a space or a dot"
    if name.partition(".")[0].rstrip().lower() in WINDOWS:
        return "is the name of a device on Windows"
    if len(name.encode()) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    return None


def check_names(names: Iterable[Any], key: str, reserved: Iterable[str] = ()) -> None:
    """Refuse names that cannot be files side by side.

    Args:
        names: of files that are written into one folder.
        key: where they were read, for the error.
        reserved: names that msgm itself uses in that folder.

    Raises:
        UserError: one is unsafe or reserved, or two are one file where letter case or the way that accents are
            encoded does not count.
    """
    seen: dict[str, str] = {_folded(name): name for name in reserved}
    own = set(seen)
    for name in names:
        folded = _folded(check_name(name, key))
        if folded in own:
            raise UserError(f"{key}: {name!r} is a name that msgm itself uses there; choose another.")
        if seen.get(folded) == name:
            raise UserError(f"{key}: {name!r} is there twice; it becomes the name of a file, rename one.")
        if folded in seen:
            raise UserError(
                f"{key}: {seen[folded]!r} and {name!r} are the same file on systems where letter case and the encoding "
                "of accents do not count; rename one."
            )
        seen[folded] = name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def place(folder: Path, *names: Any, ending: str = "", key: str = "name") -> Path:
    """Return the path of ``names`` below ``folder``, each one component of it.

    Args:
        folder: where to begin.
        names: names given by users; see ``check_name``.
        ending: what to add to the last, such as ``.json``.
        key: where they were read, for the error.

    Raises:
        UserError: a name is unsafe.
    """
    found = folder.joinpath(*(check_name(name, key) for name in names))
    return found.with_name(found.name + ending)


def inside(folder: Path, name: Any, key: str = "path") -> Path:
    """Return the path of ``name``, read from a received file, inside ``folder``.

    Args:
        folder: the received folder.
        name: a relative path.
        key: where it was read, for the error.

    Raises:
        UserError: it leads out of the folder, by ``..``, as an absolute path or by a link.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise UserError(f"{key}: expected a path inside {folder}, got {name!r}.")
    found = folder / name
    if not found.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{key}: {name!r} leads out of {folder}.")
    return found


# Writing


def write_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file whole or not at all: under a hidden name beside its place, then renamed.

    Of processes that work together the first one writes (``msgm.processes``).

    Args:
        path: the file; its folder is made where it is missing.
        content: what to write.
        mode: permissions, which the umask narrows as usual.

    Raises:
        OSError: the machine cannot; it names ``path``.
    """
    if not processes.writes():
        return
    temporary = _hidden(path, "new")
    with _naming(temporary, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write text as ``write_bytes`` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, tree: Any) -> None:
    """Write JSON as ``write_bytes`` does; NaN and infinity are refused."""
    write_text(path, json.dumps(tree, indent=2, allow_nan=False) + "\n")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write into, which takes the place of ``folder`` when the block ends without an error.

    Killed in between, the earlier folder is still there, or comes back with the next ``recover`` or ``sweep``.

    Raises:
        OSError: the machine cannot; it names ``folder`` or what lies in it.
    """
    if not processes.writes():
        with tempfile.TemporaryDirectory() as dropped:
            yield Path(dropped)
        return
    new, old = _hidden(folder, "new"), _hidden(folder, "old")
    with _naming(new, folder):
        try:
            new.mkdir(parents=True)
            yield new
            if folder.is_dir():
                os.replace(folder, old)
            os.replace(new, folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            if old.exists() and not folder.exists():
                os.replace(old, folder)
            raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _naming(temporary: Path, path: Path) -> Iterator[None]:
    """Context in which OS errors name the file to be written, not its hidden temporary file."""
    try:
        yield
    except OSError as error:
        named = str(error.filename or temporary)
        raise OSError(error.errno, error.strerror or str(error), named.replace(str(temporary), str(path))) from error


# Owners


@dataclass(frozen=True)
class _Stray:
    """A leftover of a writer: the final name, whether it is the new or the old version, and its owner if known."""

    name: str | None
    kind: str | None
    owner: tuple[str, str, str, str] | None

    def is_dead(self, path: Path) -> bool:
        """Return whether its writer has ended; leftovers of msgm's first version have no owner and count as dead."""
        if self.owner is None:
            return True
        machine, boot, pid, start = self.owner
        if machine != _machine()[0]:
            return time() - path.lstat().st_mtime > FOREIGN_SECONDS
        return boot != _machine()[1] or _began(int(pid)) != start


def _stray(name: str) -> _Stray | None:
    found = _HIDDEN.fullmatch(name)
    if found:
        owner = (found["machine"], found["boot"], found["pid"], found["start"])
        return _Stray(found["name"], found["kind"], owner)
    found = _FIRST_VERSION.fullmatch(name)
    return _Stray(found["name"], found["kind"], None) if found else None


def _hidden(path: Path, kind: str) -> Path:
    """Return a hidden name beside ``path`` that encodes its owner."""
    owner = "-".join((*_machine(), str(os.getpid()), _began(os.getpid()) or "0", secrets.token_hex(4)))
    return path.with_name(f".{path.name}.{owner}.{kind}")


@cache
def _machine() -> tuple[str, str]:
    """Return short hashes of this machine (with the space that its process numbers count in) and of its boot."""
    identity = [socket.gethostname(), _text("/etc/machine-id")]
    if os.path.lexists("/proc/self/ns/pid"):
        identity.append(os.readlink("/proc/self/ns/pid"))
    texts = ("\n".join(identity), _text("/proc/sys/kernel/random/boot_id"))
    return hashlib.sha256(texts[0].encode()).hexdigest()[:8], hashlib.sha256(texts[1].encode()).hexdigest()[:8]


def _text(path: str) -> str:
    return Path(path).read_text() if os.access(path, os.R_OK) else ""


def _began(pid: int) -> str | None:
    """Return when a process began, in ticks since the boot ("0" where the system does not say); None if it ended."""
    if not os.path.exists("/proc/self/stat"):
        return "0" if _is_running(pid) else None
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else numbers[18]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# Sweeping


def sweep(folder: Path) -> list[Path]:
    """Remove leftovers of dead writers anywhere in ``folder``; return what was removed or put back.

    Where a writer died between taking an old folder away and putting the new one in its place, the old one comes back.
    Files of running writers are not touched.
    """
    done = []
    for parent, folders, files in os.walk(folder):
        found = [(name, stray) for name in [*folders, *files] if (stray := _stray(name)) is not None]
        folders[:] = [name for name in folders if _stray(name) is None]
        for name, stray in sorted(found, key=lambda one: one[1].kind != "old"):
            path = Path(parent) / name
            if os.path.lexists(path) and stray.is_dead(path):
                _settle(path, stray)
                done.append(path)
        locks = (Path(parent) / name for name in files if CHANGING.fullmatch(name))
        done += [lock for lock in locks if _drop_lock(lock)]
    return done


def _drop_lock(lock: Path) -> bool:
    """Remove a lock of ``changing`` that nobody holds, as its holder died; return whether it was removed."""
    try:
        file = os.open(lock, os.O_RDWR)
    except OSError:  # its holder removed it just now, or it is another user's
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.unlink(missing_ok=True)  # before it is let go: who opened it meanwhile sees that it is gone
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def recover(folder: Path) -> None:
    """Bring ``folder`` back if a writer died while it was being replaced."""
    if folder.exists() or not folder.parent.is_dir():
        return
    for path in folder.parent.glob(".*.old"):
        stray = _stray(path.name)
        if stray is not None and stray.name == folder.name and stray.is_dead(path):
            _settle(path, stray)


def _settle(path: Path, stray: _Stray) -> None:
    """Put back an old version whose place is empty; remove anything else."""
    if stray.kind == "old" and stray.name and not path.with_name(stray.name).exists():
        os.replace(path, path.with_name(stray.name))
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


# Locking


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only writer of ``folder``, which is made where it is missing and swept of what dead writers left.

    May be nested. Of the processes that torchrun started the first holds the lock for all. A folder that is new and
    stays empty, since the block refused something, is removed again.

    Raises:
        UserError: another process holds the lock, or a file is in the folder's place.
        OSError: the machine cannot make the folder or its lock.
    """
    held: set[str] = _held.__dict__.setdefault("folders", set())
    name = str(folder.resolve())
    if name in held or not processes.is_first():
        yield
        return
    made = _make(folder)
    file = _lock(folder)
    held.add(name)
    try:
        _refuse_other_writers(folder, held)
        sweep(folder)
        yield
    finally:
        held.discard(name)
        (folder / LOCK).unlink(missing_ok=True)  # before it is let go: who opened it meanwhile sees that it is gone
        os.close(file)
        _drop_empty(made)


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Hold the lock for reading and replacing a file that processes of the folder share; waits for other holders."""
    if not processes.writes():
        yield
        return
    lock = path.with_name(f".{path.name}.lock")
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(file, fcntl.LOCK_EX)
        if _is_file_of(file, lock):
            break
        os.close(file)  # its last holder removed it just now
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(file)


@contextmanager
def borrowed(folder: Path) -> Iterator[None]:
    """Write below ``folder`` on behalf of the process that holds its lock, together with other workers."""
    names: set[str] = _held.__dict__.setdefault("borrowed", set())
    names.add(str(folder.resolve()))
    try:
        yield
    finally:
        names.discard(str(folder.resolve()))


def _make(folder: Path) -> list[Path]:
    """Make a folder and those above it; return the new ones, deepest first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}: {error.filename}.") from error
    return missing


def _lock(folder: Path) -> int:
    """Return the open lock file, held and with the holder's process id in it."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its last holder removed it just now
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 100).decode(errors="replace").strip() or "another one"
            os.close(file)
            raise BusyError(f"{folder} is being changed by process {holder}; try again when it is done.") from None
        if _is_file_of(file, folder / LOCK):
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
            return file
        os.close(file)  # its last holder removed it just now


def _refuse_other_writers(folder: Path, held: set[str]) -> None:
    """Refuse where another process writes a folder around this one, or one in it, such as a row of a comparison."""
    around = [parent / LOCK for parent in folder.resolve().parents]
    lent: set[str] = _held.__dict__.get("borrowed", set())
    for path in [*around, *folder.resolve().rglob(f"*/{LOCK}")]:
        mine = str(path.parent) in held or any(path.is_relative_to(name) for name in lent)
        if mine or not path.is_file():
            continue
        found = holder(path)
        if found:
            raise BusyError(f"{path.parent} is being changed by process {found}; try again when it is done.")


def holder(path: Path) -> str | None:
    """Return the holder of a lock file of msgm's; None if it is not held or is another program's."""
    try:
        with path.open("rb") as file:
            found = re.fullmatch(r"[0-9]+ on .+", file.read(300).decode(errors="replace"))
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return found[0] if found else None
    except OSError:  # gone meanwhile, or not ours to read
        return None
    return None


def _is_file_of(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _drop_empty(made: list[Path]) -> None:
    """Remove newly made folders that stayed empty, deepest first."""
    for path in made:
        try:
            path.rmdir()
        except OSError:  # something lies in it, or another command removed it first
            return
