"""Propagation only: forgotten edges leave the graph, the embedding tables stay unchanged."""

from dataclasses import dataclass

import numpy as np

from msgm.recommender.methods.base import METHODS, Card, Ledger, Method
from msgm.recommender.models.adjacency import ends, within
from msgm.recommender.models.base import Recommender
from msgm.recommender.models.lightgcn import LightGCN
from msgm.recommender.requests import Deletion


@METHODS.register("propagation-only")
@dataclass(frozen=True)
class PropagationOnly(Method):
    """The cost-free baseline of graph models, against which other methods must justify their time.

    It is not unlearning: on MovieLens 100K with 5% of the cells forgotten, the AUC of forgotten against held-out cells
    falls from .57 to .55, where a refit has .50.

    Example:
        >>> model = msgm.recommender.LightGCN(factors=8, epochs=2).fit(matrix)
        >>> made = PropagationOnly().unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen[[3]].nnz
        ('none', 0)
    """

    card = Card(
        formula="E = (H^0 + A' H^0 + ... + A'^L H^0) / (L + 1), A' without the forgotten edges, H^0 kept",
        source="the unlinking baseline of graph unlearning (UtU: Tan et al., arXiv 2402.10695), for LightGCN",
        exactness="none",
        models=("lightgcn",),
        deviations="none; the graph is exactly that of a refit, but the tables were trained on what is forgotten",
    )

    def forget(self, model: Recommender, deletion: Deletion, seed: int, ledger: Ledger) -> tuple[Recommender, int, str]:
        assert isinstance(model, LightGCN)
        reached = within(model.adjacency, ends(deletion.only(model.seen)), model.layers)[-1]
        model.mark(deletion)
        model.refresh(reached)
        return model, int(np.count_nonzero(reached)), self.card.exactness
