"""History of a model on rows and cards: the requests that it answered, and whether earlier ones still hold.

A row's ``history`` is a JSON tree that the function ``history`` makes: ``requests``, the model's chain in order, each
with ``text``, ``goal``, ``target``, ``by``, ``date`` and ``items``; ``earlier``, one tree for each request other than
the present one, with the same keys and the results of its present test (``Earlier``); ``unknown``, why requests may be
missing; ``anew``, the requests that were dropped deliberately.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from msgm.cards.claims import FAIL, INCONCLUSIVE, NOT_TESTED, PASS, Check
from msgm.chain import Chain, Entry

History = dict[str, Any]
HELD = "earlier requests still hold"


@dataclass(frozen=True)
class Earlier:
    """Test of one earlier request on the present model.

    Attributes:
        request: the request.
        asked: whether the request was made to this model or one of its ancestors.
        numbers: measurements on its items, by name, as text.
        verdict: PASS, FAIL, INCONCLUSIVE or NOT TESTED.
        evidence: the numbers that decide, or why there are none.
    """

    request: Entry
    asked: bool
    numbers: Mapping[str, str]
    verdict: str
    evidence: str

    def tree(self) -> dict[str, Any]:
        """Return a JSON tree."""
        found = {"asked": self.asked, "verdict": self.verdict, "evidence": self.evidence}
        return self.request.summary() | {"numbers": dict(self.numbers)} | found


def history(chain: Chain | None, earlier: Sequence[Earlier] = ()) -> History:
    """Return the ``history`` entry of a row.

    Args:
        chain: the model's; None where its folder has none.
        earlier: tests of the requests other than the present one.
    """
    found = (chain or Chain(unknown="what the model was asked before is not known")).summary()
    return found | {"earlier": [one.tree() for one in earlier]}


def history_lines(earlier: Sequence[Earlier]) -> list[str]:
    """Return a line a request, for the terminal."""
    return [f"earlier request, {one.request.text}: {one.verdict}; {one.evidence}" for one in earlier]


def of_row(row: Mapping[str, Any]) -> History:
    """Return a row's history; rows of the first version have none."""
    return row.get("history") or {"requests": [], "earlier": [], "unknown": None, "anew": []}


def card_history(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a card that shows a row's history: its requests, one table line each, and notes."""
    found = of_row(row)
    lines = [_line(number, request, found["earlier"]) for number, request in enumerate(found["requests"], 1)]
    return {"lines": lines, "notes": notes(row)}


def _line(number: int, request: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    keys = ("text", "by", "date", "items")
    tested = next((one for one in earlier if all(one[key] == request[key] for key in keys)), None)
    shown = {key: request[key] for key in keys}
    if tested is None:
        return {"number": number, **shown, "verdict": "this card's request", "evidence": "", "numbers": {}}
    return {"number": number, **shown, **{key: tested[key] for key in ("verdict", "evidence", "numbers")}}


def notes(row: Mapping[str, Any]) -> list[str]:
    """Return sentences on gaps in a row's history."""
    found = of_row(row)
    lines = [f"Requests before these are not known: {found['unknown']}."] if found["unknown"] else []
    if found["anew"]:
        left = "; ".join(found["anew"])
        lines.append(f"The history was started anew on purpose; left behind, and data to retain again: {left}.")
    return lines


def held_checks(row: Mapping[str, Any]) -> list[Check]:
    """Return the condition that earlier requests to a row's model still hold, if there were any."""
    asked = [one for one in of_row(row)["earlier"] if one["asked"]]
    if not asked:
        return []
    failed = [one for one in asked if one["verdict"] == FAIL]
    open_ones = [one for one in asked if one["verdict"] != PASS]
    told = failed or open_ones or asked
    evidence = "; ".join(f"{one['text']}: {one['evidence']}" for one in told)
    return [Check(HELD, False if failed else None if open_ones else True, evidence)]


def verdict_at_most(low: float, high: float, limit: float) -> str:
    """Return PASS where a whole interval lies at a limit or below, FAIL where it lies above, else INCONCLUSIVE."""
    if high <= limit:
        return PASS
    return FAIL if low > limit else INCONCLUSIVE


def untested(request: Entry, asked: bool, reason: str) -> Earlier:
    """Return an earlier request that was not tested, with the reason."""
    return Earlier(request, asked, {}, NOT_TESTED, reason)


class RequestTree(TypedDict):
    """A request in a row's history."""

    text: str
    goal: str
    target: str
    by: str
    date: str | None
    items: int


class EarlierTree(RequestTree):
    """An earlier request in a row's history."""

    numbers: dict[str, str]
    asked: bool
    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE", "NOT TESTED"]
    evidence: str


class HistoryTree(TypedDict):
    """A row's history."""

    requests: list[RequestTree]
    unknown: str | None
    anew: list[str]
    earlier: list[EarlierTree]
