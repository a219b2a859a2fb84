"""The peak of what operations allocate."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from msgm.generator.allocated import Allocated


def test_what_lives_at_a_time_is_counted_and_what_was_there_is_not():
    before = torch.zeros(1000)
    with Allocated() as count:
        before.add_(1).view(10, 100)[0].neg_()
        assert count.peak == 0
        kept = before * 2
        for _ in range(5):
            passing = kept + 1
        assert (count.live, count.peak) == (2 * 4000, 3 * 4000)
        del passing
    assert (count.live, count.peak) == (4000, 3 * 4000)


def test_the_graph_holds_what_it_saves_and_a_checkpoint_only_its_inputs():
    blocks = [nn.Sequential(nn.Linear(8, 512), nn.SiLU(), nn.Linear(512, 8)) for _ in range(4)]
    inner, outer = 4 * 32 * 512, 4 * 32 * 8
    peaks = {}
    for anew in (False, True):
        x = torch.ones(32, 8)
        with Allocated() as count:
            for block in blocks:
                x = checkpoint(block, x, use_reentrant=False) if anew else block(x)
            held = (count.live - count.live % outer) // inner
            x.sum().backward()
        peaks[anew] = count.peak
        assert held == (0 if anew else 2 * len(blocks))
        for block in blocks:
            block.zero_grad()
    # Without, all blocks' two inner layers live at once; with, those of one block.
    assert peaks[False] > 8 * inner
    assert 2 * inner < peaks[True] < 5 * inner
