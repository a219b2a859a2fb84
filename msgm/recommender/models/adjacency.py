r"""The graph of users and items: its symmetrically normalised adjacency, exact updates of it, and neighbourhoods.

A cell (u, i) is an edge between node u and node U + i. With degrees d, the normalised adjacency has the weights

    A_ui = 1 / sqrt(d_u d_i)

(He et al., "LightGCN", SIGIR 2020, arXiv 2002.02126, Eq. 3). A is symmetric and has no other blocks, so that the (U, I)
one is kept alone. A deleted edge changes the degrees of its two nodes, hence the weights of all their edges and of no
others.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.recommender.requests import Deletion
from msgm.recommender.sparse import ones, rows_of


def normalised(seen: csr_array) -> csr_array:
    """Return the (U, I) float32 weights of the cells of ``seen``, whatever the values of the cells."""
    rows, of_users, of_items = _ends(seen)
    return csr_array((_weights(rows, seen.indices, of_users, of_items), seen.indices, seen.indptr), seen.shape)


def joined(cells: csr_array, seen: csr_array) -> csr_array:
    """Return the (n, I) weights of the edges that n further users with these ``cells`` have to the items of ``seen``.

    Degrees of items are those in ``seen``, and 1 where an item has no edge there.
    """
    rows, of_users, _ = _ends(cells)
    of_items = np.maximum(_ends(seen)[2], 1)
    return csr_array((_weights(rows, cells.indices, of_users, of_items), cells.indices, cells.indptr), cells.shape)


def without(adjacency: csr_array, deletion: Deletion) -> csr_array:
    """Return ``adjacency`` without the edges to forget, bit for bit equal to ``normalised`` of the retained cells.

    Only edges of nodes that lost one are weighed anew.
    """
    rest = deletion.without(adjacency)
    _, users_before, items_before = _ends(adjacency)
    rows, of_users, of_items = _ends(rest)
    stale = (of_users < users_before)[rows] | (of_items < items_before)[rest.indices]
    rest.data[stale] = _weights(rows[stale], rest.indices[stale], of_users, of_items)
    return rest


def within(adjacency: csr_array, nodes: NDArray[np.bool_], hops: int) -> NDArray[np.bool_]:
    """Return (hops, U + I) masks of the nodes at most 1, 2, ..., ``hops`` edges away from the (U + I,) ``nodes``."""
    edges = ones(adjacency, np.float32)
    users = adjacency.shape[0]
    found = []
    for _ in range(hops):
        reached = np.concatenate([edges @ nodes[users:], edges.T @ nodes[:users]]) > 0
        nodes = nodes | reached
        found.append(nodes)
    return np.array(found)


def ends(edges: csr_array) -> NDArray[np.bool_]:
    """Return the (U + I,) mask of the nodes that have an edge among ``edges``."""
    _, of_users, of_items = _ends(edges)
    return np.concatenate([of_users, of_items]) > 0


def _ends(edges: csr_array) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the (n,) users of the edges, the (U,) degrees of users and the (I,) degrees of items."""
    of_users = np.diff(edges.indptr).astype(np.int64)
    of_items = np.bincount(edges.indices, minlength=edges.shape[1])
    return rows_of(edges), of_users, of_items


def _weights(
    users: NDArray[np.int64], items: NDArray[np.int64], of_users: NDArray[np.int64], of_items: NDArray[np.int64]
) -> NDArray[np.float32]:
    return (1 / np.sqrt(of_users[users] * of_items[items])).astype(np.float32)
