import itertools
import math

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from msgm.diffusion import DDPM, SAMPLERS, VE, VP, SamplingSettings, ScoreModel, sample
from msgm.diffusion.samplers import Grid, ratio_grid
from msgm.errors import UserError
from tests.helpers import PROCESS_CASES, Counted, Mixture

CASES = pytest.mark.parametrize("process", PROCESS_CASES.values(), ids=PROCESS_CASES)
NAMES = pytest.mark.parametrize("name", SAMPLERS.entries)
STEPS = {"euler-maruyama": 600, "heun": 100, "dpm++2m": 100, "pf-ode": 40}


def two_bumps(process):
    return Mixture(process, [[-1.0, 0.5], [1.0, 0.2]], [0.4, 0.3], [1.0, 2.0])


def exact_eps(model):
    """The model's eps in sigma-space, in float64 throughout."""
    space = Mixture(VE(), model.means, model.stds, model.weights)
    return lambda y, ratio: space.eps(y, VE().time(torch.full((len(y),), ratio, dtype=torch.float64)))


def start_noise(process, count):
    scale = process.prior_std / process.signal(torch.ones(1, dtype=torch.float64))
    return scale * torch.randn(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def run(name, eps, start, process, ratios, noise=None, **options):
    return SAMPLERS.build({"name": name, **options}).run(eps, start, Grid(process, ratios), noise, lambda state: None)


def solve(name, process, steps, start):
    ratios = [*ratio_grid(process, steps, SAMPLERS.entries[name].schedule), 0.0]
    return run(name, exact_eps(two_bumps(process)), start, process, ratios)


@NAMES
@CASES
def test_samples_have_the_mean_and_std_of_the_data(process, name):
    mean, std, dims, count = 0.3, 0.6, 400, 64
    model = Mixture(process, torch.full((1, dims), mean), [std])
    x = sample(model, count, SamplingSettings(name, STEPS[name]), seed=3)
    assert (x.shape, x.dtype) == ((count, dims), torch.float32)
    error = std / math.sqrt(x.numel())
    assert abs(x.mean().item() - mean) < 4 * error
    # Euler-Maruyama widens the samples by 1% at this number of steps.
    bias = 0.008 if name == "euler-maruyama" else 0.001
    assert abs(x.std().item() - std) < 4 * error / math.sqrt(2) + bias


@NAMES
def test_samples_fill_the_modes_by_their_weights(name):
    model = two_bumps(VP())
    x = sample(model, 1500, SamplingSettings(name, 60), seed=1)
    assert abs((x[:, 0] > 0).double().mean().item() - 2 / 3) < 4 * math.sqrt(2 / 9 / 1500) + 0.01


@pytest.mark.parametrize(("name", "order"), [("heun", 2), ("dpm++2m", 2), ("pf-ode", 4)])
@CASES
def test_error_falls_at_the_samplers_order(process, name, order):
    start = start_noise(process, 50)
    fine = solve("pf-ode", process, 500, start)
    errors = [(solve(name, process, steps, start) - fine).square().mean().sqrt().item() for steps in (80, 160)]
    assert errors[0] < 2e-2
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def euler_maruyama_variance(process, std, steps):
    """Exactly: every fresh noise is a new basis vector, so the variance is a squared length."""
    unit = iter(torch.eye(steps + 1, dtype=torch.float64))
    noise = lambda: next(unit)[None]  # noqa: E731
    scale = process.prior_std / process.signal(torch.ones(1, dtype=torch.float64))
    ratios = [*ratio_grid(process, steps, "time"), 0.0]
    eps = lambda y, ratio: ratio * y / (std**2 + ratio**2)  # noqa: E731
    return run("euler-maruyama", eps, scale * noise(), process, ratios, noise).square().sum().item()


@CASES
def test_variance_of_euler_maruyama_converges_at_first_order(process):
    std, coarse, fine = 0.6, 400, 800
    errors = [euler_maruyama_variance(process, std, steps) - std**2 for steps in (coarse, fine)]
    # The denoising step from the sampling limit changes the variance too, whatever the number of steps.
    low = process.ratio(torch.tensor(process.t_sample, dtype=torch.float64)).item()
    denoised = (std**4 / (std**2 + low**2)) - std**2
    assert (errors[0] - denoised) / (errors[1] - denoised) == pytest.approx(2, abs=0.25)


@NAMES
@CASES
def test_the_last_step_is_the_denoiser(process, name):
    y = torch.randn(5, 2, dtype=torch.float64)
    eps = exact_eps(two_bumps(process))
    out = run(name, eps, y, process, [0.3, 0.0])
    torch.testing.assert_close(out, y - 0.3 * eps(y, 0.3))


@pytest.mark.parametrize("steps", [10, 40])
@pytest.mark.parametrize("karras", [True, False])
def test_dpm_solver_agrees_with_diffusers(steps, karras):
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
        use_karras_sigmas=karras,
        prediction_type="epsilon",
    )
    scheduler.set_timesteps(steps)
    ratios = scheduler.sigmas.double().tolist()
    assert len(ratios) == steps + 1
    assert ratios[-1] == 0
    eps = exact_eps(two_bumps(DDPM()))
    y = start_noise(VP(), 20)[:, :1].repeat(1, 2).float()
    x = y / math.hypot(1, ratios[0])
    for t, ratio in zip(scheduler.timesteps, ratios[:-1], strict=True):
        x = scheduler.step(eps(x.double() * math.hypot(1, ratio), ratio).float(), t, x).prev_sample
    ours = run("dpm++2m", eps, y.double(), DDPM(), ratios)
    torch.testing.assert_close(ours.float(), x, rtol=1e-4, atol=1e-4)


