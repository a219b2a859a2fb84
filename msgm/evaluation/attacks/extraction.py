"""Whether samples copy items to forget: extraction (Carlini et al., arXiv 2301.13188), by the items' times in the data.

A sample copies an item to forget where that is the nearest of all training items, and lies nearer than 99% of held-out
items lie to theirs: the copy rate of ``reality``, of items to forget alone. Copies are the plainest leak of single
items, and items that stand in the data many times are the ones that models copy (``data.repeat``).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.evaluation.attacks.base import Attack, cell
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.evaluation.metrics.unlearning_ratio import percent, percent_interval
from msgm.evaluation.rates import rate
from msgm.splits import Split


def _by_times(found: dict[str, Any]) -> str:
    return " / ".join(f"{times}x: {percent(part['copies']['value'])}" for times, part in found["by_times"].items())


@METRICS.register("extraction")
@dataclass(frozen=True)
class Extraction(Attack):
    """Share of samples that copy items to forget, and how many of these are copied, by the items' times in the data.

    Example:
        >>> found = Extraction().measure(subject)["extraction"]
        >>> found["copies"]["n"], found["items"] == found["by_times"]["1"]["items"]
        (20, True)
        >>> 0 <= found["copied"] <= found["items"]
        True
    """

    key = "extraction"
    columns = [  # noqa: RUF012
        Column("copies of forget items % [95% CI]", "lower", cell(key, lambda f: percent_interval(f["copies"]))),
        Column("by times in the data", "lower", cell(key, _by_times)),
        Column("forget items copied", "lower", cell(key, lambda f: f"{f['copied']} of {f['items']}")),
    ]

    def obstacle(self, split: Split, run: Any) -> str | None:
        return None if len(split.train.forget) else "nothing was asked to be forgotten"

    def attack(self, subject: Subject) -> dict[str, Any]:
        bench, n = subject.bench, len(subject.items)
        places = copied(subject)
        forget, times = times_seen(bench)
        parts = {}
        for count in np.unique(times).tolist():
            own = forget[times == count]
            parts[str(count)] = _counted(places, own, n) | {
                "share_of_data": len(own) * count / len(bench.split.train.all)
            }
        return _counted(places, forget, n) | {"by_times": parts}

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        several = found["by_times"] if len(found["by_times"]) > 1 else {}
        return {"copies of forget items %": 100 * found["copies"]["value"]} | {
            f"copies % of items held {times} times": 100 * part["copies"]["value"] for times, part in several.items()
        }

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        return dict.fromkeys(cls.followed(found), 100 / found["copies"]["n"])

    def protocol(self, bench: Bench) -> dict[str, str]:
        forget, times = times_seen(bench)
        seen = ", ".join(f"{(times == count).sum()} items {count} times" for count in np.unique(times).tolist())
        return {
            "extraction": "share of samples whose nearest training item is one to forget, and nearer in pixels than "
            f"99% of validation items are to theirs; an item is copied where a sample copies it; {len(forget)} "
            f"items to forget, which the training part holds: {seen}"
        }


def copied(subject: Subject) -> NDArray[np.int64]:
    """Return the position of the training item that each copying sample copies; a copy stands for its item."""
    bench, seen = subject.bench, subject.finite
    distances, places = bench.reality.nearest(subject.items[seen])
    found = bench.split.train.whole[places[bench.reality.copies(distances)].numpy()]
    return found if bench.dataset.origin is None else bench.dataset.origin[found]


def times_seen(bench: Bench) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the training items to forget, each once, and how many times each of them stands in the training part."""
    forget, origin = bench.split.train.forget, bench.dataset.origin
    items, times = np.unique(forget if origin is None else origin[forget], return_counts=True)
    return items, times


def _counted(places: NDArray[np.int64], items: NDArray[np.int64], n: int) -> dict[str, Any]:
    """Return the share of ``n`` samples that copy ``items``, and how many of these are copied."""
    hits = places[np.isin(places, items)]
    return {"copies": rate(len(hits), n), "copied": len(np.unique(hits)), "items": len(items)}
