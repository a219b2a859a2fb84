"""What holds of every sampler on every process, and the settings of sampling."""

import itertools
import math

import pytest
import torch

from msgm.diffusion import SAMPLERS, VE, VP, SamplingSettings, ScoreModel, sample
from msgm.diffusion.samplers import ratio_grid
from msgm.errors import UserError
from tests.diffusion.walks import CASES, Repeated, exact_eps, grid_of, run, two_bumps
from tests.helpers import Counted, Mixture

NAMES = pytest.mark.parametrize("name", SAMPLERS.entries)
# Steps, and what is left of the std's bias at them. At its order it would take the rest many more steps.
STEPS = {
    "euler-maruyama": (300, 0.003),
    "reverse-diffusion": (300, 0.007),
    "ancestral": (600, 0.007),
    "ddim": (300, 0.006),
    "predictor-corrector": (300, 0.008),
    "torchsde": (40, 0.012),
}
ADAPTIVE = "pf-ode-adaptive"
"""It makes passes of 32 items however few there are, so the same draws stand in as many items."""
LOOSE = {"pf-ode-adaptive": {"rtol": 1e-3, "atol": 1e-3}}
"""Options where sampling errors are far above those of the solver."""


@NAMES
@CASES
def test_samples_have_the_mean_and_std_of_the_data(process, name):
    mean, std = 0.3, 0.6
    steps, bias = STEPS.get(name, (100, 0.007))
    count, draws = (32, 800) if name == ADAPTIVE else (2, 12_800)
    x = sample(Mixture(process, torch.full((1, draws), mean), [std]), count, SamplingSettings(name, steps), seed=3)
    assert (x.shape, x.dtype) == ((count, draws), torch.float32)
    error = std / math.sqrt(x.numel())
    assert abs(x.mean().item() - mean) < 4 * error
    assert abs(x.std().item() - std) < 4 * error / math.sqrt(2) + bias


