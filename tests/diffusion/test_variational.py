import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from msgm.data.pixels import dequantise
from msgm.diffusion import DDPM, VE, VP, ScoreModel, SubVP
from msgm.diffusion.variational import _decoder_term, _strata, variational_bound
from msgm.errors import UserError
from tests.helpers import Counted, Mixture

BIT = math.log(2)


def even_ddpm(steps, low=0.01, high=30.0):
    """A DDPM whose noise ratios are even in their logarithm."""
    kept = 1 / (1 + torch.logspace(math.log10(low), math.log10(high), steps, dtype=torch.float64) ** 2)
    betas = 1 - kept / torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    return DDPM(betas=tuple(betas.tolist()))


class Constant(ScoreModel):
    """Always guesses the same image, so that its bound does not depend on the noise."""

    def __init__(self, process, guess):
        self.guess = guess
        super().__init__(nn.Linear(1, 1), process, tuple(guess.shape))

    def denoise(self, x, t, condition=None):
        return self.guess.to(x).expand_as(x)


def draw_levels(levels, *shape):
    return torch.randint(levels, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("process", [DDPM(steps=6, beta_min=0.01, beta_max=0.5), DDPM(50, "squaredcos_cap_v2")])
def test_it_is_the_sum_of_ho_et_als_terms(process, levels):
    items, guess = draw_levels(levels, 3, 4), torch.tensor([-0.9, -0.2, 0.1, 0.8])
    x, betas = dequantise(items, levels).double(), torch.diff(process._integrals).neg().expm1().neg()
    kept = torch.cumprod(1 - betas, 0)
    noisy = torch.randn(3, 4, dtype=torch.float64)

    def posterior(x, t):
        """Equation 7; t counts from 0."""
        before, whole = kept[t - 1], 1 - kept[t]
        centre = before.sqrt() * betas[t] / whole * x + (1 - betas[t]).sqrt() * (1 - before) / whole * noisy
        return Normal(centre, ((1 - before) / whole * betas[t]).sqrt())

    last = kl_divergence(Normal(kept[-1].sqrt() * x, (1 - kept[-1]).sqrt()), Normal(0.0, 1.0))
    steps = sum(kl_divergence(posterior(x, t), posterior(guess.double(), t)) for t in range(1, process.steps))
    first = _decoder_term(process, guess.expand(3, 4), items, levels)
    expected = ((last + steps).sum(1) + first) / (4 * BIT)
    found = variational_bound(Constant(process, guess), items, levels)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_decoder_is_a_distribution_over_levels(levels):
    items = torch.arange(levels)[:, None]
    for mean in (-1.0, -0.03, 0.999):
        masses = torch.exp(-_decoder_term(DDPM(), torch.full((levels, 1), mean), items, levels))
        assert masses.sum().item() == pytest.approx(1, abs=1e-6)


def test_the_decoder_integrates_the_bin():
    process, items, mean = DDPM(steps=10, beta_min=0.01, beta_max=0.5), torch.arange(17)[:, None], 0.12
    normal = Normal(torch.tensor(mean, dtype=torch.float64), 0.1)
    edges = torch.linspace(-1, 1, 18, dtype=torch.float64)
    mass = normal.cdf(edges[1:]) - normal.cdf(edges[:-1])
    mass[0], mass[-1] = normal.cdf(edges[1]), 1 - normal.cdf(edges[-2])
    found = _decoder_term(process, torch.full((17, 1), mean), items, 17)
    torch.testing.assert_close(torch.exp(-found), mass, rtol=1e-4, atol=1e-9)


def test_the_decoder_stays_finite_far_from_the_mean():
    found = _decoder_term(DDPM(), torch.tensor([[-1.0], [1.0]]), torch.tensor([[254], [1]]), 256)
    assert found.isfinite().all()
    torch.testing.assert_close(found[:1], found[1:], rtol=1e-6, atol=0)


def gaussian_gap(steps, levels, count=400, **settings):
    """The mean bound less the entropy of a quantised Gaussian under its exact score, in bits/dim, and its error."""
    model = Mixture(even_ddpm(steps), torch.zeros(1, 4), [0.3])
    values = model.draw(count)
    items = ((values + 1) * levels / 2).floor().clamp(0, levels - 1).long()
    normal, edges = Normal(0.0, 0.3), torch.linspace(-1, 1, levels + 1, dtype=torch.float64)
    edges[0], edges[-1] = -math.inf, math.inf
    exact = -torch.log2(torch.diff(normal.cdf(edges)))[items].mean(1)
    gaps = variational_bound(model, items, levels, **settings) - exact
    return gaps.mean().item(), (gaps.std() / math.sqrt(count)).item()


def test_the_bound_of_a_gaussian_lies_above_its_nll_and_tightens_with_the_steps():
    few, few_error = gaussian_gap(40, 256)
    many, many_error = gaussian_gap(500, 256)
    assert few > 4 * few_error
    assert many > -4 * many_error
    assert many < 0.3
    assert few > 2 * many


@pytest.mark.parametrize("levels", [17, 64])
def test_the_bound_holds_for_other_levels(levels):
    gap, error = gaussian_gap(100, levels)
    assert gap > -4 * error


def test_terms_are_cut_into_even_strata():
    assert list(_strata(8, 7)) == [(t, t + 1) for t in range(2, 9)]
    assert list(_strata(8, 1)) == [(2, 9)]
    for terms in (3, 10, 700):
        runs = list(_strata(1000, terms))
        sizes = [high - low for low, high in runs]
        assert (runs[0][0], runs[-1][1], len(runs), sum(sizes)) == (2, 1001, terms, 999)
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("terms", [1, 7])
def test_a_stratified_subset_is_unbiased(terms):
    model = Constant(DDPM(steps=30, beta_min=0.01, beta_max=0.3), torch.zeros(2))
    items = torch.tensor([[3, 12]]).expand(3000, 2)
    exact = variational_bound(model, items[:1], 17)
    few = variational_bound(model, items, 17, terms=terms)
    error = few.std() / math.sqrt(3000)
    assert error > 0
    assert abs(few.mean() - exact) < 4 * error


def test_more_terms_spread_less():
    model = Constant(DDPM(steps=100), torch.zeros(2))
    items = torch.tensor([[3, 12]]).expand(200, 2)
    spreads = [variational_bound(model, items, 17, terms=n).std() for n in (4, 40, 99)]
    assert spreads[0] > 2 * spreads[1]
    assert spreads[2] < 1e-6


def test_each_term_is_one_evaluation():
    network = Counted().train()
    model = ScoreModel(network, DDPM(steps=20), (3,))
    values = variational_bound(model, draw_levels(17, 4, 3), 17, terms=6)
    assert network.calls == 7
    assert network.training
    assert (values.dtype, values.shape, values.requires_grad) == (torch.float64, (4,), False)


def test_values_do_not_depend_on_batch_size_or_batch_mates():
    model, items = Mixture(DDPM(steps=20), torch.zeros(1, 4), [0.3]), draw_levels(17, 6, 4)
    whole = variational_bound(model, items, 17, terms=5)
    torch.testing.assert_close(variational_bound(model, items, 17, terms=5, batch_size=4), whole)
    mates = torch.cat([items[:2], 16 - items[2:]])
    torch.testing.assert_close(variational_bound(model, mates, 17, terms=5)[:2], whole[:2])


def test_noise_follows_the_seed_and_the_item():
    model, items = Mixture(DDPM(steps=20), torch.zeros(1, 4), [0.3]), torch.full((5, 4), 8)
    same, again, other = (variational_bound(model, items, 17, seed) for seed in (0, 0, 1))
    assert torch.equal(same, again)
    assert (same - other).abs().min() > 1e-6
    assert same.unique().numel() == 5


@pytest.mark.parametrize("process", [VE(), VP(), SubVP()], ids=lambda process: process.name)
def test_a_process_in_continuous_time_has_no_bound(process):
    with pytest.raises(UserError, match=rf"^variational bound: process '{process.name}' is continuous.*\.$"):
        variational_bound(ScoreModel(Counted(), process, (3,)), draw_levels(17, 2, 3), 17)


@pytest.mark.parametrize("terms", [0, 20])
def test_terms_out_of_range_are_refused(terms):
    with pytest.raises(UserError, match=rf"terms must lie in 1 \.\. 19, got {terms}\."):
        variational_bound(ScoreModel(Counted(), DDPM(steps=20), (3,)), draw_levels(17, 2, 3), 17, terms=terms)
