"""Matrix correction: the forgotten cells leave the matrix that scores are read from, and nothing else changes.

A neighbour or linear item-item model scores R = X M, with X the users' cells and M a mapping that was learnt from them.
Dropping cells from X costs nothing and removes them from the users' profiles, but M was learnt from them: forgotten
cells rank against held-out cells as before. It is not unlearning, and is included to show that.
"""

from dataclasses import dataclass

from msgm.recommender.methods.base import METHODS, Card, Ledger, Method
from msgm.recommender.models.base import Recommender
from msgm.recommender.requests import Deletion


@METHODS.register("matrix-correction")
@dataclass(frozen=True)
class MatrixCorrection(Method):
    """Drop the cells from X, keep M.

    Example:
        >>> model = msgm.recommender.EASE().fit(matrix)
        >>> made = MatrixCorrection().unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen[[3]].nnz
        ('none', 0)
    """

    card = Card(
        formula="R = X' M, X' without F, M as it was",
        source="IMCorrect (interaction and mapping matrices correction), the first of its two corrections",
        exactness="none",
        models=("ease", "item-knn"),
        deviations="M is left: correcting it exactly is the models' own forget",
    )

    def forget(self, model: Recommender, deletion: Deletion, seed: int, ledger: Ledger) -> tuple[Recommender, int, str]:
        model.mark(deletion)
        return model, 0, "none"