@NAMES
@CASES
def test_samples_of_a_mixture_have_its_weights_means_and_spreads(process, name):
    count = 30 if name == ADAPTIVE else 1
    model = Repeated(process, two_bumps(process), 1500 // count)
    settings = SamplingSettings(name, STEPS.get(name, (100, 0))[0], options=LOOSE.get(name, {}))
    x = sample(model, count, settings, seed=1).double().flatten(0, 1)
    right = x[:, 0] > 0
    assert abs(right.double().mean().item() - 2 / 3) < 4 * math.sqrt(2 / 9 / 1500)
    for chosen, mean, std in ((~right, [-1.0, 0.5], 0.4), (right, [1.0, 0.2], 0.3)):
        error = std / math.sqrt(int(chosen.sum()))
        # A few of the modes' items lie across the border at 0.
        assert (x[chosen].mean(0) - torch.tensor(mean)).abs().max() < 4 * error + 0.01
        assert (x[chosen].std(0) - std).abs().max() < 4 * error + 0.015


@NAMES
@pytest.mark.parametrize("process", [VE(), VP()], ids=["ve", "vp"])
def test_a_walk_may_start_and_end_anywhere(process, name):
    """In pieces of one step each, as inpainting walks; a sampler of several steps starts anew at each."""
    flat, model = exact_eps(two_bumps(process)), two_bumps(process)

    def eps(y, ratio, rows=None):
        ratios = torch.as_tensor(ratio, dtype=torch.float64).expand(len(y))
        return torch.stack([flat(item, one) for item, one in zip(y, ratios.tolist(), strict=True)])

    ratios = [2 * 0.9**i for i in range(10)]
    g = torch.Generator().manual_seed(0)
    y = model.draw(1000)[None] + ratios[0] * torch.randn(1, 1000, 2, generator=g, dtype=torch.float64)
    for now, then in itertools.pairwise(ratios):
        y = run(name, eps, y, process, [now, then], seed=round(1000 * now), **LOOSE.get(name, {}))
    assert y.shape == (1, 1000, 2)
    expected = math.sqrt(ratios[-1] ** 2 + model.draw(40_000)[:, 1].var().item())
    assert y[0, :, 1].std().item() == pytest.approx(expected, rel=0.1)


@NAMES
def test_the_callback_sees_every_step(name):
    seen = []
    settings = SamplingSettings(name, 6, batch_size=2)
    x = sample(two_bumps(VP()), 3, settings, first=4, callback=lambda numbers, state: seen.append((numbers, state)))
    assert [numbers for numbers, _ in seen[:: len(seen) // 2]] == [range(4, 6), range(6, 7)]
    states = [state for numbers, state in seen if 6 in numbers]
    if settings.evaluations is not None:
        assert [state.step for state in states] == list(range(6))
    assert all(later.ratio < earlier.ratio for earlier, later in itertools.pairwise(states))
    torch.testing.assert_close(states[-1].denoised, x[2:])


@NAMES
def test_samples_depend_on_their_seed_and_number_alone(name):
    model = two_bumps(VP())
    whole = sample(model, 7, SamplingSettings(name, 8), seed=5)
    close = {"rtol": 1e-5, "atol": 1e-6} if name != "pf-ode-adaptive" else {"rtol": 1e-4, "atol": 1e-4}
    parts = sample(model, 7, SamplingSettings(name, 8, batch_size=3), seed=5)
    torch.testing.assert_close(whole, parts, **close)
    rest = sample(model, 4, SamplingSettings(name, 8), seed=5, first=3)
    torch.testing.assert_close(whole[3:], rest, **close)
    other = sample(model, 7, SamplingSettings(name, 8), seed=6)
    assert torch.pdist(torch.cat([whole, other])).min() > 1e-4


def test_network_evaluations_are_as_announced_for_every_batch():
    network = Counted()
    settings = SamplingSettings("heun", 11, batch_size=2)
    sample(ScoreModel(network, VP(), (3,)), 5, settings)
    assert network.calls == 3 * settings.evaluations == 63


def test_a_card_names_source_and_cost():
    card = SAMPLERS.entries["heun"].describe()
    parts = dict(line.split(": ", 1) for line in card.split("\n"))
    assert list(parts) == ["step", "notes", "source", "network evaluations", "schedule", "measured", "options"]
    assert all(parts.values())


def test_the_protocol_states_the_evaluations():
    settings = SamplingSettings("heun", 18, options={"churn": 40})
    assert settings.describe() == "heun, churn 40.0, 35 network evaluations, grid even in ln rho"
    assert SamplingSettings("pf-ode-adaptive").describe() == "pf-ode-adaptive, adaptive"


@pytest.mark.parametrize("name", ["heun", "torchsde"])
def test_sampling_leaves_the_training_mode_and_the_global_generator_alone(name):
    model = ScoreModel(Counted(), VP(), (3,))
    seen = []
    model.network.register_forward_hook(lambda module, *_: seen.append(module.training))
    before = torch.get_rng_state()
    for training in (True, False):
        model.network.train(training)
        assert not sample(model, 2, SamplingSettings(name, 2)).requires_grad
        assert model.network.training is training
    assert not any(seen)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("schedule", ["time", "log", "karras"])
@CASES
def test_grids_run_from_the_prior_to_the_sampling_limit(process, schedule):
    grid = ratio_grid(process, 9, schedule)
    ends = process.ratio(torch.tensor([process.top, process.t_sample], dtype=torch.float64)).tolist()
    assert [grid[0], grid[-1]] == pytest.approx(ends, rel=1e-9)
    assert len(grid) == 9
    assert all(later < earlier for earlier, later in itertools.pairwise(grid))


def test_grids_are_even_in_what_they_say():
    even = {"log": math.log, "karras": lambda r: r ** (1 / 7), "time": lambda r: VP().time(torch.tensor(r).double())}
    for schedule, scale in even.items():
        gaps = torch.tensor([scale(r) for r in ratio_grid(VP(), 20, schedule)]).double().diff()
        assert gaps.std() < 1e-5 * gaps.abs().mean(), schedule


@CASES
def test_a_grids_times_and_signals_are_its_levels(process):
    grid = grid_of(process, 9, "log")
    t = torch.tensor(grid.times, dtype=torch.float64)
    assert grid.times[-1] == 0
    torch.testing.assert_close(process.ratio(t[:-1]), torch.tensor(grid.ratios[:-1], dtype=torch.float64))
    torch.testing.assert_close(process.signal(t), torch.tensor(grid.signals, dtype=torch.float64))


def test_every_schedule_can_be_chosen_for_every_sampler():
    for name, schedule in itertools.product(SAMPLERS.entries, ("time", "log", "karras")):
        assert sample(two_bumps(VE()), 1, SamplingSettings(name, 5, schedule)).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"sampler": "huen"}, "Did you mean 'heun'"),
        ({"steps": 1}, "sampling.steps must be at least 2"),
        ({"batch_size": 0}, "sampling.batch_size"),
        ({"guidance": float("nan")}, "sampling.guidance must be finite"),
        ({"sampler": "heun", "options": {"chrun": 40}}, "sampling.options.chrun.*Did you mean 'churn'"),
        ({"sampler": "heun", "options": {"eta": 1}}, "sampling.options.eta: sampler 'heun' has no such option.*churn"),
        ({"sampler": "dpm++2m", "options": {"eta": 1}}, "known: none"),
        ({"sampler": "heun", "options": {"churn": -1}}, "sampling.options.churn must be at least 0"),
        ({"sampler": "heun", "options": {"churn": "much"}}, "sampling.options.churn"),
        ({"sampler": "heun", "options": {"s_noise": 0}}, "sampling.options.s_noise"),
        ({"sampler": "ddim", "options": {"eta": 1.5}}, r"sampling.options.eta must lie in \[0, 1\]"),
        ({"sampler": "torchsde", "options": {"method": "rk"}}, "sampling.options.method"),
        ({"sampler": "predictor-corrector", "options": {"predictor": "heun"}}, "sampling.options.predictor"),
        ({"sampler": "predictor-corrector", "options": {"corrector_steps": 0}}, "sampling.options.corrector_steps"),
        ({"sampler": "predictor-corrector", "options": {"snr": 0}}, "sampling.options.snr"),
        ({"sampler": "pf-ode-adaptive", "options": {"rtol": 0}}, "sampling.options.rtol"),
    ],
)
def test_bad_settings_are_user_errors(settings, part):
    with pytest.raises(UserError, match=part):
        SamplingSettings(**settings)
