"""Noised training batches: every random number is drawn for the global batch and sliced by process.

The draws of step s and stream q come from the generator (seed, q, s), so that losses do not depend on the number of
processes or of accumulated parts, and a resumed run sees what an uninterrupted one would have seen.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from msgm.data import Feed, dequantise
from msgm.diffusion import Process
from msgm.objectives import Noised, noised
from msgm.seeding import generator


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


def noised_parts(process: Process, feed: Feed, raw: Tensor, seed: int, step: int, parts: int) -> Iterator[Noised]:
    """Noise this process's share ``raw`` of step ``step``'s batch and yield it in ``parts`` equal parts."""
    draws = generator(seed, feed.stream, step, device=feed.device)
    x0 = clean(feed, raw, draws)
    t = process.training_times(share(feed, torch.rand, (), draws))
    eps = share(feed, torch.randn, x0.shape[1:], draws)
    size = len(x0) // parts
    for start in range(0, len(x0), size):
        rows = slice(start, start + size)

        def uniform(rows: slice = rows, shape: torch.Size = x0.shape[1:]) -> Tensor:
            own = generator(seed, feed.stream, "uniform", step, device=feed.device)
            return share(feed, torch.rand, shape, own)[rows]

        yield noised(process, x0[rows], t[rows], eps[rows], uniform)
