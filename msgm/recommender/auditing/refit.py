"""The served model beside one that is fitted anew, by its settings and seed, to the interactions that it keeps.

A model of which forgetting is exact has the refit's scores up to rounding; that its lists are the same is not enough,
for a small request may change no list. Any other model is told by a distance, 1 less the rank-biased overlap of lists,
beside that of two refits of different seeds. No verdict follows: how near an approximate answer must be, nobody has
said, and after a small request the model as it was is near, too.
"""

from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from msgm.cards.claims import INCONCLUSIVE, PASS
from msgm.reading import read_json
from msgm.recommender.auditing.served import Finding, Served
from msgm.recommender.journal import DONE
from msgm.recommender.metrics.ranking import blocks
from msgm.recommender.models.base import MODELS, Recommender
from msgm.recommender.overlap import rbo
from msgm.recommender.whatif import PERSISTENCE
from msgm.seeding import derive_seed

LENGTH = 10
"""Length of the lists."""
TOLERANCE = {"float64": 1e-8, "float32": 1e-3}
"""Largest difference of scores, in units of the largest score, that counts as rounding; by the precision of scores."""


class Manifest(TypedDict):
    """What is read of ``manifest.json``."""

    fit_seconds: NotRequired[float]


def refit(served: Served, users: int, seed: int, seconds: float) -> Finding:
    """Compare the scores and lists of a sample of users with those of a refit.

    Args:
        served: the folder.
        users: size of the sample.
        seed: of the sample, and of the second refit.
        seconds: the longest that the refits may take, by what the first fit took.
    """
    expected = _fit_seconds(served) * (1 if served.model.exact else 2)
    if expected > seconds:
        reason = f"fitting anew takes about {expected:.0f} s; --refit-seconds allows {seconds:g}"
        return Finding.not_tested("refit", reason)
    sample = served.sample(users, seed)
    own = served.model
    other = _fitted(own, own.seed)
    difference = _difference(own, other, sample)
    distance = 1 - rbo(own.listed(sample, LENGTH), other.listed(sample, LENGTH), PERSISTENCE)
    numbers = {"score_difference": difference, "list_distance": distance}
    allowed = TOLERANCE[_precision(own)]
    said = f"scores differ by {difference:.1g} of the largest ({allowed:.0e} counts as rounding)"
    if difference <= allowed:
        return Finding("refit", PASS, len(sample), f"as fitted anew: {said}", numbers)
    if own.exact:
        fault = f"not as fitted anew, though its forgetting is exact: {said}, and 1 - RBO of lists is {distance:.3f}"
        return Finding.judged("refit", len(sample), [fault], "")
    third = _fitted(own, derive_seed(seed, "audit", "refit"))
    apart = 1 - rbo(third.listed(sample, LENGTH), other.listed(sample, LENGTH), PERSISTENCE)
    told = (
        f"{_claimed(served)}: 1 - RBO of lists to a refit is {distance:.3f}, between refits of two seeds {apart:.3f}; "
        "neither shows nor rules out that it has forgotten"
    )
    return Finding("refit", INCONCLUSIVE, len(sample), told, numbers | {"seed_distance": apart})


def _fit_seconds(served: Served) -> float:
    """Return what the first fit took; 0 where the folder does not say."""
    path = served.folder / "manifest.json"
    return float(read_json(path, Manifest).get("fit_seconds", 0.0)) if path.is_file() else 0.0


def _fitted(own: Recommender, seed: int) -> Recommender:
    """Return a model of the same settings, fitted to the interactions that ``own`` keeps."""
    other = MODELS.build(own.settings())
    other.fit(own.seen, seed, own.times)
    other.gone_users, other.gone_items = own.gone_users, own.gone_items
    return other


def _precision(model: Recommender) -> str:
    """Return ``float32`` or ``float64``, in which a model gives its scores."""
    return "float64" if model.score(np.array([0])).dtype == np.float64 else "float32"


def _difference(one: Recommender, other: Recommender, users: NDArray[np.int64]) -> float:
    """Return the largest difference of two models' scores, in units of the largest score of the second."""
    largest, size = 0.0, 0.0
    for block in blocks(users):
        theirs = np.asarray(other.score(block), dtype=np.float64)
        largest = max(largest, float(np.abs(one.score(block) - theirs).max()))
        size = max(size, float(np.abs(theirs).max()))
    return largest / (size or 1.0)


def _claimed(served: Served) -> str:
    """Return how exact the journal says that the answers are."""
    lines = [] if served.journal is None else served.journal.lines
    return ", ".join(dict.fromkeys(str(line.get("exactness")) for line in lines if line["state"] == DONE)) or "trained"
