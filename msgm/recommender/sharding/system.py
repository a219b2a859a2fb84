r"""A recommender in shards: K models of one kind, each fitted to its own cells, and a combiner (SISA).

Forgetting drops the cells and fits anew, from the same seed, the shards that had some of them; then the combiner, if
it learns. Of r users in K shards at random K (1 - (1 - 1/K)^r) shards are hit: with r above 3 K nearly all (Bourtoule
et al., "Machine Unlearning", IEEE S&P 2021, section 4). A shard of slices is trained slice by slice, as ``stages``
says, and from the first slice that loses a cell on: ``expected_cost`` says what that saves.

Exactness in distribution needs a partition that does not depend on the data. Then the system equals, bit for bit, one
that never saw the forgotten cells, as every fit is a function of its cells and seed. A partition that was learnt from
all cells still knows those forgotten: ``approximate``. ``refit`` partitions anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.checks import at_least
from msgm.errors import UserError, nearest
from msgm.fields import Settings
from msgm.recommender.models.alternating import Alternating
from msgm.recommender.models.base import MODELS, Recommender
from msgm.recommender.models.torch_base import TorchRecommender
from msgm.recommender.requests import Deletion
from msgm.recommender.sharding.attention import Attention
from msgm.recommender.sharding.combiners import Combiner, FoldIn, Logistic, Mean, Own, Shards
from msgm.recommender.sharding.partitions import cell_draws, check_partition, draw_slices, make_partition
from msgm.recommender.sharding.stages import WARM, State, rounds_of, train_stages
from msgm.recommender.sparse import kept
from msgm.seeding import derive_seed
from msgm.slices import ExpectedCost, expected_cost, stage_epochs

COMBINERS: dict[str, type[Combiner]] = {c.name: c for c in (Own, Mean, FoldIn, Logistic, Attention)}
HELD = -1
"""Shard of the cells that are held back for the combiner."""
SUMMED = ("ease", "als")
"""Models whose regularisation stands against a sum over cells, of which a shard has one K-th."""


class Cells(NamedTuple):
    """Cells, and where each of them lies.

    Attributes:
        matrix: (U, I) the n cells.
        shards: (n,) their shards; HELD for those held back.
        slices: (n,) their slices of these, from 0.
        times: (n,) seconds since 1970; None if not known.
    """

    matrix: csr_array
    shards: NDArray[np.int64]
    slices: NDArray[np.int64]
    times: NDArray[np.int64] | None

    def kept(self, mask: NDArray[np.bool_]) -> "Cells":
        """Return the cells of an (n,) mask."""
        times = None if self.times is None else self.times[mask]
        return Cells(kept(self.matrix, mask), self.shards[mask], self.slices[mask], times)


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
        slices: R, of each shard, for bases of WARM; the epochs or sweeps are shared out among their stages.

    After a fit ``partition_seconds``, ``shard_seconds`` and ``combiner_seconds`` say where its time went,
    ``cells_visited`` how many cells its shards went through, each counted in every epoch, and ``partition_solve`` how
    well a partition that takes a solver converged.
    """

    base: Settings = field(default_factory=lambda: {"name": "ease"})
    partition: str = "random"
    balance: Literal["users", "interactions"] = "users"
    shards: int = 10
    combiner: str = "fold-in"
    slices: int = 1

    def __post_init__(self) -> None:
        if self.combiner not in COMBINERS:
            known = sorted(COMBINERS)
            hint = nearest(self.combiner, known)
            raise UserError(f"model.combiner: unknown combiner {self.combiner!r}; known: {', '.join(known)}.{hint}")
        base = MODELS.build(self.base, "model.base")
        if base.name in ("sharded", "sequential"):
            raise UserError(f"model.base.name: {self.base['name']} is made of other models and cannot be a shard's.")
        check_partition(self.partition)
        COMBINERS[self.combiner]().check(base.name, self.partition)
        at_least(1, self, "model", "slices")
        if self.slices > 1 and base.name not in WARM:
            raise UserError(
                f"model.slices: {base.name} cannot train on from a checkpoint, so that its shards have no slices; set "
                f"it to 1, or take a base of {', '.join(WARM)}."
            )
        self._rounds()

    def _rounds(self) -> list[int]:
        """Return the epochs or sweeps of every slice's stage."""
        base = MODELS.build(self.base)
        name = "sweeps" if isinstance(base, Alternating) else "epochs"
        return stage_epochs(rounds_of(base), self.slices, "model.slices", f"model.base.{name}")

    def _fit(self) -> None:
        start = perf_counter()
        made = make_partition(self.partition, self.seen, self.shards, self.balance, self.seed)
        self.labels, self.owners, self.learnt = made.cells, made.owners, made.learnt
        self.partition_solve = made.solve
        self.aggregator = COMBINERS[self.combiner]()
        if self.aggregator.held:
            held = cell_draws(self.seen, self.seed, "combiner", "held") < self.aggregator.held
            self.labels = np.where(held, HELD, self.labels)
        self.places = draw_slices(made, self.seen, self.slices, self.seed)
        partitioned = perf_counter()
        made_shards = [self._shard(k, self._cells(), []) for k in range(self.shards)]
        self.models, self.checkpoints = [one[0] for one in made_shards], [one[1] for one in made_shards]
        self.cells_visited = sum(one[2] for one in made_shards)
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

    def _cells(self) -> Cells:
        return Cells(self.seen, self.labels, self.places, self.times)

    def _shard(self, shard: int, cells: Cells, states: list[State]) -> tuple[Recommender | None, list[State], int]:
        """Train a shard from the last of its states on.

        Returns:
            its model, None where it has no cell; the states before each of its slices but the first; cells visited.
        """
        mine = cells.kept(cells.shards == shard)
        if not mine.matrix.nnz:
            return None, [{}] * (self.slices - 1), 0
        model, seed = self._model(), derive_seed(self.seed, "shard", shard)
        if self.slices == 1:
            return model.fit(mine.matrix, seed, mine.times), [], rounds_of(model) * mine.matrix.nnz
        model.seed = seed
        found, visited = train_stages(model, self._rounds(), mine.slices, mine.matrix, mine.times, states)
        return model, found[:-1], visited

    def _parts(self, models: list[Recommender | None], cells: csr_array, labels: NDArray[np.int64]) -> Shards:
        return Shards(models, kept(cells, labels != HELD), kept(cells, labels == HELD), self.owners)

    def score(self, users: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        users = np.asarray(users, dtype=np.int64)
        parts = Shards(self.models, self.seen, self.seen, self.owners)
        return self.aggregator.score(parts, users, self.seen[users])

    def _forget(self, deletion: Deletion) -> tuple[int, str, dict[str, Any]]:
        gone = deletion.mask(self.seen)
        rest, lost = self._cells().kept(~gone), gone & (self.labels != HELD)
        first = {int(k): int(self.places[lost & (self.labels == k)].min()) for k in np.unique(self.labels[lost])}
        models, checkpoints, visited, start = list(self.models), list(self.checkpoints), 0, perf_counter()
        for shard, number in first.items():
            states = self.checkpoints[shard][:number]
            models[shard], checkpoints[shard], cells = self._shard(shard, rest, states)
            visited += cells
        if all(model is None for model in models):
            raise UserError("the request leaves no shard with a cell.")
        refitted = perf_counter()
        if gone.any():
            self._aggregate(models, rest.matrix, rest.shards)
        self.models, self.checkpoints, self.labels, self.places = models, checkpoints, rest.shards, rest.slices
        facts = {
            "shards_refitted": list(first),
            "stages_refitted": sum(self.slices - number for number in first.values()),
            "cells_visited": visited,
            "refit_seconds": refitted - start,
            "aggregation_seconds": perf_counter() - refitted,
            "partition": "learnt from cells that are now forgotten" if self.learnt else "independent of the data",
        }
        touched = sum(sum(model.seen.shape) for model in (models[shard] for shard in first) if model is not None)
        return touched, "approximate" if self.learnt else "bit-exact", facts

    def _aggregate(self, models: list[Recommender | None], cells: csr_array, labels: NDArray[np.int64]) -> None:
        """Put a combiner, fitted anew, in place of the old one."""
        combiner = COMBINERS[self.combiner]()
        combiner.fit(self._parts(models, cells, labels), self.seed)
        self.aggregator = combiner

    def expected_cost(self, requests: int) -> ExpectedCost:
        """Return what it is expected to cost to forget some users, or cells where a shard has no whole users.

        Its points are cells visited, each counted in every epoch; of EASE and the kNN models, once a fit.

        Args:
            requests: how many, drawn at random.
        """
        cells = int((self.labels != HELD).sum())
        units = cells if self.owners is None else int(np.count_nonzero(np.diff(self.seen.indptr)))
        weights = sum(array.nbytes for model in self.models if model is not None for array in model.arrays().values())
        rounds = rounds_of(MODELS.build(self.base))
        return expected_cost(
            units, self.shards, self.slices, rounds, requests, weights // self.shards, points=cells / units
        )

    def storage_bytes(self) -> int:
        """Return the bytes of the fitted state: the models and checkpoints of all shards and the combiner."""
        return sum(array.nbytes for array in self.arrays().values())

    def arrays(self) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {"labels": self.labels, "learnt": np.array(self.learnt)}
        found |= {"places": self.places} if self.slices > 1 else {}
        found |= {} if self.owners is None else {"owners": self.owners}
        found |= {f"combiner.{name}": values for name, values in self.aggregator.arrays().items()}
        for shard, model in enumerate(self.models):
            if model is not None:
                found |= {f"shard{shard}.{name}": values for name, values in model.arrays().items()}
        for shard, states in enumerate(self.checkpoints):
            for number, state in enumerate(states):
                found |= {f"slice{number}.shard{shard}.{name}": values for name, values in state.items()}
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.labels, self.learnt = np.array(arrays["labels"]), bool(arrays["learnt"])
        self.places = np.array(arrays["places"]) if self.slices > 1 else np.zeros_like(self.labels)
        self.owners = np.array(arrays["owners"]) if "owners" in arrays else None
        self.aggregator = COMBINERS[self.combiner]()
        self.aggregator.restore(_below("combiner.", arrays))
        self.models = [self._restored(shard, _below(f"shard{shard}.", arrays)) for shard in range(self.shards)]
        self.checkpoints = [
            [_below(f"slice{number}.shard{shard}.", arrays) for number in range(self.slices - 1)]
            for shard in range(self.shards)
        ]

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
