r"""Propagation of embeddings over the graph of users and items, differentiable twice, and operators in between.

    H^0 = the tables,   H^{l+1} = A H^l,   E = (H^0 + ... + H^L) / (L + 1)

(He et al., "LightGCN", SIGIR 2020, arXiv 2002.02126, Eq. 3 to 8). A is symmetric, so that the gradient goes back by the
same product as the embeddings go forth: no transpose is made, and A is a scipy matrix, several times faster on a CPU
than torch's sparse tensors. A row of a product depends on its own edges alone, bit for bit.

A deletion operator (Cheng et al., "GNNDelete", ICLR 2023, arXiv 2302.13406, Section 5) multiplies after layer l the
rows of the nodes in a set S^l by a matrix W^l and leaves all other rows as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Operator:
    """A deletion operator.

    Attributes:
        weights: (L, d, d), W^1 to W^L.
        nodes: (L, U + I) masks, S^1 to S^L.
    """

    weights: Tensor
    nodes: NDArray[np.bool_]

    def apply(self, hidden: Tensor, layer: int) -> Tensor:
        """Return the (U + I, d) rows of H^{layer + 1} with those of the set multiplied."""
        chosen = torch.from_numpy(self.nodes[layer])[:, None]
        return torch.where(chosen, hidden @ self.weights[layer], hidden)


class _Product(torch.autograd.Function):
    """A H for a symmetric A that is given by its (U, I) block; its own derivative."""

    @staticmethod
    def forward(hidden: Tensor, block: csr_array) -> Tensor:
        users, items = np.split(hidden.detach().numpy(), [block.shape[0]])
        return torch.from_numpy(np.concatenate([block @ items, block.T @ users]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.block = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return multiply(ctx.block, grads[0]), None


def multiply(adjacency: csr_array, hidden: Tensor) -> Tensor:
    """Return A H, (U + I, d), for the (U, I) block ``adjacency`` of A and H of users first, then items."""
    product: Tensor = _Product.apply(hidden, adjacency)
    return product


def propagate(hidden: Tensor, adjacency: csr_array, layers: int, operators: Sequence[Operator] = ()) -> Tensor:
    """Return the (U + I, d) embeddings E of the tables ``hidden``, (U + I, d), users first."""
    total = hidden
    for layer in range(layers):
        hidden = multiply(adjacency, hidden)
        for operator in operators:
            hidden = operator.apply(hidden, layer)
        total = total + hidden
    return total / (layers + 1)
