r"""One model trained on groups of users in turn, and rolled back (LASER: Li et al., Knowledge-Based Systems 2024).

Users are grouped by taste: balanced clusters of vectors that a model learnt. Groups are ordered from easy to hard, by
falling cohesion (mean cosine of the members' vectors with their centroid), and one model learns them in stages: stage s
starts from the weights of stage s - 1 and trains on groups 1 to s. Each stage is checkpointed. To forget, the model
returns to the checkpoint before the first group that loses a cell and replays the later stages without it: on average
about half of the stages for one user, nearly all for many.

A replay equals, bit for bit, training from that checkpoint, which never saw the forgotten cells. But the groups and
their order were computed from them, so the answer is ``approximate``. ``refit`` groups anew.

Deviations: plain vectors of a factor model in place of a hypergraph's; a stage trains on all groups so far, not on the
new one alone, as alternating least squares would drop the others'; the replay is run in full, without early stopping
and without moving parameters towards where they were. Optimisers start afresh with every stage.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.checks import at_least
from msgm.errors import UserError
from msgm.fields import Settings
from msgm.recommender.models.base import MODELS, Recommender
from msgm.recommender.requests import Deletion
from msgm.recommender.sharding.balanced import Space, balanced_clusters
from msgm.recommender.sharding.partitions import pretrained
from msgm.recommender.sharding.stages import WARM, State, take, train_stages
from msgm.recommender.sparse import kept
from msgm.seeding import derive_seed


@MODELS.register("sequential")
@dataclass
class SequentialRecommender(Recommender):
    """A recommender trained in stages.

    Example:
        >>> model = msgm.recommender.SequentialRecommender().fit(matrix)
        >>> ids, scores = model.recommend(0, N=5)
        >>> answer = model.forget(users=[3])

    Attributes:
        base: settings of the model, with the name; a stage takes ``rounds`` sweeps or epochs of it.
        stages: number of groups, and of stages.
        rounds: of a stage.
    """

    base: Settings = field(default_factory=lambda: {"name": "als"})
    stages: int = 10
    rounds: int = 2

    def __post_init__(self) -> None:
        at_least(1, self, "model", "stages", "rounds")
        if MODELS.build(self.base, "model.base").name not in WARM:
            raise UserError(f"model.base.name: {self.base['name']} cannot train on; allowed: {', '.join(WARM)}.")

    def _fit(self) -> None:
        if self.stages > self.seen.shape[0]:
            raise UserError(f"stages must be at most the number of users, {self.seen.shape[0]}; got {self.stages}.")
        self.groups = curriculum(self.seen, self.stages, self.seed)
        self.model, self.checkpoints = self._train(self.seen, self.times, [])

    def _train(
        self, cells: csr_array, times: NDArray[np.int64] | None, states: list[State]
    ) -> tuple[Recommender, list[State]]:
        """Run the stages after the given states; return the model, and the states of all stages."""
        model, rounds = self._model(), [self.rounds] * self.stages
        found, _ = train_stages(model, rounds, np.repeat(self.groups, np.diff(cells.indptr)), cells, times, states)
        return model, found

    def _model(self) -> Recommender:
        model = MODELS.build(self.base)
        model.seed = derive_seed(self.seed, "sequential")
        return model

    def score(self, users: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        return self.model.score(users)

    def _forget(self, deletion: Deletion) -> tuple[int, str, dict[str, Any]]:
        gone = deletion.mask(self.seen)
        if not gone.any():
            return 0, "approximate", {"first_stage": None, "stages_replayed": 0}
        first = int(np.repeat(self.groups, np.diff(self.seen.indptr))[gone].min())
        rest, times = kept(self.seen, ~gone), None if self.times is None else self.times[~gone]
        self.model, self.checkpoints = self._train(rest, times, self.checkpoints[:first])
        return sum(rest.shape), "approximate", {"first_stage": first, "stages_replayed": self.stages - first}

    def storage_bytes(self) -> int:
        """Return the bytes of the fitted state: the model and the checkpoints of all stages."""
        return sum(array.nbytes for array in self.arrays().values())

    def arrays(self) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {"groups": self.groups}
        for stage, arrays in enumerate(self.checkpoints):
            found |= {f"stage{stage}.{name}": values for name, values in arrays.items()}
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.groups = np.array(arrays["groups"])
        prefixes = [f"stage{stage}." for stage in range(self.stages)]
        self.checkpoints = [
            {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
            for prefix in prefixes
        ]
        self.model = self._model()
        take(self.model, self.checkpoints[-1], self.seen, self.times)


def curriculum(matrix: csr_array, stages: int, seed: int) -> NDArray[np.int64]:
    """Return (U,) the stage at which every user comes in: of balanced clusters, the most cohesive first."""
    vectors = pretrained(matrix, seed)[0]
    everyone = Space(vectors, np.arange(len(vectors)))
    rng = np.random.default_rng(derive_seed(seed, "curriculum"))
    labels = balanced_clusters([everyone], np.ones(len(vectors)), stages, rng)
    centroids = everyone.means(labels, np.zeros((stages, vectors.shape[1])))[labels]
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(centroids, axis=1)
    cosines = (vectors * centroids).sum(axis=1) / np.maximum(norms, 1e-12)
    sizes = np.bincount(labels, minlength=stages)
    cohesion = np.bincount(labels, cosines, stages) / np.maximum(sizes, 1)
    place = np.empty(stages, dtype=np.int64)
    place[np.argsort(-cohesion, kind="stable")] = np.arange(stages)
    return place[labels]
