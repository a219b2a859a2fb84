r"""A recommender in shards: K models of one kind, each fitted to its own cells, and a combiner (SISA).

Forgetting drops the cells and fits anew, from the same seed, the shards that had some of them; then the combiner, if
it learns. Of r users in K shards at random K (1 - (1 - 1/K)^r) shards are hit: with r above 3 K nearly all (Bourtoule
et al., "Machine Unlearning", IEEE S&P 2021, section 4, without its slices).

Exactness in distribution needs a partition that does not depend on the data. Then the system equals, bit for bit, one
that never saw the forgotten cells, as every fit is a function of its cells and seed. A partition that was learnt from
all cells still knows those forgotten: ``approximate``. ``refit`` partitions anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.errors import UserError, nearest
from msgm.fields import Settings
from msgm.recommender.models.base import MODELS, Recommender
from msgm.recommender.models.torch_base import TorchRecommender
from msgm.recommender.requests import Deletion
from msgm.recommender.sharding.attention import Attention
from msgm.recommender.sharding.combiners import Combiner, FoldIn, Logistic, Mean, Own, Shards
from msgm.recommender.sharding.partitions import cell_draws, check_partition, make_partition
from msgm.recommender.sparse import kept
from msgm.seeding import derive_seed

COMBINERS: dict[str, type[Combiner]] = {c.name: c for c in (Own, Mean, FoldIn, Logistic, Attention)}
HELD = -1
"""Shard of the cells that are held back for the combiner."""
SUMMED = ("ease", "als")
"""Models whose regularisation stands against a sum over cells, of which a shard has one K-th."""


@MODELS.register("sharded")
@dataclass
class ShardedRecommender(Recommender):
    """A recommender in shards.

    Example:
        >>> model = msgm.recommender.ShardedRecommender(shards=4).fit(matrix)
        >>> ids, scores = model.recommend(0, N=5)
        >>> answer = model.forget(users=[3])

    Attributes:
        base: settings, with the name, of the model as it would be fitted to all cells. In a shard ``regularisation``
            is divided by K where it stands against a sum over cells (SUMMED) and the combiner averages over shards, as
            the mean over shards removes the additional noise. On MovieLens 100K that is best for fold-in, not for
            ``own``. ``batch_size`` is divided by K, so that a shard's fit takes as many steps as one to all cells.
        partition: ``random``, ``random-interactions``, ``ubp``, ``ibp``, ``inbp`` or ``ot``; see ``partitions``.
        balance: what shards have the same amount of.
        shards: K.
        combiner: ``own``, ``mean``, ``fold-in``, ``logistic`` or ``attention``; see ``combiners``.

    After a fit ``partition_seconds``, ``shard_seconds`` and ``combiner_seconds`` say where its time went, and
    ``partition_solve`` how well a partition that takes a solver converged.
    """

    base: Settings = field(default_factory=lambda: {"name": "ease"})
    partition: str = "random"
    balance: Literal["users", "interactions"] = "users"
    shards: int = 10
    combiner: str = "fold-in"

    def __post_init__(self) -> None:
        if self.combiner not in COMBINERS:
            known = sorted(COMBINERS)
            hint = nearest(self.combiner, known)
            raise UserError(f"model.combiner: unknown combiner {self.combiner!r}; known: {', '.join(known)}.{hint}")
        if MODELS.build(self.base, "model.base").name in ("sharded", "sequential"):
            raise UserError(f"model.base.name: {self.base['name']} is made of other models and cannot be a shard's.")
        check_partition(self.partition)
        COMBINERS[self.combiner]().check(self.base["name"], self.partition)

    def _fit(self) -> None:
        start = perf_counter()
        made = make_partition(self.partition, self.seen, self.shards, self.balance, self.seed)
        self.labels, self.owners, self.learnt = made.cells, made.owners, made.learnt
        self.partition_solve = made.solve
        self.aggregator = COMBINERS[self.combiner]()
        if self.aggregator.held:
            held = cell_draws(self.seen, self.seed, "combiner", "held") < self.aggregator.held
            self.labels = np.where(held, HELD, self.labels)
        partitioned = perf_counter()
        self.models = [self._shard(k, self.seen, self.times, self.labels) for k in range(self.shards)]
        fitted = perf_counter()
        self.aggregator.fit(self._parts(self.models, self.seen, self.labels), self.seed)
        self.partition_seconds, self.shard_seconds = partitioned - start, fitted - partitioned
        self.combiner_seconds = perf_counter() - fitted

    def _model(self) -> Recommender:
        """Make the model of a shard."""
        model: Any = MODELS.build(self.base)
        if model.name in SUMMED and COMBINERS[self.combiner].averages:
            model.regularisation /= self.shards
        if isinstance(model, TorchRecommender):
            model.batch_size = max(model.batch_size // self.shards, 1)
        return model

    def _shard(
        self, shard: int, cells: csr_array, times: NDArray[np.int64] | None, labels: NDArray[np.int64]
    ) -> Recommender | None:
        """Fit the model of a shard; None where the shard has no cell."""
        mine = labels == shard
        if not mine.any():
            return None
        model = self._model()
        own_times = None if times is None else times[mine]
        return model.fit(kept(cells, mine), derive_seed(self.seed, "shard", shard), own_times)

    def _parts(self, models: list[Recommender | None], cells: csr_array, labels: NDArray[np.int64]) -> Shards:
        return Shards(models, kept(cells, labels != HELD), kept(cells, labels == HELD), self.owners)

    def score(self, users: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        users = np.asarray(users, dtype=np.int64)
        parts = Shards(self.models, self.seen, self.seen, self.owners)
        return self.aggregator.score(parts, users, self.seen[users])

    def _forget(self, deletion: Deletion) -> tuple[int, str, dict[str, Any]]:
        gone = deletion.mask(self.seen)
        rest, labels = kept(self.seen, ~gone), self.labels[~gone]
        times = None if self.times is None else self.times[~gone]
        hit = np.unique(self.labels[gone & (self.labels != HELD)]).tolist()
        models, start = list(self.models), perf_counter()
        for shard in hit:
            models[shard] = self._shard(shard, rest, times, labels)
        if all(model is None for model in models):
            raise UserError("the request leaves no shard with a cell.")
        refitted = perf_counter()
        if gone.any():
            self._aggregate(models, rest, labels)
        self.models, self.labels = models, labels
        facts = {
            "shards_refitted": hit,
            "refit_seconds": refitted - start,
            "aggregation_seconds": perf_counter() - refitted,
            "partition": "learnt from cells that are now forgotten" if self.learnt else "independent of the data",
        }
        touched = sum(sum(model.seen.shape) for model in (models[shard] for shard in hit) if model is not None)
        return touched, "approximate" if self.learnt else "bit-exact", facts

    def _aggregate(self, models: list[Recommender | None], cells: csr_array, labels: NDArray[np.int64]) -> None:
        """Put a combiner, fitted anew, in place of the old one."""
        combiner = COMBINERS[self.combiner]()
        combiner.fit(self._parts(models, cells, labels), self.seed)
        self.aggregator = combiner

    def storage_bytes(self) -> int:
        """Return the bytes of the fitted state: the models of all shards and the combiner."""
        return sum(array.nbytes for array in self.arrays().values())

    def arrays(self) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {"labels": self.labels, "learnt": np.array(self.learnt)}
        found |= {} if self.owners is None else {"owners": self.owners}
        found |= {f"combiner.{name}": values for name, values in self.aggregator.arrays().items()}
        for shard, model in enumerate(self.models):
            if model is not None:
                found |= {f"shard{shard}.{name}": values for name, values in model.arrays().items()}
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.labels, self.learnt = np.array(arrays["labels"]), bool(arrays["learnt"])
        self.owners = np.array(arrays["owners"]) if "owners" in arrays else None
        self.aggregator = COMBINERS[self.combiner]()
        self.aggregator.restore(_below("combiner.", arrays))
        self.models = [self._restored(shard, _below(f"shard{shard}.", arrays)) for shard in range(self.shards)]

    def _restored(self, shard: int, arrays: dict[str, NDArray[Any]]) -> Recommender | None:
        if not arrays:
            return None
        model, mine = self._model(), self.labels == shard
        model.seen, model.seed = kept(self.seen, mine), derive_seed(self.seed, "shard", shard)
        model.times = None if self.times is None else self.times[mine]
        model.gone_users, model.gone_items = np.zeros_like(self.gone_users), np.zeros_like(self.gone_items)
        model.restore(arrays)
        return model


def _below(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
