"""Inner products of many pairs of rows, differentiable any number of times, without a copy of the rows.

With pairs (r_n, c_n) and values v, two operations are each other's derivatives:

    dots:  s_n = A_{r_n} . B_{c_n},            dA = sums(ds, B),  dB = sums of the pairs turned round (ds, A);
    sums:  S_r = sum over n with r_n = r of v_n B_{c_n},   dv = dots(dS, B),  dB = sums turned round (v, dS).

Sums are a product with a sparse matrix, and dots go by slices that stay in the processor's cache, so that Hessian
products take a small part of the time that gathering and scattering rows would.
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

SLICE = 2048


class Pairs:
    """Pairs of a row of one table and a row of another.

    Args:
        rows: (n,) rows of the first table.
        columns: (n,) rows of the second.
        shape: lengths of the two tables.
    """

    def __init__(self, rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]) -> None:
        self.rows, self.columns, self.shape = rows, columns, shape
        self.order = np.argsort(rows, kind="stable")
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
        self.indices = columns[self.order]

    @cached_property
    def turned(self) -> "Pairs":
        """The same pairs with first and second exchanged."""
        return Pairs(self.columns, self.rows, (self.shape[1], self.shape[0]))

    def dots(self, first: Tensor, second: Tensor) -> Tensor:
        """Return (n,) inner products of the pairs' rows of two tables, (rows, d) and (columns, d), in float64."""
        found: Tensor = _Dots.apply(first, second, self)
        return found

    def sums(self, values: Tensor, second: Tensor) -> Tensor:
        """Return (rows, d): for every row, the sum of its partners' rows in ``second`` times the (n,) values."""
        found: Tensor = _Sums.apply(values, second, self)
        return found


class _Dots(torch.autograd.Function):
    @staticmethod
    def forward(first: Tensor, second: Tensor, pairs: Pairs) -> Tensor:
        a, b = first.detach().numpy(), second.detach().numpy()
        found = np.empty(len(pairs.rows))
        for start in range(0, len(found), SLICE):
            at = slice(start, start + SLICE)
            np.einsum("nd,nd->n", a[pairs.rows[at]], b[pairs.columns[at]], out=found[at])
        return torch.from_numpy(found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        first, second, ctx.pairs = inputs
        ctx.save_for_backward(first, second)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        first, second = ctx.saved_tensors
        of_first = ctx.pairs.sums(grads[0], second) if ctx.needs_input_grad[0] else None
        of_second = ctx.pairs.turned.sums(grads[0], first) if ctx.needs_input_grad[1] else None
        return of_first, of_second, None


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor, second: Tensor, pairs: Pairs) -> Tensor:
        matrix = csr_array((values.detach().numpy()[pairs.order], pairs.indices, pairs.starts), pairs.shape)
        return torch.from_numpy(matrix @ second.detach().numpy())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        values, second, ctx.pairs = inputs
        ctx.save_for_backward(values, second)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        values, second = ctx.saved_tensors
        of_values = ctx.pairs.dots(grads[0], second) if ctx.needs_input_grad[0] else None
        of_second = ctx.pairs.turned.sums(values, grads[0]) if ctx.needs_input_grad[1] else None
        return of_values, of_second, None
