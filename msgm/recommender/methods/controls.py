"""The three rows that every comparison has: leave the model alone, refit it, and the model's own way to forget."""

from dataclasses import dataclass

from msgm.recommender.methods.base import METHODS, Card, Ledger, Method
from msgm.recommender.models.base import Recommender
from msgm.recommender.requests import Deletion


@METHODS.register("do-nothing")
@dataclass(frozen=True)
class DoNothing(Method):
    """Leave the model alone; its lists are not even filtered.

    Example:
        >>> model = msgm.recommender.EASE().fit(matrix)
        >>> made = DoNothing().unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen.nnz == matrix.nnz
        ('none', True)
    """

    card = Card("the original model", "control", "none", needs=())

    def forget(self, model: Recommender, deletion: Deletion, seed: int, ledger: Ledger) -> tuple[Recommender, int, str]:
        return model, 0, "none"


@METHODS.register("retrain")
@dataclass(frozen=True)
class Retrain(Method):
    """Refit to the retained cells from another seed.

    Example:
        >>> model = msgm.recommender.EASE().fit(matrix)
        >>> made = Retrain().unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen[[3]].nnz
        ('bit-exact', 0)
    """

    card = Card("fit anew to the retained cells", "the reference of the field", "bit-exact", needs=("retain",))

    def forget(self, model: Recommender, deletion: Deletion, seed: int, ledger: Ledger) -> tuple[Recommender, int, str]:
        model.seed = seed
        answer = model.refit(deletion)
        return model, answer.touched, answer.exactness


@METHODS.register("native")
@dataclass(frozen=True)
class Native(Method):
    """``model.forget``: the model's own method, such as a downdate, an index repair or a re-solve.

    Example:
        >>> model = msgm.recommender.EASE().fit(matrix)
        >>> made = Native().unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen[[3]].nnz
        ('exact up to rounding', 0)
    """

    card = Card("the model's own forget", "see the model's docstring", "the model's own")

    def forget(self, model: Recommender, deletion: Deletion, seed: int, ledger: Ledger) -> tuple[Recommender, int, str]:
        answer = model.forget(deletion)
        ledger.facts.update(answer.facts)
        return model, answer.touched, answer.exactness