@NAMES
def test_samples_do_not_depend_on_the_batch_size(name):
    model = two_bumps(VP())
    whole = sample(model, 7, SamplingSettings(name, 8), seed=5)
    parts = sample(model, 7, SamplingSettings(name, 8, batch_size=3), seed=5)
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-6)


@NAMES
def test_first_continues_the_sequence(name):
    model = two_bumps(VE())
    whole = sample(model, 7, SamplingSettings(name, 8), seed=5)
    rest = sample(model, 4, SamplingSettings(name, 8), seed=5, first=3)
    torch.testing.assert_close(whole[3:], rest, rtol=1e-5, atol=1e-6)


@NAMES
def test_other_seeds_and_other_numbers_give_other_samples(name):
    model = two_bumps(VP())
    a, b = (sample(model, 6, SamplingSettings(name, 8), seed=seed) for seed in (0, 1))
    together = torch.cat([a, b])
    assert torch.pdist(together).min() > 1e-4


@pytest.mark.parametrize("steps", [2, 3, 11])
@NAMES
@CASES
def test_network_evaluations_are_as_announced(process, name, steps):
    network = Counted()
    model = ScoreModel(network, process, (3,))
    settings = SamplingSettings(name, steps)
    sample(model, 2, settings)
    assert network.calls == settings.evaluations
    sample(model, 5, SamplingSettings(name, steps, batch_size=2))
    assert network.calls == 4 * settings.evaluations


def test_the_protocol_states_the_evaluations():
    assert SamplingSettings("heun", 18).describe() == "heun, 35 network evaluations"


def test_sampling_leaves_the_training_mode_alone():
    model = ScoreModel(Counted(), VP(), (3,))
    seen = []
    model.network.register_forward_hook(lambda module, *_: seen.append(module.training))
    for training in (True, False):
        model.network.train(training)
        sample(model, 2, SamplingSettings(steps=2))
        assert model.network.training is training
    assert not any(seen)


def test_samples_carry_no_gradient():
    assert not sample(ScoreModel(Counted(), VP(), (3,)), 2, SamplingSettings(steps=2)).requires_grad


@pytest.mark.parametrize("schedule", ["time", "log", "karras"])
@CASES
def test_grids_run_from_the_prior_to_the_sampling_limit(process, schedule):
    grid = ratio_grid(process, 9, schedule)
    ends = process.ratio(torch.tensor([1.0, process.t_sample], dtype=torch.float64)).tolist()
    assert [grid[0], grid[-1]] == pytest.approx(ends, rel=1e-9)
    assert len(grid) == 9
    assert all(later < earlier for earlier, later in itertools.pairwise(grid))


def test_grids_are_even_in_what_they_say():
    even = {"log": math.log, "karras": lambda r: r ** (1 / 7), "time": lambda r: VP().time(torch.tensor(r).double())}
    for schedule, scale in even.items():
        gaps = torch.tensor([scale(r) for r in ratio_grid(VP(), 20, schedule)]).double().diff()
        assert gaps.std() < 1e-5 * gaps.abs().mean(), schedule


@pytest.mark.parametrize("settings", [{"sampler": "huen"}, {"steps": 1}])
def test_bad_settings_are_user_errors(settings):
    with pytest.raises(UserError, match="sampling"):
        SamplingSettings(**settings)


def test_a_misspelt_sampler_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'heun'"):
        SamplingSettings("huen")
