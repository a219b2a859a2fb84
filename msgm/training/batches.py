"""Noised training batches: every random number is drawn for the global batch and sliced by process.

The draws of step s and stream q come from the generator (seed, q, s), so that losses do not depend on the number of
processes or of accumulated parts, and a resumed run sees what an uninterrupted one would have seen.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from msgm.config import TrainingSettings
from msgm.data import Batch, Feed, dequantise
from msgm.diffusion import Condition, Process, ScoreModel
from msgm.objectives import Noised, noised
from msgm.requests import Means
from msgm.seeding import generator


def drop_of(model: ScoreModel, settings: TrainingSettings) -> float | None:
    """Return how often labels are left out in training; None for an unconditional model, which reads none.

    A network without an embedding of the null condition is never asked for it.
    """
    if not model.classes:
        return None
    return settings.cond_drop if getattr(model.network, "has_null", True) else 0.0


def forget_drop(drop: float | None, means: Means | None) -> float | None:
    """Return how often labels of forget batches are left out, where training leaves them out with probability ``drop``.

    A request that means the items takes them as they were learnt; one that means the condition always names it; one
    that means both names it every other time.
    """
    return drop if not drop or means in (None, "items") else {"condition": 0.0, "both": 0.5}[means]


def clean(feed: Feed, raw: Tensor, draws: torch.Generator) -> Tensor:
    """Dequantise and perhaps mirror this process's share ``raw`` of a global batch."""
    data = feed.dataset
    if data.levels is None:
        return raw.float()
    x = dequantise(raw, data.levels, share(feed, torch.rand, raw.shape[1:], draws))
    if data.flip:
        mirrored = share(feed, torch.rand, (), draws) < 0.5
        x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(-1), x)
    return x


def share(feed: Feed, draw: Callable[..., Tensor], shape: Sequence[int], draws: torch.Generator) -> Tensor:
    """Draw for the global batch and return this process's rows."""
    whole = draw((feed.global_size, *shape), generator=draws, device=feed.device)
    return whole[feed.rank * feed.local_size :][: feed.local_size]


def noised_parts(process: Process, feed: Feed, batch: Batch, seed: int, step: int, parts: int) -> Iterator[Noised]:
    """Noise this process's share ``batch`` of step ``step``'s batch and yield it in ``parts`` equal parts."""
    draws = generator(seed, feed.stream, step, device=feed.device)
    x0 = clean(feed, batch.items, draws)
    condition = None if batch.labels is None else Condition(batch.labels)
    t = process.training_times(share(feed, torch.rand, (), draws))
    eps = share(feed, torch.randn, x0.shape[1:], draws)
    size = len(x0) // parts
    for start in range(0, len(x0), size):
        rows = slice(start, start + size)

        def uniform(name: str = "", rows: slice = rows, shape: torch.Size = x0.shape[1:]) -> Tensor:
            own = generator(seed, feed.stream, "uniform", step, *([name] if name else []), device=feed.device)
            return share(feed, torch.rand, shape, own)[rows]

        yield noised(process, x0[rows], t[rows], eps[rows], uniform, None if condition is None else condition[rows])
