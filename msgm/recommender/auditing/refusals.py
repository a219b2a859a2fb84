"""How a user who was forgotten is refused, beside one whom the folder never knew: in which words, and how fast.

Both are asked for in turn, in drawn order. The median of the differences in seconds has a distribution-free interval:
two order statistics between which the median lies with at least the stated confidence, whatever the distribution.
"""

import string
from collections.abc import Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError
from msgm.recommender.auditing.served import Finding, Served
from msgm.recommender.journal import id_digest
from msgm.seeding import derive_seed

PAIRS = 101
CONFIDENCE = 0.99
"""Of the interval; a folder that refuses both alike fails once in a hundred audits."""
LETTERS = np.array(list(string.ascii_lowercase + string.digits))


def refusals(served: Served, forgotten: Sequence[str], places: Sequence[str], seed: int) -> Finding:
    """Compare refusals of forgotten users with those of unknown ones.

    Args:
        served: the folder.
        forgotten: ids of users who were forgotten; the folder does not hold them any more.
        places: where each was read, for errors to begin with.
        seed: of the order, and of the unknown ids.

    Raises:
        UserError: no answered request names one of them.
    """
    if not forgotten:
        return Finding.not_tested(
            "refusals", "the folder holds no id of a forgotten user; name some, if you still have any, with --forgotten"
        )
    if served.journal is None:
        return Finding.not_tested("refusals", "the journal, which says who is forgotten, cannot be trusted")
    done = served.journal.done()
    for one, place in zip(forgotten, places, strict=True):
        if id_digest(served.service.key, "users", one.strip()) not in done:
            raise UserError(f"{place}no answered request of the journal names user {one!r}.")
    draws = np.random.default_rng(derive_seed(seed, "audit", "refusals"))
    differences, alike = [], True
    _asked(served, forgotten[0])  # the first reads files that are not cached yet
    for k in range(PAIRS):
        one = forgotten[k % len(forgotten)]
        pair = [one, _unknown(one, served, draws)]
        answers = {name: _asked(served, name) for name in (pair if draws.random() < 0.5 else pair[::-1])}
        (ours, seconds), (others, baseline) = (answers[name] for name in pair)
        differences.append(seconds - baseline)
        alike &= ours is not None and others is not None and ours.replace(one, "") == others.replace(pair[1], "")
    return _judged(np.array(differences), alike)


def _judged(differences: NDArray[np.float64], alike: bool) -> Finding:
    from scipy.stats import quantile_test  # takes a third of a second

    interval = quantile_test(differences, q=0, p=0.5).confidence_interval(CONFIDENCE)
    median, low, high = (1e3 * float(value) for value in (np.median(differences), interval.low, interval.high))
    said = (
        f"{median:+.2f} ms [{low:+.2f}, {high:+.2f}] for a forgotten beside an unknown user (median of "
        f"{len(differences)} pairs, {100 * CONFIDENCE:.0f}% interval)"
    )
    faults = [] if low <= 0 <= high else [said]
    faults += [] if alike else ["a forgotten user is answered in other words than an unknown one"]
    found = Finding.judged("refusals", len(differences), faults, f"{said}, in the same words")
    numbers = {"median_ms": median, "low_ms": low, "high_ms": high}
    return Finding(found.check, found.verdict, found.n, found.found, numbers)


def _asked(served: Served, user: str) -> tuple[str | None, float]:
    """Return the words in which a user is refused, None where they are served, and the seconds it took."""
    start = perf_counter()
    try:
        served.service.recommend(user, 1)
    except UserError as error:
        return str(error), perf_counter() - start
    return None, perf_counter() - start


def _unknown(like: str, served: Served, draws: np.random.Generator) -> str:
    """Return an id that nobody has, as long as ``like``."""
    while True:
        text = "".join(draws.choice(LETTERS, len(like)))
        if text not in served.data.users.ids:
            return text
