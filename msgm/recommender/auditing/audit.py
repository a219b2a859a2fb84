"""The audit of a served recommender, from its folder alone: what was asked, what is shown, and what cannot be said.

Checks are rows: the journal, the model beside it, a refit, ids in files, lists, leftover files, and refusals. One that
cannot run says why, and counts as neither passed nor failed. Nothing in the folder is changed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msgm.errors import UserError
from msgm.folders import LOCK, BusyError, holder
from msgm.recommender.auditing import books, leaks
from msgm.recommender.auditing.refit import refit
from msgm.recommender.auditing.refusals import refusals
from msgm.recommender.auditing.served import Finding, Served
from msgm.recommender.journal import DONE, PLANNED, REFUSED
from msgm.recommender.service import KINDS

REFIT_SECONDS = 600.0
UNSAID = (
    "copies and backups elsewhere, and the data themselves, were not looked for",
    "whoever has the folder's key can test an id that they know against the digests in the journal",
    "where forgetting is not exact, no row shows that nothing of the forgotten is left in the model",
)
"""What an audit cannot say."""


@dataclass(frozen=True)
class Audit:
    """A finished audit.

    Example:
        >>> Audit("nothing", [Finding("lists", "FAIL", 9, "an item is listed")]).failed
        ['lists']

    Attributes:
        asked: what the journal says was asked for, in words.
        findings: the rows.
    """

    asked: str
    findings: list[Finding]

    @property
    def failed(self) -> list[str]:
        """Names of the checks that failed."""
        return [row.check for row in self.findings if row.failed]

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as JSON values."""
        return {"asked": self.asked, "checks": [asdict(row) for row in self.findings], "cannot_be_said": [*UNSAID]}


def audit(
    folder: Path,
    users: int = 200,
    seed: int = 0,
    forgotten: Sequence[str] = (),
    places: Sequence[str] | None = None,
    refit_seconds: float = REFIT_SECONDS,
) -> Audit:
    """Audit a folder that ``msgm recommender fit`` made and ``forget`` changed.

    Example:
        >>> from msgm.recommender.config import load_config
        >>> from msgm.recommender.fitting import fit
        >>> from msgm.recommender.service import Service
        >>> data = "data={name: synthetic, users: 60, items: 40, interactions: 900, least: 5}"
        >>> shop = fit(load_config(None, [data, "models={ease: {}}"]), "ease", out / "shop")
        >>> answered = Service(shop).forget("users", ["user3"])
        >>> [row.check for row in audit(shop, users=20).findings if row.verdict != "PASS"]
        ['refusals']

    Args:
        folder: it is only read.
        users: how many users' lists and scores are sampled.
        seed: of all draws.
        forgotten: ids of users who were forgotten, whose refusals are compared with those of unknown users.
        places: where each was read, for errors to begin with.
        refit_seconds: the longest that fitting anew may take.

    Raises:
        UserError: no served folder, a damaged model, another command that writes there, or an id in ``forgotten`` that
            no answered request names.
    """
    at_work = holder(folder / LOCK)
    if at_work:
        raise BusyError(f"{folder} is being changed by process {at_work}; try again when it is done.")
    before = _state(folder)
    served = Served.of(folder)
    findings = [
        books.journal(served),
        books.model(served),
        refit(served, users, seed, refit_seconds),
        leaks.ids(served),
        leaks.lists(served, users, seed),
        leaks.files(served),
        refusals(served, forgotten, places or [""] * len(forgotten), seed),
    ]
    if _state(folder) != before:
        raise UserError(f"{folder} was changed while it was audited; try again when the other command is done.")
    return Audit(_asked(served), findings)


def told(made: Audit) -> list[str]:
    """Return an audit as lines for a terminal."""
    head, *rows = [
        ("check", "verdict", "n", "found"),
        *((r.check, r.verdict, str(r.n), r.found) for r in made.findings),
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(3)]
    table = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]) for row in (head, *rows)]
    return [f"asked: {made.asked}", "", *table, "", *(f"cannot be said: {line}" for line in UNSAID)]


def _state(folder: Path) -> list[tuple[str, int, int, int]]:
    """Return what changes whenever a file of the folder is written, made or removed."""
    found = [(path, path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(str(path), facts.st_ino, facts.st_size, facts.st_mtime_ns) for path, facts in found]


def _asked(served: Served) -> str:
    """Return what the journal says was asked for."""
    book = served.journal
    if book is None:
        return "the journal cannot be trusted, so nobody can tell"
    digests = {
        kind: {digest for line in book.lines if line["kind"] == kind for digest in line["digests"]} for kind in KINDS
    }
    named = ", ".join(f"{kind} {len(found)}" for kind, found in digests.items())
    planned, done, refused = (len(book.numbers(state)) for state in (PLANNED, DONE, REFUSED))
    return f"{planned} requests ({named}); {done} done, {refused} refused"
