"""Base of recommender metrics: numbers of one model, compared with the original and with retrained models."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from msgm.recommender.data.base import Interactions, Split
from msgm.recommender.models.base import Recommender
from msgm.recommender.requests import Deletion
from msgm.registry import Registry
from msgm.study.parts import Number


@dataclass(frozen=True, eq=False)
class Case:
    """One model to measure.

    Example:
        >>> len(case.retrains), len(case.deletion.users)
        (2, 2)

    Attributes:
        target: the model.
        original: the model before any request.
        retrains: models fitted to the retained cells with other seeds; never the target itself.
        deletion: the forget request.
        split: the data before the request; test cells are read by metrics alone.
        data: ids, attributes and tags.
    """

    target: Recommender
    original: Recommender
    retrains: Sequence[Recommender]
    deletion: Deletion
    split: Split
    data: Interactions


class Metric(ABC):
    """A measurement. Subclasses are frozen dataclasses whose fields are their settings.

    Example:
        >>> 0 <= METRICS.build({"name": "ranking"}).measure(case)["ndcg"] <= 1
        True

    In their examples ``case`` is a ``Case``: a model that forgot two users and a tenth of the cells, and two retrained.

    Attributes:
        numbers: its numbers, by name.
        costly: whether it is left out of comparisons unless it is asked for by name.
    """

    name: ClassVar[str]
    costly: ClassVar[bool] = False
    numbers: ClassVar[dict[str, Number]]

    @abstractmethod
    def measure(self, case: Case) -> dict[str, float | None]:
        """Return every number of ``numbers``; None for one that does not exist here, never NaN."""


__all__ = ["METRICS", "Case", "Metric", "Number"]
METRICS: Registry[Metric] = Registry("metrics")
