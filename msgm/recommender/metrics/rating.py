"""RMSE of predicted ratings: the root of the mean over held-out cells of (rating - prediction)^2.

Predictions are held to the range of the training ratings, as a service would show them.
"""

from dataclasses import dataclass

import numpy as np

from msgm.recommender.metrics.base import METRICS, Case, Metric, Number
from msgm.recommender.metrics.ranking import blocks
from msgm.recommender.sparse import rows_of
from msgm.study.parts import NONNEGATIVE


@METRICS.register("rating")
@dataclass(frozen=True)
class Rating(Metric):
    """RMSE on held-out ratings of retained users; None for models that predict no rating.

    Example:
        >>> Rating().measure(case)
        {'rmse': 0.8...}
    """

    numbers = {  # noqa: RUF012
        "rmse": Number(
            "RMSE on held-out ratings of retained users, in units of the rating, 0 and up",
            "utility",
            "lower",
            NONNEGATIVE,
        )
    }

    def measure(self, case: Case) -> dict[str, float | None]:
        test, ratings = case.deletion.without(case.split.test), case.split.train.data
        if not (case.target.explicit and case.data.explicit and test.nnz):
            return {"rmse": None}
        squares = 0.0
        for users in blocks(np.flatnonzero(np.diff(test.indptr))):
            rows = test[users]
            scores = np.asarray(case.target.score(users), dtype=np.float64)
            found = scores[rows_of(rows), rows.indices]
            squares += float(np.square(np.clip(found, ratings.min(), ratings.max()) - rows.data).sum())
        return {"rmse": float(np.sqrt(squares / test.nnz))}
