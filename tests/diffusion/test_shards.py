"""Mixtures of models of shards, on exact components: their score along a walk, their density, their samples."""

import copy
import itertools

import pytest
import torch

import msgm
from msgm.diffusion import VE, VP, SamplingSettings, ScoreModel, Sharded, log_likelihood
from msgm.diffusion.guidance import ClassifierFree
from msgm.diffusion.restoration import inpaint
from msgm.diffusion.samplers import DDIM, SAMPLERS, Heun, Noise, ratio_grid, sigma_space
from msgm.diffusion.variational import variational_bound
from msgm.errors import UserError
from tests.helpers import Mixture

MEANS = [[-1.5, 0.0], [1.5, 0.5], [0.0, 2.0]]
ITEMS = [200, 500, 300]
MIXTURES = pytest.mark.parametrize("mixture", ["drawn", "posterior", "equal"])
WIDE = VE(sigma_max=1e5)
"""A process whose walks all begin where no component can be told from another."""


WIDTHS = [0.2, 0.4, 0.8]
"""Standard deviations of components whose eps differ in their divergence."""


def widths(std):
    return std if isinstance(std, list) else [std] * 3


def exact(std, process=WIDE):
    return Mixture(process, MEANS, widths(std), ITEMS)


def sharded(std=0.4, mixture="posterior", process=WIDE):
    parts = [Mixture(process, [mean], [width]) for mean, width in zip(MEANS, widths(std), strict=True)]
    return Sharded.of(parts, ITEMS, mixture)


def networks(mixture="drawn", count=2, **settings):
    given = {"network": "mlp", "process": "vp", "shape": (2,), "width": 8, "depth": 1} | settings
    return Sharded.of([ScoreModel.new(**given, seed=seed) for seed in range(count)], ITEMS[:count], mixture)


def errors(std, steps, mixture="posterior", sampler="ancestral", count=100, process=WIDE):
    """Relative errors of eps at all levels along walks of the mixture, (steps, B)."""
    model, whole, found = sharded(std, mixture, process), exact(std, process), []
    walk = model.for_walk(range(count))

    def eps(x, t, condition=None):
        made = type(model).eps(walk, x, t)
        right = whole.eps(x, t)
        found.append((made - right).norm(dim=1) / right.norm(dim=1).mean())
        return made

    view = Sharded.of(model.shards, ITEMS, mixture)
    view.for_walk = lambda seeds=None: view
    view.check_sampler = lambda sampler: None
    view.eps = eps
    view.sample(count, sampler, steps=steps, schedule="log")
    return torch.stack(found)


def test_the_posterior_of_the_path_gives_the_score_of_the_mixture_where_steps_are_exact():
    """An ancestral step of a model of one item is exact, so that the walk's posterior is that of x_t at any steps."""
    assert errors(1e-5, 20).mean() < 1e-4


def test_the_posterior_of_the_path_comes_nearer_with_more_steps():
    coarse, fine = (errors(0.4, steps).mean() for steps in (25, 250))
    assert fine < 0.002
    assert fine < coarse / 5


PATHS = [cls() for name, cls in SAMPLERS.entries.items() if name not in ("pf-ode-adaptive", "torchsde")]
PATHS += [DDIM(eta=1.0), DDIM(eta=0.5), Heun(churn=20.0)]


@pytest.mark.parametrize("sampler", PATHS, ids=str)
def test_the_posterior_of_the_path_holds_for_the_samplers_that_are_said_to_walk_the_reverse_sde(sampler):
    """Errors are near .01 there and fall with more steps; along other paths they are .05 at any number of steps."""
    found = errors(WIDTHS, 100, sampler=sampler, count=40, process=VE(sigma_max=300)).mean()
    assert (found < 0.02) == sampler.of_reverse_sde()


def test_along_a_walk_without_noise_the_rule_lacks_the_divergence():
    """Of Gaussians of variance v in D dimensions div eps = D rho / (v + rho^2), whose integral is their normaliser."""
    variances = torch.tensor([0.25, 0.64], dtype=torch.float64)
    model = Sharded.of([Mixture(WIDE, [[0.0, 0.0]], [float(v) ** 0.5]) for v in variances], [1, 1])
    walk, ratios = model.for_walk(range(5)), ratio_grid(WIDE, 1500, "log")
    y = ratios[0] * torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for now, then in itertools.pairwise([*ratios, ratios[-1]]):
        y = y + (then - now) * walk.eps(y, WIDE.time(torch.tensor([now], dtype=torch.float64)).expand(5))
    wide = variances + ratios[-1] ** 2
    exact = -0.5 * y.square().sum(1, keepdim=True) / wide
    found, right = (each[:, 0] - each[:, 1] for each in (walk.followed.log, exact))
    torch.testing.assert_close(found, right, atol=0.03, rtol=0.01)
    normalised = torch.log(wide[1] / wide[0])  # which ln p has beside, D / 2 times the logarithm
    assert normalised > 0.9


