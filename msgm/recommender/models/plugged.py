"""A factor model with a plug-in on its user table: the table is unchanged, and scores use the mapped embeddings."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.fields import Settings
from msgm.recommender.attributes.plugin import IDENTITY, Plugin
from msgm.recommender.attributes.tables import exchange_users, factors
from msgm.recommender.models.base import EXACTNESS, MODELS, Recommender
from msgm.recommender.requests import Deletion

BASE, PLUGIN = "base.", "plugin."


@MODELS.register("plugged")
@dataclass
class Plugged(Recommender):
    """A model whose user embeddings pass through a plug-in, which ``unplug`` removes.

    The base model answers requests in its own way. The plug-in is kept and also maps recomputed rows, though its
    guarantees hold only for the rows it was learned from. As these include the forgotten users' rows, an answer that
    keeps the plug-in is at best approximate. Where the base answers by a refit, the plug-in does not fit the new table:
    it is removed, and the answer's facts say so. A fit is the base's, without a plug-in.

    Example:
        >>> model = msgm.recommender.Plugged().fit(matrix)
        >>> ids, scores = model.recommend(0, N=5)
        >>> answer = model.forget(users=[3])

    Attributes:
        base: the model's name and settings; it must have user embeddings.
    """

    base: Settings = field(default_factory=lambda: {"name": "als"})

    def __post_init__(self) -> None:
        self.inner = MODELS.build(self.base, "model.base")
        self.plugin = IDENTITY

    @classmethod
    def around(cls, model: Recommender, plugin: Plugin) -> "Plugged":
        """Return ``model`` seen through ``plugin``; it is held, not copied."""
        made = cls(model.settings())
        made.inner, made.plugin, made.seed = model, plugin, model.seed
        made._take_over()
        return made

    def unplug(self) -> Recommender:
        """Return the base model: its scores are bit for bit those of before the plug-in."""
        return self.inner

    @property
    def user_factors(self) -> NDArray[Any]:
        """(U, d) mapped user embeddings."""
        return np.asarray(self._view.user_factors)

    @property
    def item_factors(self) -> NDArray[Any]:
        """(I, d) item embeddings, those of the base."""
        return np.asarray(self._view.item_factors)

    def _fit(self) -> None:
        self._hand_over()
        self.inner._fit()
        self.plugin = IDENTITY
        self._take_over()

    def _hand_over(self) -> None:
        """Share this model's state with the base."""
        self.inner.seen, self.inner.times, self.inner.seed = self.seen, self.times, self.seed
        self.inner.gone_users, self.inner.gone_items = self.gone_users, self.gone_items

    def _take_over(self) -> None:
        """Share the base's state, and map its user table for serving."""
        inner = self.inner
        table, _ = factors(inner)
        self.seen, self.times = inner.seen, inner.times
        self.gone_users, self.gone_items = inner.gone_users, inner.gone_items
        self._view: Any = copy.copy(inner)
        exchange_users(self._view, self.plugin(table))

    def score(self, users: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        return np.asarray(self._view.score(users))

    def _forget(self, deletion: Deletion) -> tuple[int, str, dict[str, Any]]:
        answer = self.inner.forget(deletion)
        if not self.plugin.weights:
            return answer.touched, answer.exactness, answer.facts
        if not answer.facts.get("refit"):
            kept = {"plugin": "kept; it was learned from rows of before", "exactness_of_base": answer.exactness}
            return answer.touched, max(answer.exactness, "approximate", key=EXACTNESS.index), answer.facts | kept
        self.plugin = IDENTITY
        return answer.touched, answer.exactness, answer.facts | {"plugin": "taken out; learn another one"}

    def placebo(self, deletion: Deletion) -> None:
        self.inner.placebo(deletion)
        self._take_over()

    def mark(self, deletion: Deletion) -> None:
        """Drop the cells, in the base too, and map its table anew."""
        self.inner.mark(deletion)
        self._take_over()

    def arrays(self) -> dict[str, NDArray[Any]]:
        of_base = {BASE + name: values for name, values in self.inner.arrays().items()}
        return of_base | {PLUGIN + name: values for name, values in self.plugin.arrays().items()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._hand_over()
        self.inner.restore(_part(arrays, BASE))
        self.plugin = Plugin.of(_part(arrays, PLUGIN))
        self._take_over()


def _part(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
