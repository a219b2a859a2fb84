"""A plug-in: a removable map of user embeddings, applied between the user table and the scores.

    f(e) = e + g(e),    g(e) = relu(... relu(e W_1 + b_1) ...) W_n + b_n

With one layer f is affine. The table is never written, so taking the plug-in out restores every score bit for bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Plugin:
    """A residual map.

    Attributes:
        weights: of every layer, (in, out); the first in and the last out are d.
        biases: of every layer, (out,).
    """

    weights: tuple[NDArray[np.float64], ...]
    biases: tuple[NDArray[np.float64], ...]

    def __call__(self, embeddings: NDArray[Any]) -> NDArray[Any]:
        """Return f of the (U, d) rows, computed in float64, in the type of ``embeddings``."""
        if not self.weights:
            return embeddings.copy()
        inner = embeddings.astype(np.float64)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            inner = inner @ weight + bias
            inner = inner if layer == last else np.maximum(inner, 0)
        return (embeddings + inner).astype(embeddings.dtype)

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return weights and biases by name."""
        numbered = range(len(self.weights))
        return {f"weight{k}": self.weights[k] for k in numbered} | {f"bias{k}": self.biases[k] for k in numbered}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "Plugin":
        """Return the plug-in that gave ``arrays``."""
        numbered = range(len(arrays) // 2)
        return cls(tuple(arrays[f"weight{k}"] for k in numbered), tuple(arrays[f"bias{k}"] for k in numbered))


IDENTITY = Plugin((), ())
"""Changes nothing; no layer."""


def affine(projection: NDArray[np.float64], centre: NDArray[np.float64]) -> Plugin:
    """Return f(e) = e - (e - centre) projection, with (d, d) ``projection`` and (d,) ``centre``."""
    return Plugin((-projection,), (centre @ projection,))
