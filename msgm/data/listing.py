"""Lists the pictures of a folder, each once, and the files that are left out, with reasons.

Pictures are recognised by the endings of their names and are numbered by their sorted paths below the folder, which are
also their names. Left out are hidden names (``.ipynb_checkpoints``, ``._dog.png``) and ``__MACOSX`` at every level,
files with other endings, empty files, and what a symbolic link leads to a second time. A linked folder is walked like
any other, so a file that is met both directly and by a link keeps its direct path.
"""

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from msgm.errors import UserError
from msgm.folders import is_hidden

ENDINGS = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif"),
    *(".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Endings of pictures, in any case."""
SHOWN = 3

HIDDEN = "hidden"
EMPTY = "an empty file"
EMPTY_FOLDER = "an empty folder"
SEEN = "a link to what is read already"
NOWHERE = "a link to nothing"
NO_FILE = "neither a file nor a folder"
BROKEN = "broken"
BESIDE = "a picture beside the class folders"


@dataclass
class Listing:
    """The pictures and the omitted files below a folder.

    Attributes:
        root: the folder.
        kept: the pictures' paths below it, sorted, with forward slashes.
        left_out: reason to the paths that are left out; a folder stands for its whole content.
    """

    root: Path
    kept: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, path: str) -> None:
        """Note that ``path`` is no item, and why."""
        self.left_out.setdefault(reason, []).append(path)

    def classes(self) -> list[str]:
        """Return the sorted names of the first sub-folders that hold pictures."""
        return sorted({name.split("/")[0] for name in self.kept if "/" in name})

    def leave_strays_out(self) -> None:
        """Leave out the pictures that lie beside class folders, in none of them.

        Raises:
            UserError: there are more of these than pictures with a class, so the intended classes are unclear.
        """
        strays = [name for name in self.kept if "/" not in name]
        classed = len(self.kept) - len(strays)
        if not classed or not strays:
            return
        if len(strays) > classed:
            raise UserError(
                f"data.root: {self.root} holds {len(strays)} pictures, such as {strays[0]}, beside {classed} in "
                f"folders ({', '.join(self.classes()[:SHOWN])}); move them into folders of their own, or set "
                "data.classes to none to take all without classes."
            )
        self.kept = [name for name in self.kept if "/" in name]
        self.left_out[BESIDE] = strays

    def leave_broken_out(self, errors: dict[int, str]) -> None:
        """Leave out the pictures at the positions of ``errors``, which say why they cannot be read."""
        for i, error in errors.items():
            path = self.root / self.kept[i]
            reason = error.removeprefix(f"cannot read the image {path}: ").removeprefix(f"{path} ").rstrip(".")
            self.leave_out(BROKEN, f"{self.kept[i]} ({reason})")
        self.kept = [name for i, name in enumerate(self.kept) if i not in errors]


def list_pictures(root: Path) -> Listing:
    """List the pictures below ``root``.

    Raises:
        UserError: a folder cannot be read.
    """
    walk = _Walk(root)
    walk.folder("", os.path.realpath(root))
    while walk.links:  # after all that lies here itself; walking a linked folder may find further links
        walk.links.sort(reverse=True)
        path = walk.links.pop()
        walk.take(path, os.path.realpath(root / path))
    walk.listing.kept.sort(key=lambda path: path.split("/"))
    return walk.listing


class _Walk:
    """State of walking a folder; ``whole`` is a path with all links resolved."""

    def __init__(self, root: Path) -> None:
        self.listing = Listing(root)
        self.seen: set[str] = set()
        self.links: list[str] = []

    def folder(self, path: str, whole: str) -> None:
        """Visit the contents of a folder; links are visited later."""
        self.seen.add(whole)
        try:
            names = sorted(os.listdir(whole))
        except OSError as error:
            raise self._unreadable(path, error) from error
        if not names:
            self.listing.leave_out(EMPTY_FOLDER, path)
        for name in names:
            inner, place = f"{path}/{name}".lstrip("/"), f"{whole}/{name}"
            if is_hidden(name):
                self.listing.leave_out(HIDDEN, inner)
            elif os.path.islink(place):
                self.links.append(inner)
            else:
                self.take(inner, place)

    def take(self, path: str, whole: str) -> None:
        """Visit a file or a folder, unless it was visited before."""
        try:
            found = os.stat(whole)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise self._unreadable(path, error) from error
            self.listing.leave_out(NOWHERE, path)
            return
        is_folder = stat.S_ISDIR(found.st_mode)
        reason = None if is_folder else _reason(path, found)
        if reason is not None or whole in self.seen:
            self.listing.leave_out(reason or SEEN, path)
        elif is_folder:
            self.folder(path, whole)
        else:
            self.seen.add(whole)
            self.listing.kept.append(path)

    def _unreadable(self, path: str, error: OSError) -> UserError:
        return UserError(f"data.root: cannot read {self.listing.root / path}: {error.strerror}.")


def _reason(path: str, found: os.stat_result) -> str | None:
    """Return why a file is no picture; None where it is one."""
    ending = os.path.splitext(path)[1]
    if not stat.S_ISREG(found.st_mode):
        return NO_FILE
    if ending.lower() not in ENDINGS:
        return f"a file ending in {ending}" if ending else "a file without an ending"
    return None if found.st_size else EMPTY


def said(left_out: dict[str, list[str]]) -> list[str]:
    """Return a line for each reason: the number of files left out, and the first of them."""
    lines = []
    for reason, paths in left_out.items():
        shown = ", ".join(map(printable, paths[:SHOWN])) + (", ..." if len(paths) > SHOWN else "")
        lines.append(f"{len(paths)} left out, {reason}: {shown}")
    return lines


def printable(path: str) -> str:
    """Return a path as text that can be printed, whatever bytes its name holds."""
    text = path.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
