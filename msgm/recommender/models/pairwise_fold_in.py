r"""Users folded into a model that ranks pairs: a user's row is solved from his cells, while all items stay as they are.

Of a user with the n items S seen, and with items j drawn among those not seen, the row

    p = argmin  sum over i in S, mean over j of softplus(x_j - x_i)  +  n lambda/2 |p - c|^2,      x_i = p . q_i + b_i

has the least expected loss of BPR that it can have given the items, up to the draw of j. The problem is strictly
convex, and steps of Newton from c solve it. Candidates for j are drawn once for a model and are the same for all users,
so that a row depends on its own cells and the model alone, whoever is asked about beside it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import expit

from msgm.recommender.models.row_batches import Batch, batches, pad
from msgm.seeding import derive_seed

CANDIDATES = 100
"""Items that negatives are taken from, drawn at random."""
STEPS = 5
"""Of Newton."""


def solve_users(
    cells: csr_array,
    items: NDArray[np.float32],
    bias: NDArray[np.float32],
    centres: NDArray[np.float32],
    regularisation: float,
    seed: int,
) -> NDArray[np.float32]:
    """Return (n, d) rows of the users who have the (n, I) ``cells``; a user without a cell keeps his centre.

    Args:
        cells: what the users have seen.
        items: (I, d) rows q of the items.
        bias: (I,) b.
        centres: (n, d) c.
        regularisation: lambda, above 0.
        seed: of the draw of candidates.
    """
    drawn = np.random.default_rng(derive_seed(seed, "fold-in")).permutation(len(items))[:CANDIDATES]
    unseen = cells[:, drawn].toarray() == 0
    with_bias = np.column_stack([items, bias])
    padded, others, found = pad(with_bias), with_bias[drawn], centres.copy()
    for batch in batches(cells):
        pairs = _weights(batch, unseen[batch.rows], len(items))
        found[batch.rows] = _descend(batch.features(padded), others, pairs, centres[batch.rows], regularisation)
    return found


def _weights(batch: Batch, unseen: NDArray[np.bool_], items: int) -> NDArray[np.float32]:
    """Return (n, w, m) weights of the pairs of a seen item and a candidate: those of a seen item sum to 1, or to 0."""
    shares = (unseen / np.maximum(unseen.sum(axis=1, keepdims=True), 1)).astype(np.float32)
    return np.asarray((batch.columns < items)[:, :, None] * shares[:, None, :])


def _descend(
    liked: NDArray[np.float32],
    others: NDArray[np.float32],
    pairs: NDArray[np.float32],
    centres: NDArray[np.float32],
    regularisation: float,
) -> NDArray[np.float32]:
    """Return the (n, d) solutions for (n, w, d + 1) seen items and (m, d + 1) candidates, biases last."""
    q, b, r, c = liked[:, :, :-1], liked[:, :, -1], others[:, :-1], others[:, -1]
    weight = np.float32(regularisation) * np.count_nonzero(pairs.any(axis=2), axis=1).astype(np.float32)
    ridge = np.maximum(weight, np.float32(regularisation))[:, None]
    turned, p = q.transpose(0, 2, 1), centres
    for _ in range(STEPS):
        margins = (_times(q, p) + b)[:, :, None] - (p @ r.T + c)[:, None, :]
        pulls = expit(-margins)
        slopes = pairs * pulls
        curves = slopes * (1 - pulls)
        gradient = slopes.sum(axis=1) @ r - _times(turned, slopes.sum(axis=2)) + ridge * (p - centres)
        cross = turned @ (curves @ r)
        hessian = (turned * curves.sum(axis=2)[:, None, :]) @ q - cross - cross.transpose(0, 2, 1)
        hessian += (r.T * curves.sum(axis=1)[:, None, :]) @ r + ridge[:, :, None] * np.eye(r.shape[1], dtype=np.float32)
        p = p - np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    return p


def _times(matrices: NDArray[Any], vectors: NDArray[Any]) -> NDArray[Any]:
    return np.asarray((matrices @ vectors[:, :, None])[:, :, 0])
