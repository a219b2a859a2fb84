"""Training in stages: every stage takes in more cells, starts from where the last one ended, and leaves its state.

Each cell has a stage at which it comes in, so that the state after a stage is a function of the seed and of the cells
of this stage and those before it alone. To forget cells is to go back to the last state before the first of them and
to run the later stages again without them: the same, bit for bit, as if they had never been there. Optimisers and
schedules start afresh with every stage, in the first training and when it is run again alike.

Groups of users in LASER and slices of shards in SISA are such stages.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.recommender.models.alternating import Alternating
from msgm.recommender.models.base import Recommender
from msgm.recommender.models.torch_base import TorchRecommender
from msgm.recommender.sparse import kept

WARM = ("als", "bpr", "lightgcn", "mult-vae")
"""Models that can train on from where they stand."""
State = dict[str, NDArray[Any]]
"""Arrays of a model after a stage; empty where it had no cell yet."""


def rounds_of(model: Recommender) -> int:
    """Return how often a fit goes through the cells: epochs, sweeps, or once."""
    if isinstance(model, Alternating):
        return model.sweeps
    return model.epochs if isinstance(model, TorchRecommender) else 1


def train_stages(
    model: Recommender,
    rounds: Sequence[int],
    stages: NDArray[np.int64],
    cells: csr_array,
    times: NDArray[np.int64] | None,
    states: Sequence[State],
) -> tuple[list[State], int]:
    """Run the stages after the given ``states``; ``model`` is left as the last stage made it.

    Args:
        model: one of WARM, with its seed set.
        rounds: epochs or sweeps of every stage.
        stages: (nnz,) stage at which each of the cells comes in, from 0.
        cells: (U, I) of all stages.
        times: (nnz,) of the cells; None if not known.
        states: of the first stages, which are not run.

    Returns:
        the states of all stages, and the cells visited: those of each stage that was run, times its rounds.
    """
    found, visited = list(states), 0
    for number in range(len(found), len(rounds)):
        mine = stages <= number
        part, part_times = kept(cells, mine), None if times is None else times[mine]
        if found and found[-1]:
            take(model, found[-1], part, part_times)
            _train_on(model, rounds[number], number)
        elif part.nnz:
            _begin(model, rounds[number], part, part_times)
        found.append({name: values.copy() for name, values in model.arrays().items()} if part.nnz else {})
        visited += rounds[number] * part.nnz
    return found, visited


def take(model: Recommender, state: State, cells: csr_array, times: NDArray[np.int64] | None) -> None:
    """Put a model into a state, with these cells, and nobody forgotten."""
    model.seen, model.times = cells, times
    model.gone_users, model.gone_items = np.zeros(cells.shape[0], dtype=bool), np.zeros(cells.shape[1], dtype=bool)
    model.restore(state)


def _begin(model: Recommender, rounds: int, cells: csr_array, times: NDArray[np.int64] | None) -> None:
    if isinstance(model, Alternating):
        model.sweeps = rounds
    elif isinstance(model, TorchRecommender):
        model.epochs = rounds
    model.fit(cells, model.seed, times)


def _train_on(model: Recommender, rounds: int, stage: int) -> None:
    """Train a model on its ``seen`` from where it stands."""
    if isinstance(model, Alternating):
        model.sweep(model.halves(model.seen), rounds)
    elif isinstance(model, TorchRecommender):
        model.train(rounds, f"stage {stage}")
