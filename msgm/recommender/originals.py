"""Models fitted before any forgetting, one for each seed, and models refitted to the retained cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

from msgm.recommender.data.base import Split
from msgm.recommender.methods import METHODS
from msgm.recommender.models import MODELS
from msgm.recommender.models.base import Recommender
from msgm.recommender.requests import Deletion
from msgm.seeding import derive_seed


@dataclass(frozen=True, eq=False)
class Original:
    """A fitted model, the seconds and the seed of its fit, and the data it was fitted to."""

    model: Recommender
    seconds: float
    seed: int
    split: Split


@dataclass(frozen=True, eq=False)
class Originals:
    """The models of one row, one for each seed; fitted once, when first needed.

    Attributes:
        settings: of the model.
        split: its training part is what the models are fitted to.
        seeds: of the experiment.
    """

    settings: Mapping[str, Any]
    split: Split
    seeds: Sequence[int]

    @cached_property
    def fitted(self) -> list[Original]:
        """The models, one a seed."""
        return [self._fit(derive_seed(seed, "fit")) for seed in self.seeds]

    def _fit(self, seed: int) -> Original:
        model = MODELS.build(self.settings)
        start = perf_counter()
        model.fit(self.split.train, seed, self.split.train_times)
        return Original(model, perf_counter() - start, seed, self.split)


def retrained(original: Recommender, deletion: Deletion, seed: int, count: int) -> list[Recommender]:
    """Return ``count`` models fitted to the cells that a request retains, with seeds derived from ``seed``."""
    retrain = METHODS.build({"name": "retrain"})
    return [retrain.unlearn(original, deletion, derive_seed(seed, "band", k)).model for k in range(count)]
