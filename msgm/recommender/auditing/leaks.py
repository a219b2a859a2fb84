"""What a served folder still shows of what it has forgotten: ids in files, lists, and files that are no part of it."""

import re
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from msgm.cards.claims import INCONCLUSIVE
from msgm.digests import KEY
from msgm.errors import UserError
from msgm.folders import LOCK
from msgm.recommender.auditing.served import Finding, Served, blanked
from msgm.recommender.journal import NAME as JOURNAL
from msgm.recommender.leftovers import IDS, search
from msgm.recommender.metrics.ranking import blocks
from msgm.recommender.models.base import FILE
from msgm.recommender.pending import PENDING
from msgm.traces import FILE as TRACES

PARTS = (FILE, IDS, JOURNAL, KEY, TRACES, "manifest.json")
"""Files of a served folder at rest."""
DIGESTS_IN = (JOURNAL, PENDING)
"""Files that hold keyed digests of forgotten ids, as is documented."""
DIGEST = re.compile(rb"[0-9a-f]{32}")


def ids(served: Served) -> Finding:
    """Check that no file of the folder holds a forgotten id, or its digest where no digest belongs."""
    if served.journal is None:
        return Finding.not_tested("ids", "the journal, which says whose ids are forgotten, cannot be trusted")
    done = set(served.journal.done())
    files = [path for path in _files(served.folder) if path.name != KEY]
    named, closed = search(served.folder, served.service.key, done)
    faults = [f"{_short(path, served)} names a user or an item that is forgotten" for path in named]
    digests = {digest.encode() for digest in done}
    faults += [
        f"{_short(path, served)} holds the digest of an id that is forgotten"
        for path in files
        if path.relative_to(served.folder).as_posix() not in DIGESTS_IN and digests & _runs(path)
    ]
    if closed and not faults:
        names = ", ".join(_short(path, served) for path in closed)
        return Finding("ids", INCONCLUSIVE, len(files), f"{names} cannot be searched, being no text and no table")
    fine = f"no file names what is forgotten; the {len(done)} digests stand in {JOURNAL} alone"
    return Finding.judged("ids", len(files), faults, fine)


def _runs(path: Path) -> set[bytes]:
    """Return all that may be a digest in a file."""
    return set(DIGEST.findall(path.read_bytes()))


def lists(served: Served, users: int, seed: int) -> Finding:
    """Check that lists, down to their ends, hold nothing forgotten, and that forgotten users get none."""
    made, awaited = served.model, served.awaited
    made.gone_users[awaited.users], made.gone_items[awaited.items] = True, True  # as the service does
    banned = blanked(served.data.items)
    banned[awaited.items] = True
    sample = served.sample(users, seed)
    found = [made.listed(block, len(banned)) for block in blocks(sample)]
    shown = sum(int((banned[items] & (items >= 0)).any(axis=1).sum()) for items in found)
    faults = [f"the lists of {shown} of {len(sample)} users hold an item that is forgotten"] if shown else []
    gone = blanked(served.data.users)
    gone[awaited.users] = True
    answered = sum(_is_answered(served, int(user)) for user in np.flatnonzero(gone))
    if answered:
        faults.append(f"{answered} of {gone.sum()} forgotten users get a list")
    fine = (
        f"forgotten items ({banned.sum()}) stand at no rank of {len(sample)} users' lists, and forgotten users "
        f"({gone.sum()}) get none"
    )
    return Finding.judged("lists", len(sample), faults, fine)


def _is_answered(served: Served, user: int) -> bool:
    try:
        served.model.listed(np.array([user]), 1)
    except UserError:
        return False
    return True


def files(served: Served) -> Finding:
    """Check that the folder holds what belongs to it, and nothing that a killed command left."""
    folder = served.folder
    belonging = {*PARTS, *([PENDING] if served.pending else [])}
    faults = [f"{name} is missing" for name in PARTS if not (folder / name).is_file()]
    faults += [told for path in _files(folder) if (told := _strange(path, folder, belonging))]
    mode = (folder / KEY).stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        faults.append(f"{KEY} can be read by others than its owner")
    return Finding.judged("files", len(_files(folder)), faults, "the folder's own files, and no others")


def _strange(path: Path, folder: Path, belonging: set[str]) -> str:
    """Return what is wrong with a file's being there; empty where nothing is."""
    name = path.relative_to(folder).as_posix()
    if name in belonging:
        return ""
    if path.name.startswith(".") and path.name.endswith((".new", ".old")):
        return f"{name} is a temporary file of a killed command, which the next one that writes removes"
    if name == LOCK:
        return f"{name} was left by a killed command, which the next one that writes removes"
    return f"{name} is no part of the folder"


def _files(folder: Path) -> list[Path]:
    return sorted(_walked(folder))


def _walked(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.rglob("*") if not path.is_dir())


def _short(path: Path, served: Served) -> str:
    return path.relative_to(served.folder).as_posix()
