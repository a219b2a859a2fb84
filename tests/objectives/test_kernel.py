"""The diffused kernel density of a set of items, against closed forms."""

import math

import pytest
import torch

from msgm.diffusion import VE, VP
from msgm.objectives import kernel, noised
from msgm.objectives.kernel import KernelDensity, leave_one_out_bandwidth
from tests.helpers import PROCESS_CASES, Mixture


def items(count=40, dims=3, seed=0):
    return torch.randn(count, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def points(process, count=6, dims=3):
    g = torch.Generator().manual_seed(1)
    x0, eps = (torch.randn(count, dims, generator=g, dtype=torch.float64) for _ in range(2))
    return noised(process, x0, torch.tensor([0.001, 0.02, 0.1, 0.3, 0.6, 1.0], dtype=torch.float64), eps)


@pytest.mark.parametrize("process", PROCESS_CASES.values(), ids=PROCESS_CASES)
@pytest.mark.parametrize("bandwidth", [0.05, 0.4])
def test_it_is_the_mixture_of_gaussians_around_the_items(process, bandwidth):
    bank, batch = items(), points(process)
    exact = Mixture(process, bank, torch.full((len(bank),), bandwidth)).eps(batch.x, batch.t)
    torch.testing.assert_close(KernelDensity(bank, bandwidth).eps(batch), exact, rtol=1e-4, atol=1e-6)


def test_it_is_the_gradient_of_the_log_density():
    bank, batch = items(), points(VP())
    model, x = Mixture(VP(), bank, torch.full((len(bank),), 0.3)), batch.x.clone().requires_grad_(True)
    (score,) = torch.autograd.grad(model.log_density(x, batch.t).sum(), x)
    torch.testing.assert_close(KernelDensity(bank, 0.3).eps(batch), -batch.noise * score, rtol=1e-4, atol=1e-6)


def test_it_is_bounded_by_the_distance_over_twice_the_bandwidth():
    batch = noised(VE(sigma_min=0.001), torch.full((1000, 2), 3.0), torch.linspace(1e-4, 1, 1000), torch.zeros(1000, 2))
    bank = torch.zeros(1, 2)
    reach = 3.0 / (2 * 0.25)
    assert KernelDensity(bank, 0.25).eps(batch).abs().max() <= reach * (1 + 1e-5)
    assert KernelDensity(bank, 0.25).eps(batch).abs().max() > 0.99 * reach
    assert KernelDensity(bank, 0.0).eps(batch).abs().max() > 100 * reach


def test_it_carries_no_gradient():
    assert not KernelDensity(items().requires_grad_(True), 0.1).eps(points(VP())).requires_grad


def test_blocks_give_what_one_block_gives(monkeypatch):
    density, batch = KernelDensity(items(), 0.2), points(VP())
    whole = density.eps(batch)
    monkeypatch.setattr(kernel, "ENTRIES", 80)  # two points a block
    torch.testing.assert_close(density.eps(batch), whole, rtol=1e-12, atol=1e-12)


def log_likelihood(bank, width):
    """Mean log density of each item under the kernels of the others."""
    squares = torch.cdist(bank, bank).square().fill_diagonal_(math.inf)
    dims = bank.shape[1]
    normal = -squares / (2 * width**2) - 0.5 * dims * math.log(2 * math.pi * width**2)
    return float((normal.logsumexp(1) - math.log(len(bank) - 1)).mean())


@pytest.mark.parametrize("dims", [1, 4])
def test_the_bandwidth_has_the_highest_leave_one_out_likelihood(dims):
    bank = items(300, dims)
    found = leave_one_out_bandwidth(bank)
    best = log_likelihood(bank, found)
    for factor in (0.5, 0.8, 0.95, 1.05, 1.25, 2.0):
        assert log_likelihood(bank, found * factor) < best


def test_of_two_items_the_bandwidth_is_their_distance_per_dimension():
    assert leave_one_out_bandwidth(torch.tensor([[0.0, 0.0], [3.0, 4.0]])) == pytest.approx(5 / math.sqrt(2))


def test_the_bandwidth_scales_with_the_items_and_ignores_where_they_lie():
    bank = items(200)
    assert leave_one_out_bandwidth(7 * bank + 100) == pytest.approx(7 * leave_one_out_bandwidth(bank), rel=1e-3)


def test_copies_of_items_do_not_narrow_the_bandwidth():
    bank = items(200)
    assert leave_one_out_bandwidth(torch.cat([bank, bank])) == pytest.approx(leave_one_out_bandwidth(bank), rel=0.02)


def test_where_all_items_are_one_there_is_no_bandwidth():
    assert leave_one_out_bandwidth(torch.ones(20, 3)) == 0.0


def test_of_many_items_the_first_ones_are_scored_against_all(monkeypatch):
    bank = items(400)
    whole = leave_one_out_bandwidth(bank)
    monkeypatch.setattr(kernel, "QUERIES", 150)
    assert leave_one_out_bandwidth(bank) == pytest.approx(whole, rel=0.1)
    moved = torch.cat([bank[:150], bank[150:] + 1000])
    assert leave_one_out_bandwidth(moved) == pytest.approx(leave_one_out_bandwidth(bank[:150]), rel=1e-3)
