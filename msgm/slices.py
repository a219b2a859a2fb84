r"""Shards trained slice by slice: the epochs of each slice's stage, and what forgetting is expected to cost.

Bourtoule et al., "Machine Unlearning", IEEE S&P 2021 (arXiv 1912.03817), section 4. The N items lie in S shards, each
of R slices, by a draw that reads none of them. Stage r of a shard trains on its slices 1..r, and a checkpoint is kept
before each, so that an item of slice j is forgotten by running stages j..R of its shard again.

The expected cost is that of K uniform requests, known before anything is trained. With p_r = rN / (RS) items below
slice r of a shard and e_r epochs at its stage, a stage runs again if an item below its slice is forgotten:

    one by one:  sum_r e_r (r/R) (p_r - 1) (K - K (K - 1) / (2 (N - 1)))
    one batch:   sum_r e_r (S p_r (1 - (1 - r/(RS))^K) - K r/R)

With one slice and one epoch these are K (N/S - 1 + 1/(2S)) - K^2 / (2S), up to terms of order K^2/N, and
N (1 - (1 - 1/S)^K) - K: a batch of K ~ S requests touches most shards, so SISA helps below a few S. Slices save at most
a third more: the stages to run again after one request are a share 2/3 + 1/(3R) of a shard's training.
"""

from dataclasses import dataclass
from itertools import pairwise

from msgm.errors import UserError


def stage_epochs(
    epochs: int, slices: int, of_slices: str = "sisa.slices", of_epochs: str = "training.epochs"
) -> list[int]:
    """Return the epochs of each slice's stage, so that all visit as many points as ``epochs`` over the whole shard.

    Stage r has floor(r e) - floor((r - 1) e) of them, with e = 2 epochs / (R + 1).

    Args:
        epochs: of the whole training, e'.
        slices: R.
        of_slices: the setting of the slices, for the error.
        of_epochs: the setting of the epochs.

    Raises:
        UserError: a stage would have none.
    """
    if 2 * epochs < slices + 1:
        raise UserError(
            f"{of_slices} {slices} need at least {-(-(slices + 1) // 2)} {of_epochs}, so that every slice has one; "
            f"got {epochs}."
        )
    ends = [2 * epochs * number // (slices + 1) for number in range(slices + 1)]
    return [end - start for start, end in pairwise(ends)]


@dataclass(frozen=True)
class ExpectedCost:
    """Expected cost of K uniform requests, in points visited (an item, or a part of one, once forward and backward).

    Attributes:
        training: of the first training.
        stream: of the requests one by one.
        batch: of the requests all at once.
        retraining: of one model retrained on the retained items, with as many epochs as ``training``.
        share: of a shard's training that one request runs again, 2/3 + 1/(3R).
        shards: touched by the batch, on average.
        checkpoints: kept, S R.
        storage_bytes: of these.
        forward_passes: of a prediction, S.
    """

    training: float
    stream: float
    batch: float
    retraining: float
    share: float
    shards: float
    checkpoints: int
    storage_bytes: int
    forward_passes: int


def expected_cost(
    items: int, shards: int, slices: int, epochs: int, requests: int, model_bytes: int = 0, points: float = 1.0
) -> ExpectedCost:
    """Return the expected cost of K uniform requests.

    Args:
        items: N.
        shards: S.
        slices: R.
        epochs: e', passes of the whole training.
        requests: K, below N.
        model_bytes: of one checkpoint.
        points: of an item; their mean where items differ, as users do in their interactions.

    Raises:
        UserError: ``epochs`` are too few for the slices.
    """
    n, s, k = float(items), float(shards), float(requests)
    stages = list(enumerate(stage_epochs(epochs, slices), start=1))
    below = {r: r * n / (slices * s) for r, _ in stages}
    left = k - k * (k - 1) / (2 * max(n - 1, 1))
    return ExpectedCost(
        training=points * sum(e * s * below[r] for r, e in stages),
        stream=points * sum(e * r / slices * (below[r] - 1) * left for r, e in stages),
        batch=points * sum(e * (s * below[r] * (1 - (1 - r / (slices * s)) ** k) - k * r / slices) for r, e in stages),
        retraining=points * epochs * (n - k),
        share=2 / 3 + 1 / (3 * slices),
        shards=s * (1 - (1 - 1 / s) ** k),
        checkpoints=shards * slices,
        storage_bytes=shards * slices * model_bytes,
        forward_passes=shards,
    )
