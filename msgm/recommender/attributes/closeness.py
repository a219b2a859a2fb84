"""How far embeddings moved: in scores (function space) or in themselves (parameter space), as one quadratic form.

    |e' - e|_M^2 = (e' - e)' M (e' - e),    M = Q'Q / I  (function: the mean squared change of a user's I scores)
                                            M = identity (parameter)

divided by the mean of e'Me over the users, so that 1 means a change as large as the embeddings themselves. The Gram
matrix of the item table Q takes in all user-item pairs at O(d^2) a user: no pair has to be sampled.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Space = Literal["function", "parameter"]


def closeness(embeddings: NDArray[Any], items: NDArray[Any], space: Space) -> NDArray[np.float64]:
    """Return (d, d) M, symmetric and not negative, for (U, d) embeddings and (I, d) items."""
    wide = items.astype(np.float64)
    form = wide.T @ wide / len(wide) if space == "function" else np.eye(embeddings.shape[1])
    rows = embeddings.astype(np.float64)
    size = float(((rows @ form) * rows).sum(1).mean())
    return form / max(size, np.finfo(float).tiny)