def test_the_shares_alone_give_the_score_at_large_noise_only():
    found = errors(0.4, 60, "equal").mean(1)
    assert found[0] < 1e-4
    assert found.max() > 0.3


def test_a_step_moves_the_weights_by_the_likelihoods_of_the_shards():
    model = sharded()
    walk, ratios = model.for_walk(range(6)), torch.tensor([2.0, 0.5], dtype=torch.float64)
    y = torch.randn(2, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    times = model.process.time(ratios)
    for state, time in zip(y, times, strict=True):
        walk.eps(model.process.signal(time) * state, time.expand(6))
    joint = torch.tensor(model.shares, dtype=torch.float64).log().expand(6, -1).clone()
    for number, shard in enumerate(model.shards):
        slope = shard.eps(model.process.signal(times[0]) * y[0], times[:1].expand(6))
        step = torch.distributions.Normal(y[0] - (4 - 0.25) / 2 * slope, 0.5 * (4 - 0.25) ** 0.5 / 2)
        joint[:, number] += step.log_prob(y[1]).sum(1)
    expected = joint.softmax(1).clamp_min(1e-6)
    torch.testing.assert_close(walk.followed.log.exp(), expected / expected.sum(1, keepdim=True))


@pytest.mark.parametrize("mixture", ["drawn", "posterior"])
def test_samples_have_the_shares_and_places_of_the_shards(mixture):
    found = sharded(0.1, mixture).sample(600, "ancestral", steps=60, schedule="log")
    distances = torch.cdist(found, torch.tensor(MEANS))
    assert (distances.amin(1) < 0.5).double().mean() > 0.98
    counts = distances.argmin(1).bincount(minlength=3) / 600
    torch.testing.assert_close(counts, torch.tensor([0.2, 0.5, 0.3]), atol=0.06, rtol=0)


def test_a_drawn_walk_is_that_of_its_shard_alone():
    model = networks()
    alone = [shard.sample(40, steps=4, seed=3) for shard in model.shards]
    found = model.sample(40, steps=4, seed=3)
    near = [torch.isclose(found, other, atol=1e-5).all(1) for other in alone]
    assert (near[0] ^ near[1]).all()
    assert 20 <= near[1].sum() <= 37
    torch.testing.assert_close(model.sample(10, steps=4, seed=3, first=30, batch_size=3), found[30:])


@MIXTURES
def test_samples_do_not_depend_on_the_batch_size(mixture):
    model = networks(mixture)
    torch.testing.assert_close(model.sample(7, "ancestral", 5, batch_size=2), model.sample(7, "ancestral", 5))


def test_samplers_with_steps_of_their_own_walk_drawn_shards_and_are_refused_a_path():
    found = sharded(0.4, "drawn").sample(30, "pf-ode-adaptive")
    settings = SamplingSettings("pf-ode-adaptive")
    assert torch.cdist(found, torch.tensor(MEANS)).amin(1).max() < 2
    torch.testing.assert_close(
        sharded(0.4, "drawn").sample(4, settings.build(), first=20), found[20:24], atol=1e-3, rtol=0
    )
    for sampler in ("pf-ode-adaptive", "ddim", "dpm++2m", "predictor-corrector"):
        with pytest.raises(UserError, match="path of the reverse SDE.* take .*ancestral.*, or the mixture drawn"):
            sharded(0.4, "posterior").sample(3, sampler)
        view = ClassifierFree(2.0).wrap(sharded(0.4, "posterior"))
        with pytest.raises(UserError, match="path of the reverse SDE"):
            view.check_sampler(SamplingSettings(sampler).build())
    with pytest.raises(UserError, match="path of the reverse SDE"):
        inpaint(sharded(), torch.zeros(2, 2), torch.tensor([True, False]), SamplingSettings("ddim", 3))
    sharded(0.4, "equal").sample(3, "ddim", steps=3)


@pytest.mark.parametrize("mixture", ["drawn", "posterior"])
def test_the_density_is_the_sum_of_the_shards_own(mixture):
    x = torch.tensor([[-1.4, 0.2], [1.2, 0.4], [0.1, 1.0]], dtype=torch.float64)
    found = log_likelihood(sharded(0.4, mixture, VP()), x)
    right = exact(0.4, VP()).log_density(x, torch.full((3,), VP().t_min))
    torch.testing.assert_close(found, right, atol=0.05, rtol=0)
    assert (log_likelihood(sharded(0.4, "equal", VP()), x) - right).abs().max() > 0.1


def test_the_variational_bound_is_that_of_the_mixture():
    models = [ScoreModel.new("unet", DDPM_SETTINGS, channels=[8], seed=seed) for seed in (0, 1)]
    items = msgm.load_dataset("digits").items[:2]
    nats = -64 * torch.log(torch.tensor(2.0)) * torch.stack([variational_bound(m, items, 17, terms=2) for m in models])
    right = torch.logsumexp(nats + torch.tensor([0.25, 0.75]).log()[:, None], 0) / (-64 * torch.log(torch.tensor(2.0)))
    torch.testing.assert_close(variational_bound(Sharded.of(models, [1, 3]), items, 17, terms=2), right)


DDPM_SETTINGS = {"name": "ddpm", "steps": 10, "beta_min": 1e-2, "beta_max": 0.5}


def test_without_a_walk_the_shares_are_the_weights():
    x, t = torch.randn(4, 2), torch.full((4,), 0.4)
    for mixture in ("drawn", "posterior", "equal"):
        model = networks(mixture)
        right = sum(share * shard.eps(x, t) for share, shard in zip(model.shares, model.shards, strict=True))
        torch.testing.assert_close(model.eps(x, t), right)
        torch.testing.assert_close(sigma_space(model)(x, 0.5), sigma_space(networks("equal"))(x, 0.5))
        noise, signal = model.process.noise(t)[:, None], model.process.signal(t)[:, None]
        torch.testing.assert_close(model.denoise(x, t), (x - noise * right) / signal)


def test_a_hole_is_filled_by_a_shard_that_its_seed_draws():
    model = networks("drawn")
    x, known = torch.zeros(6, 2), torch.tensor([True, False])
    settings = SamplingSettings(steps=3)
    found = inpaint(model, x, known, settings)
    alone = [inpaint(shard, x, known, settings) for shard in model.shards]
    draws = sum(torch.isclose(found, other).all(1) for other in alone)
    assert draws.min() >= 1


@MIXTURES
def test_a_saved_mixture_is_read_back_as_it_was(mixture, tmp_path):
    model = networks(mixture, classes=3)
    model.save(tmp_path / "model")
    again = ScoreModel.load(tmp_path / "model")
    assert (again.mixture, again.items, again.classes, len(again.shards)) == (mixture, (200, 500), 3, 2)
    read = msgm.ScoreModel.from_pretrained(tmp_path / "model")
    for other in (again, read, copy.deepcopy(model)):
        assert torch.equal(other.sample(5, "ancestral", 3, condition=1), model.sample(5, "ancestral", 3, condition=1))
    model.save_pretrained(tmp_path / "shown")
    assert "2 shards" in repr(msgm.ScoreModel.from_pretrained(tmp_path / "shown"))


def test_a_change_of_the_networks_is_one_of_the_shards():
    model = copy.deepcopy(networks())
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(0.5)
    x, t = torch.randn(2, 2), torch.full((2,), 0.4)
    assert not torch.allclose(model.eps(x, t), networks().eps(x, t))
    torch.testing.assert_close(networks().with_network(model.network).eps(x, t), model.eps(x, t))
    assert model.parameter_count() == 2 * model.shards[0].parameter_count()


def test_models_that_do_not_fit_are_refused():
    one, other = networks().shards[0], ScoreModel.new("mlp", "ve", shape=(2,))
    with pytest.raises(UserError, match="differ in process"):
        Sharded.of([one, other], [1, 1])
    with pytest.raises(UserError, match="1 or more, for each of 2 models"):
        Sharded.of([one, one], [1, 0])


def test_a_walks_noise_names_its_trajectories():
    noise = Noise(0, range(50), (2,), torch.device("cpu"))
    eps = sigma_space(sharded(0.4, "drawn"), None, noise.seeds)
    y = torch.zeros(50, 2)
    assert 1 < len(torch.unique(eps(y, 0.5), dim=0)) <= 3
    torch.testing.assert_close(eps(y[:5], 0.5, torch.arange(20, 25)), eps(y, 0.5)[20:25])
