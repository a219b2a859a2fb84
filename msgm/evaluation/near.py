"""Near-duplicates of the items to forget that stay among the items to retain, of a comparison's report and cards."""

from typing import Any, TypedDict

import numpy as np

from msgm.data.duplicates import COMPARED, Duplicates, near_duplicates
from msgm.digests import short_digest
from msgm.evaluation.bench import Bench
from msgm.evaluation.metrics.base import Report
from msgm.folders import write_json
from msgm.reading import read_json

LISTED = 20
"""How many pairs a report lists, the nearest first."""
FILE = "near-duplicates.json"


class Near(TypedDict):
    """What was found.

    Attributes:
        method: how it was searched, in a sentence.
        found: near-duplicates among the items to retain.
        retained: the same number: all of them are retained.
        included: whether the request takes them along.
        pairs: the nearest pairs, each of an item to forget, the other one and their distance.
    """

    method: str
    found: int
    retained: int
    included: bool
    pairs: list[dict[str, Any]]


class Kept(TypedDict):
    """Contents of ``near-duplicates.json``."""

    key: str
    near: Near


def near(bench: Bench) -> Near | None:
    """Return the near-duplicates of the training items to forget; None where there are none to forget.

    They are searched once for a folder, as long as the data and the request stay the same. Copies that ``data.repeat``
    adds are compared once, with their item.

    Example:
        >>> found = near(subject.bench)
        >>> found["found"] == found["retained"], found["method"].split(" below")[0]
        (True, 'Euclidean distance of inputs')
    """
    train = bench.split.train
    if not len(train.forget):
        return None
    key = short_digest([bench.dataset.digest().encode(), train.forget.tobytes(), train.retain.tobytes()])
    where = None if bench.folder is None else bench.folder / FILE
    if where is not None and where.is_file() and (kept := read_json(where, Kept))["key"] == key:
        return kept["near"]
    found = _told(_searched(bench))
    if where is not None:
        write_json(where, {"key": key, "near": found})
    return found


def _searched(bench: Bench) -> Duplicates:
    split, distinct = bench.split, bench.dataset.distinct
    parts = {"retain": distinct(split.train.retain), "forget": distinct(split.train.forget)}
    fresh = np.concatenate([split.validation.whole, split.test.whole])
    return near_duplicates(bench.dataset, parts, fresh, bench.reality.bank.device, most=COMPARED)


def _told(found: Duplicates) -> Near:
    pairs = [{"forget": p.forget, "retain": p.other, "distance": p.distance} for p in found.pairs[:LISTED]]
    return Near(method=found.method, found=found.found, retained=found.found, included=False, pairs=pairs)


def asked(report: Report) -> Near | None:
    """Return what a report has of near-duplicates; None where nobody searched."""
    (request,) = report["requests"].values()
    found: Near | None = request.get("near_duplicates")
    return found


def without_pairs(found: Near | None) -> dict[str, Any] | None:
    """Return what was found but for the pairs, for cards."""
    return found and {key: value for key, value in found.items() if key != "pairs"}


def notes(report: Report) -> list[str]:
    """Return a report's note on near-duplicates, if they were searched, with the nearest pairs by position."""
    if (found := asked(report)) is None:
        return []
    text = (
        f"Near-duplicates of the items to forget among those to retain: {found['found']}, left in ({found['method']})."
    )
    pairs = ", ".join(f"{p['retain']} of {p['forget']} at {p['distance']:.3g}" for p in found["pairs"])
    return [f"{text} The nearest by position: {pairs}." if pairs else text]


def unsaid(report: Report) -> list[str]:
    """Return what a card cannot say of near-duplicates that stay."""
    if (found := asked(report)) is None or not found["retained"]:
        return []
    return [f"That near-duplicates are forgotten: {found['retained']} were found among the items to retain, and stay."]
