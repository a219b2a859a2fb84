"""Base of attribute erasures on user embeddings: ``erase(embeddings, attributes, context) -> embeddings``.

Item embeddings never change. Closed forms and gradient methods share this interface.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from msgm.errors import RunError, UserError
from msgm.recommender.attributes.labels import Labels, encode
from msgm.recommender.attributes.plugin import Plugin
from msgm.registry import Registry


@dataclass(frozen=True, eq=False)
class Context:
    """Further inputs of an erasure, beside embeddings and attributes.

    Example:
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> Context(model.item_factors, seed=1).items.shape
        (30, 8)

    Attributes:
        items: (I, d) item embeddings, which give the scores ``embeddings @ items.T``.
        seed: of every draw.
        gone: (U,) mask of forgotten users, whose attribute values are ignored; None for none.
    """

    items: NDArray[np.floating[Any]]
    seed: int = 0
    gone: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Card:
    """Facts on an erasure that a user needs before relying on it.

    Example:
        >>> card = Card("E - mean of E", "a first course")
        >>> card.describe().splitlines()[0]
        'formula: E - mean of E'

    Attributes:
        formula: what it does, in one line.
        source: paper and section.
        deviations: from the source.
        guarantee: what holds afterwards, and against whom.
    """

    formula: str
    source: str
    deviations: str = "none"
    guarantee: str = "none; measure it with fresh attackers"

    def describe(self) -> str:
        """Return the card as text."""
        return "\n".join(f"{name}: {text}" for name, text in vars(self).items())


class Erasure(ABC):
    """Takes attributes out of user embeddings. Subclasses are dataclasses whose fields are their settings.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Zeros(Erasure):
        ...     name, card = "zeros", Card("0", "an example")
        ...     def _erase(self, embeddings, labels, context):
        ...         return np.zeros_like(embeddings)
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> Zeros().erase(model.user_factors, {"plan": plans}, Context(model.item_factors)).any().item()
        False
    """

    name: ClassVar[str]
    card: ClassVar[Card]
    several: ClassVar[bool] = True
    """Whether it takes several attributes at once."""

    def erase(
        self, embeddings: NDArray[Any], attributes: Mapping[str, NDArray[np.str_]], context: Context
    ) -> NDArray[Any]:
        """Return (U, d) embeddings of the same dtype that reveal less of the attributes; the input is not changed.

        Args:
            embeddings: (U, d) user embeddings.
            attributes: name to (U,) text; users with empty text are not used for learning.
            context: items, seed, and who was forgotten.

        Raises:
            UserError: no attribute, one with fewer than two values, or more than the erasure takes.
            RunError: the result is not finite.
        """
        labels = self.labels(attributes, context)
        erased = self._erase(embeddings, labels, context)
        if not np.isfinite(erased).all():
            raise RunError(f"{self.name}: the erased embeddings are not finite.")
        return erased.astype(embeddings.dtype)

    def labels(self, attributes: Mapping[str, NDArray[np.str_]], context: Context) -> list[Labels]:
        """Return the attributes as class numbers; errors as ``erase``."""
        if len(attributes) > 1 and not self.several:
            raise UserError(f"{self.name} takes one attribute, got {', '.join(attributes)}; use combined for several.")
        return encode(attributes, context.gone)

    @abstractmethod
    def _erase(self, embeddings: NDArray[Any], labels: list[Labels], context: Context) -> NDArray[Any]:
        """Return the erased embeddings."""


class PluginErasure(Erasure):
    """An erasure that learns a map of embeddings; serving needs no labels, and users without a value are mapped too.

    Example:
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> erasure, context = ERASURES.build({"name": "leace"}), Context(model.item_factors)
        >>> plugin = erasure.plugin(model.user_factors, {"plan": plans}, context)
        >>> plugin(model.user_factors).shape
        (60, 8)
    """

    def plugin(self, embeddings: NDArray[Any], attributes: Mapping[str, NDArray[np.str_]], context: Context) -> Plugin:
        """Return the map; arguments and errors as ``erase``."""
        return self._plugin(embeddings, self.labels(attributes, context), context)

    @abstractmethod
    def _plugin(self, embeddings: NDArray[Any], labels: list[Labels], context: Context) -> Plugin:
        """Return the map."""

    def _erase(self, embeddings: NDArray[Any], labels: list[Labels], context: Context) -> NDArray[Any]:
        return self._plugin(embeddings, labels, context)(embeddings)


ERASURES: Registry[Erasure] = Registry("erasure")
