r"""What a user loses by withdrawing items from their history: their list as it is, and as it would be without them.

The other list is that of a copy of the model which has forgotten the items by its own ``forget``; the model stays as it
is. For EASE and the models of nearest neighbours it is exact: a model fitted anew to the rest has that list. ALS and MF
answer by sweeps, which also move what has nothing to do with the request. How far, is measured: another copy takes the
same steps with nothing withdrawn (a placebo). Models that forget by being trained again are refused, as their draws
change a list by more than one user's items do.

Two lists A and B of k items are compared by rank-biased overlap (Webber, Moffat and Zobel, ACM TOIS 2010), cut at k and
scaled so that equal lists give 1:

    RBO = (1 - p) / (1 - p^k) * sum over d = 1..k of p^(d-1) |A_1:d n B_1:d| / d,    p = 0.9,

the share of items in common that is expected at the depth where someone stops who reads on with probability p.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError
from msgm.recommender.data.base import Interactions
from msgm.recommender.models.base import EXACTNESS, Recommender
from msgm.recommender.models.estimator import Ids, deletion_of
from msgm.recommender.overlap import rbo
from msgm.recommender.requests import Deletion, RecommenderRequest

PERSISTENCE = 0.9
"""p of rank-biased overlap."""


@dataclass(frozen=True)
class WhatIf:
    """A user's list, and what it would be.

    Example:
        >>> found = msgm.recommender.what_if(msgm.recommender.ItemKNN().fit(matrix), user=0)
        >>> found.after, found.overlap  # without any history nothing is served
        ([], 0.0)

    Attributes:
        before: items of the list as it is, best first; fewer than N where fewer are left.
        after: items of the list without what is withdrawn.
        overlap: rank-biased overlap of the two, 0 (nothing in common) to 1 (the same list).
        exactness: of the second list, one of ``models.EXACTNESS``.
        error: 1 less the overlap of the list as it is with that of the placebo; 0 where the answer is exact. On average
            an answer is about so far from a refit's list.
        seconds: that finding the second list took, without the placebo's.
    """

    before: list[Any]
    after: list[Any]
    overlap: float
    exactness: str
    error: float
    seconds: float


def what_if(
    model: Recommender, user: int, items: Ids | None = None, N: int = 10, pending: Deletion | None = None
) -> WhatIf:
    """Return what a user's list would be had they withdrawn items from their history; ``model`` is not changed.

    Example:
        >>> model = msgm.recommender.EASE().fit(matrix)
        >>> found = msgm.recommender.what_if(model, user=0, items=[int(matrix[[0]].indices[0])], N=5)
        >>> len(found.before), len(found.after), found.exactness
        (5, 5, 'exact up to rounding')

    Args:
        model: that serves the user.
        user: row number.
        items: column numbers to withdraw; by default the whole history, after which nothing is served.
        N: length of the lists.
        pending: what the model is about to forget; it counts as withdrawn already, and stays out of both lists.

    Returns:
        the lists, as item numbers, and how much they have in common. A withdrawn item may come back in the second
        list: the model would not know any more that the user has it.

    Raises:
        UserError: a user who was forgotten or is out of range, items that are not in the history or given twice, N
            below 1, or a model that forgets by being trained again.
    """
    row: NDArray[np.int64] = np.array([user])
    before = model.listed(row, N)
    held = (pending or Deletion()).without(model.seen)[row].indices.astype(np.int64)
    asked = np.atleast_1d(held if items is None else np.asarray(items))
    if not len(asked):
        raise UserError("items: name those to withdraw; without any, user and items are served as before.")
    deletion = deletion_of(model.seen.shape, (), (), np.column_stack([np.full(len(asked), user), asked]))
    strange = np.setdiff1d(asked, held)
    if len(strange):
        raise UserError(f"the model never saw item number {strange[0]} with user number {user}: nothing to withdraw.")
    if len(asked) == len(held):
        return WhatIf(_items(before), [], 0.0, "bit-exact", 0.0, 0.0)
    error = 0.0
    if not model.exact:
        placebo = model.fork()
        placebo.placebo(deletion)
        error = 1 - rbo(before, placebo.listed(row, N), PERSISTENCE)
    start = perf_counter()
    other = model.fork()
    answer = other.forget(deletion)
    after = other.listed(row, N)
    seconds = perf_counter() - start
    return WhatIf(_items(before), _items(after), rbo(before, after, PERSISTENCE), answer.exactness, error, seconds)


def by_ids(
    data: Interactions, model: Recommender, user: int, pending: Deletion, items: Sequence[Any] | None, N: int
) -> WhatIf:
    """Return ``what_if`` of items by their ids, and with ids in the lists; raises as it does."""
    numbers = None
    if items is not None:
        pairs = [[data.users.ids[user], item] for item in items]
        asked = RecommenderRequest(interactions=pairs).deletion(data, pending.without(model.seen))
        numbers = asked.cells[:, 1]
    found = what_if(model, user, numbers, N, pending)
    before, after = ([data.items.ids[item] for item in one] for one in (found.before, found.after))
    return replace(found, before=before, after=after)


def told(found: WhatIf, items: Sequence[Any]) -> list[str]:
    """Return sentences on an answer: how much stays, how exact that is, and which withdrawn ``items`` come back."""
    stay = len(set(found.before) & set(found.after))
    lines = [
        f"{stay} of {len(found.before)} items stay; rank-biased overlap {found.overlap:.3f} (p = {PERSISTENCE}, "
        f"cut at the list's end; 1 is the same list, 0 nothing in common)"
    ]
    if not found.after:
        lines.append("without any history nothing is served")
    elif found.exactness in EXACTNESS[:2]:
        lines.append(f"{found.exactness}: a model fitted without them has the same list ({found.seconds:.4f} s)")
    else:
        lines.append(
            f"{found.exactness}: the same steps with nothing withdrawn lead to a list whose overlap with the present "
            f"one is {1 - found.error:.3f}; by about as much the answer may be off ({found.seconds:.3f} s)"
        )
    back = [str(item) for item in found.after if item in items]
    if back:
        lines.append(
            f"withdrawn and listed again, for the model would not know that the user has it: {', '.join(back)}"
        )
    return lines


def _items(lists: NDArray[np.int64]) -> list[int]:
    return [int(item) for item in lists[0] if item >= 0]
