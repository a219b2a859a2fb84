"""What every check of an audit reads, and the row that it makes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msgm.cards.claims import FAIL, NOT_TESTED, verdict_of
from msgm.errors import UserError
from msgm.recommender.data.base import IdMap, Interactions
from msgm.recommender.journal import DONE, PLANNED, Journal
from msgm.recommender.models.base import Recommender
from msgm.recommender.pending import FORGOTTEN, Pending, checked_pending, deletion_of
from msgm.recommender.requests import Deletion
from msgm.recommender.service import Service
from msgm.seeding import derive_seed

MOST_NAMED = 5
"""Faults that a row names; it counts the others."""


@dataclass(frozen=True)
class Finding:
    """A row of an audit.

    Attributes:
        check: name of the check.
        verdict: PASS, FAIL, INCONCLUSIVE or NOT TESTED.
        n: how many things were checked.
        found: what was found, in words.
        numbers: those in the words, by name.
    """

    check: str
    verdict: str
    n: int
    found: str
    numbers: dict[str, float] = field(default_factory=dict)

    @classmethod
    def judged(cls, check: str, n: int, faults: Sequence[str], fine: str) -> "Finding":
        """Return a row that fails with its faults, and passes with ``fine`` where there are none."""
        named = "; ".join(faults[:MOST_NAMED])
        more = f"; and {len(faults) - MOST_NAMED} more" if len(faults) > MOST_NAMED else ""
        return cls(check, verdict_of(not faults), n, f"{named}{more}" if faults else fine)

    @classmethod
    def not_tested(cls, check: str, reason: str) -> "Finding":
        """Return the row of a check that cannot run."""
        return cls(check, NOT_TESTED, 0, reason)

    @property
    def failed(self) -> bool:
        return self.verdict == FAIL


class Opened(Service):
    """A served folder that is opened to be examined."""

    def load(self) -> tuple[Interactions, Recommender]:
        """Return the cells that the model keeps, with their ids, and the model.

        Raises:
            UserError: a file is damaged, or the ids are not those of the model.
        """
        return self._load()


@dataclass(frozen=True, eq=False)
class Served:
    """A served folder as it was read.

    Attributes:
        service: the folder's.
        data: its ids, with ``FORGOTTEN`` stand-ins for those that are blanked, and the cells that the model keeps.
        model: its model.
        journal: its journal; None where that cannot be trusted.
        pending: requests that are not done yet.
        faults: why the journal, or what is pending, cannot be trusted.
    """

    service: Opened
    data: Interactions
    model: Recommender
    journal: Journal | None
    pending: list[Pending]
    faults: list[str]

    @classmethod
    def of(cls, folder: Path) -> "Served":
        """Read a folder.

        Raises:
            UserError: it is no served folder, or its model or ids are damaged.
        """
        service = Opened(folder)
        data, model = service.load()
        journal, pending, faults = None, list[Pending](), list[str]()
        try:
            journal = Journal(folder)
        except UserError as error:
            faults.append(str(error).rstrip("."))
        try:
            pending = checked_pending(folder, service.key, data, model.applied)
        except UserError as error:
            faults.append(str(error).rstrip("."))
        return cls(service, data, model, journal, pending, faults)

    @property
    def folder(self) -> Path:
        return self.service.folder

    @property
    def awaited(self) -> Deletion:
        """What is pending, of which lists show nothing already."""
        return deletion_of(self.pending)

    def sample(self, users: int, seed: int) -> NDArray[np.int64]:
        """Return (at most ``users``,) rows, drawn at random, of users who are served."""
        rest = self.awaited.without(self.model.seen)
        served = np.flatnonzero((np.diff(rest.indptr) > 0) & ~blanked(self.data.users))
        draws = np.random.default_rng(derive_seed(seed, "audit", "users"))
        return np.sort(draws.choice(served, min(users, len(served)), replace=False))


def blanked(ids: IdMap) -> NDArray[np.bool_]:
    """Return which ids are blanked, since they are forgotten."""
    return np.array([name.startswith(FORGOTTEN) for name in ids.ids])


def asked_for(journal: Journal, kind: str) -> set[str]:
    """Return the digests of a kind that the journal has planned or done."""
    lines = [line for line in journal.lines if line["kind"] == kind and line["state"] in (PLANNED, DONE)]
    return {digest for line in lines for digest in line["digests"]}
