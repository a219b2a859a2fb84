"""The journal by itself, and the model beside it: whether each knows what the other says was forgotten."""

import math
from typing import Any

import numpy as np

from msgm.errors import UserError
from msgm.recommender.auditing.served import Finding, Served, asked_for, blanked
from msgm.recommender.journal import DONE, PLANNED, REFUSED, Journal
from msgm.recommender.models.base import EXACTNESS
from msgm.recommender.pending import PENDING


def journal(served: Served) -> Finding:
    """Check that the chain holds, that nothing is left to do, and that what is done has its numbers."""
    faults = list(served.faults)
    count = 0
    if served.journal is not None:
        count = len(served.journal.numbers(PLANNED, DONE, REFUSED))
        faults += _left(served) + _missing(served) + _unnumbered(served.journal)
    lines = 0 if served.journal is None else len(served.journal.lines)
    fine = f"the chain of {lines} lines holds; nothing is left to do"
    return Finding.judged("journal", count, faults, fine if count else "no request was ever made")


def _left(served: Served) -> list[str]:
    """Return a fault for each request that is planned and neither done nor refused."""
    assert served.journal is not None
    settled = served.journal.numbers(DONE, REFUSED)
    left = (served.journal.numbers(PLANNED) | {request["request"] for request in served.pending}) - settled
    faults = [f"request {number} is planned and not done" for number in sorted(left)]
    if served.pending and not left:
        faults.append(f"{PENDING} is there, though all of its requests are done")
    return faults


def _missing(served: Served) -> list[str]:
    """Return why lines are missing at the journal's end, or in its numbers."""
    assert served.journal is not None
    book, waiting = served.journal, {request["request"] for request in served.pending}
    numbers = book.numbers(PLANNED, DONE, REFUSED)
    faults = [f"request {number} is missing" for number in sorted(set(range(1, max(numbers, default=0))) - numbers)]
    if book.path.stat().st_size and not book.path.read_bytes().endswith(b"\n"):
        faults.append("its last line is cut")
    if book.numbers(PLANNED) - book.numbers(DONE, REFUSED) - waiting:
        return faults  # said already; the journal's own check would say it in other words
    try:
        book.check(served.model.seal, served.model.applied, waiting)
    except UserError as error:
        faults.append(str(error).rstrip("."))
    return faults


def _unnumbered(book: Journal) -> list[str]:
    """Return a fault for each request that is done without its numbers, or was never planned."""
    planned = book.numbers(PLANNED)
    done = [line for line in book.lines if line["state"] == DONE]
    faults = [f"request {line['request']} is done without its numbers" for line in done if not _has_numbers(line)]
    return faults + [f"request {n} is done and was never planned" for n in sorted(book.numbers(DONE) - planned)]


def _has_numbers(line: dict[str, Any]) -> bool:
    seconds, touched = line.get("seconds"), line.get("touched")
    counted = isinstance(seconds, int | float) and math.isfinite(seconds) and seconds >= 0
    known = line.get("exactness") in (*EXACTNESS, "not recorded")
    return counted and isinstance(touched, int) and known and len(line["digests"]) == line["size"]


def model(served: Served) -> Finding:
    """Check that the model, and its ids, have forgotten what the journal says is done, and nothing else."""
    if served.journal is None:
        return Finding.not_tested("model", "the journal, which says what it must have forgotten, cannot be trusted")
    book, made = served.journal, served.model
    older = book.older(made.applied)
    faults = [older] if older else []
    sides = (("users", served.data.users, made.gone_users), ("items", served.data.items, made.gone_items))
    for kind, ids, gone in sides:
        differing = int((blanked(ids) != gone).sum())
        if differing:
            faults.append(f"{differing} {kind} are blanked in ids.json or forgotten by the model, and not both")
        if gone.sum() > len(asked_for(book, kind)):
            faults.append(f"it has forgotten {gone.sum()} {kind}, the journal names {len(asked_for(book, kind))}")
    held = int(np.diff(made.seen.indptr)[made.gone_users].sum() + made.gone_items[made.seen.indices].sum())
    if held:
        faults.append(f"it keeps {held} interactions of users or items that it has forgotten")
    cells = len(book.forgotten(served.data).cells)
    if cells:
        faults.append(f"it keeps {cells} interactions that the journal says are forgotten")
    fine = (
        f"it has forgotten what the journal says (users {made.gone_users.sum()}, items {made.gone_items.sum()}), and "
        "keeps no forgotten interaction"
    )
    return Finding.judged("model", len(book.numbers(DONE)), faults, fine)
