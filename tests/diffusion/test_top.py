"""Where walks start: the top of every process, exactly on Gaussians, and the grids below it."""

import math

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from torch import nn

from msgm.diffusion import DDPM, SAMPLERS, VE, VP, LikelihoodSettings, SamplingSettings, ScoreModel, SubVP, sample
from msgm.diffusion.likelihood import log_likelihood, measure_likelihood
from msgm.diffusion.processes import TOP_RATIO
from msgm.diffusion.restoration import decode, encode, inpaint, perturb, reconstruct, sdedit
from msgm.diffusion.samplers.base import MEASURED_STEPS, VARIANCES
from msgm.diffusion.variational import variational_bound
from msgm.errors import UserError
from msgm.evaluation.attacks.levels import check_levels
from tests.diffusion.walks import grid_of, run, scale
from tests.helpers import Mixture

LINEAR = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ZERO_SNR = DDPM(betas=tuple(rescale_zero_terminal_snr(LINEAR).tolist()))
COSINE = DDPM(schedule="squaredcos_cap_v2")
UNCUT = {
    "linear": DDPM(),
    "scaled-linear": DDPM(schedule="scaled_linear"),
    "vp": VP(),
    "subvp": SubVP(),
    "ve": VE(),
    "ve-of-large-data": VE(sigma_max=700.0),
}
CUT = {"cosine": COSINE, "zero-snr": ZERO_SNR, "long-vp": VP(beta_max=30.0), "long-subvp": SubVP(beta_max=30.0)}


def cases(*groups):
    found = {name: process for group in groups for name, process in group.items()}
    return pytest.mark.parametrize("process", found.values(), ids=found)


def excess(name, process, variance, steps=50, schedule=None):
    """Variance of samples / true - 1 on N(0, variance): each fresh noise is a new basis vector, a sum of squares."""
    grid = grid_of(process, steps, schedule or SAMPLERS.entries[name].schedule)
    unit = iter(torch.eye(3 * steps, dtype=torch.float64))
    noise = lambda: next(unit)[None]  # noqa: E731
    eps = lambda y, ratio, rows=None: ratio * y / (variance + ratio**2)  # noqa: E731
    end = run(name, eps, scale(process) * noise(), process, grid.ratios, noise)
    return end.square().sum().item() / variance - 1


@cases(UNCUT)
def test_processes_that_keep_some_signal_are_walked_from_their_end(process):
    assert process.top == 1
    assert process.at_top()[1] == float(process.ratio(torch.ones((), dtype=torch.float64)))
    assert "largest level" not in process.describe_top()


@cases(CUT)
def test_processes_that_run_on_are_walked_from_the_largest_level_up_to_200(process):
    signal, ratio = process.at_top()
    assert ratio <= TOP_RATIO * (1 + 1e-9)
    t = torch.tensor(process.top, dtype=torch.float64)
    step = 1 / process.steps if isinstance(process, DDPM) else 1e-6
    assert float(process.ratio(t + step)) > TOP_RATIO
    assert float(process.signal(t)) == signal
    assert f"{0.5 * signal**2:.1e} |x|^2 nats" in process.describe_top()
    assert "the largest level up to 200" in process.describe_top()


def test_the_top_of_a_discrete_process_is_a_label():
    assert (COSINE.top, ZERO_SNR.top) == (0.996, 0.941)
    assert COSINE.at_top()[1] == pytest.approx(160.41, abs=0.01)
    with pytest.raises(UserError, match="1 of 3 labels.*a walk needs two"):
        _ = DDPM(betas=(0.5, 0.999999, 0.5)).top


def test_the_mismatch_is_the_divergence_of_the_noised_item_from_the_prior():
    """KL(N(a x, sigma^2 I) || N(0, I)) by torch, for x of unit squares; sigma's share of it is of order a^4."""
    for process in (COSINE, ZERO_SNR, VE()):
        signal, ratio = process.at_top()
        normal = torch.distributions.Normal
        place, prior = torch.tensor(signal, dtype=torch.float64), torch.tensor(process.prior_std, dtype=torch.float64)
        exact = torch.distributions.kl_divergence(normal(place, signal * ratio), normal(0 * place, prior))
        assert f"{exact.item():.1e} |x|^2" in process.describe_top()


@pytest.mark.parametrize("variance", VARIANCES)
@cases({"linear": DDPM(), "cosine": COSINE, "zero-snr": ZERO_SNR, "vp": VP()})
def test_default_samples_have_the_variance_of_the_data(process, variance):
    assert -0.002 < excess("dpm++2m-sde", process, variance) < 0.0155
    assert -0.006 < excess("dpm++3m-sde", process, variance) < 0.008


@pytest.mark.parametrize("variance", VARIANCES[1:])
@cases({"scaled-linear": UNCUT["scaled-linear"], "subvp": SubVP(), "ve": VE()})
def test_default_samples_of_the_other_processes_do_too(process, variance):
    assert abs(excess("dpm++2m-sde", process, variance)) < 0.03
    assert abs(excess("dpm++3m-sde", process, variance)) < 0.015


@pytest.mark.parametrize("name", [name for name, sampler in SAMPLERS.entries.items() if sampler.errors])
def test_the_errors_on_a_samplers_card_are_its_errors(name):
    found = [excess(name, DDPM(), variance, MEASURED_STEPS) for variance in VARIANCES]
    assert SAMPLERS.entries[name].errors == pytest.approx(found, abs=6e-4)


def test_cards_print_the_errors():
    assert "linear DDPM, 50 steps: -0.54 at v = 0.01, -0.35 at v = 0.05" in SAMPLERS.entries["ancestral"].describe()
    assert "+0.68 at v = 0.01" in SAMPLERS.entries["reverse-diffusion"].describe()
    assert "no closed form" in SAMPLERS.entries["torchsde"].describe()


class ExactVelocity(nn.Module):
    """v = a eps - sigma x_0, given x_t, of data from N(0, variance): what a network of v-prediction learns."""

    def __init__(self, process, variance):
        super().__init__()
        self.process, self.variance = process, variance
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x, label):
        t = ((label.double() + 1) / self.process.steps).clamp(max=1)[:, None]
        signal, noise = self.process.signal(t), self.process.noise(t)
        return (x * signal * noise * (1 - self.variance) / (signal**2 * self.variance + noise**2)).to(x)


@pytest.mark.parametrize("variance", [0.05, 1.0])
def test_a_network_of_velocities_without_terminal_signal_samples_the_data(variance):
    model = ScoreModel(ExactVelocity(ZERO_SNR, variance), ZERO_SNR, (20_000,), "v_prediction")
    x = sample(model, 1, SamplingSettings())
    assert x.var().item() / variance - 1 == pytest.approx(0.012, abs=4 * math.sqrt(2 / x.numel()))


def test_without_signal_the_denoised_item_is_what_the_network_says():
    model = ScoreModel(ExactVelocity(ZERO_SNR, 0.25), ZERO_SNR, (3,), "v_prediction")
    x, end = torch.randn(2, 3), torch.ones(2)
    assert ZERO_SNR.signal(end).tolist() == [0, 0]
    assert torch.equal(model.eps(x, end), x)
    assert torch.equal(model.denoise(x, end), torch.zeros(2, 3))
    half = torch.full((2,), 0.5)
    exact = (x - ZERO_SNR.noise(half)[:, None] * model.eps(x, half)) / ZERO_SNR.signal(half)[:, None]
    torch.testing.assert_close(model.denoise(x, half), exact)


def test_the_variational_bound_needs_a_network_that_says_something_of_the_last_label():
    items = torch.zeros(2, 3, dtype=torch.long)
    bound = variational_bound(
        ScoreModel(ExactVelocity(ZERO_SNR, 0.25), ZERO_SNR, (3,), "v_prediction"), items, 16, terms=999
    )
    assert bound.isfinite().all()
    with pytest.raises(UserError, match="no signal at its last label"):
        variational_bound(Mixture(ZERO_SNR, torch.zeros(1, 3), [1.0]), items, 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [50, 777, 1000, 4000])
def test_labels_of_a_zero_snr_process_are_never_taken_for_the_last_one(steps, dtype):
    betas = rescale_zero_terminal_snr(torch.linspace(1e-4, 0.02, steps, dtype=torch.float64) * 1000 / steps)
    process = DDPM(betas=tuple(betas.tolist()))
    t = process.training_times((torch.arange(steps, dtype=dtype) + 0.5) / steps)
    exact = (1 - betas).cumprod(0).sqrt().to(dtype)
    torch.testing.assert_close(process.signal(t), exact, rtol=2e-3, atol=1e-12)
    assert process.diffusion(t)[:-1].isfinite().all()
    assert process.time(process.ratio(t)[:-1].double()).isfinite().all()


@pytest.mark.parametrize("betas", [(0.1, 1.0, 0.2), (0.1, 1.5), (0.0, 0.1), (1.0, 1.0), (0.1, math.nan)])
def test_only_the_last_beta_may_be_one(betas):
    with pytest.raises(UserError, match=r"process\.betas"):
        DDPM(betas=betas)


@cases({"cosine": COSINE, "zero-snr": ZERO_SNR})
@pytest.mark.parametrize("solver", ["rk4", "heun", "dopri5"])
def test_likelihoods_end_at_the_top_and_are_exact(process, solver):
    variance = 0.09
    model = Mixture(process, torch.zeros(1, 2), [math.sqrt(variance)])
    x = 0.3 * torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([process.t_min], dtype=torch.float64)
    spread = float(process.signal(t) ** 2 * variance + process.noise(t) ** 2)
    exact = -(x.square().sum(1) / (2 * spread)) - math.log(2 * math.pi * spread)
    found = log_likelihood(model, x, LikelihoodSettings(solver, steps=50))
    torch.testing.assert_close(found, exact, rtol=0, atol=0.01)
    assert process.describe_top() in measure_likelihood(model, x, None).protocol


class Watched(Mixture):
    """Keeps the largest time that it is asked about."""

    latest = 0.0

    def eps(self, x, t, condition=None):
        self.latest = max(self.latest, float(t.max()))
        return super().eps(x, t)


WALKS = {
    **{name: lambda m, x, name=name: sample(m, 2, SamplingSettings(name, 5)) for name in SAMPLERS.entries},
    "churn": lambda m, x: sample(m, 2, SamplingSettings("heun", 5, options={"churn": 50})),
    "likelihood": lambda m, x: log_likelihood(m, x, LikelihoodSettings(steps=3)),
    "dopri5": lambda m, x: log_likelihood(m, x, LikelihoodSettings("dopri5", tolerance=1e-2)),
    "encode": lambda m, x: encode(m, x, steps=3),
    "decode": lambda m, x: decode(m, x, steps=3),
    "reconstruct": lambda m, x: reconstruct(m, x, 1.0, steps=3),
    "sdedit": lambda m, x: sdedit(m, x, 1.0, SamplingSettings(steps=5)),
    "inpaint": lambda m, x: inpaint(m, x, torch.tensor([True, False]), resamples=2),
}


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
@cases(CUT)
def test_every_walk_starts_or_ends_at_the_top_and_never_above(process, walk):
    model = Watched(process, torch.zeros(1, 2), [0.5])
    x = torch.randn(2, 2, generator=torch.Generator().manual_seed(0)) / 2
    assert walk(model, x).isfinite().all()
    assert model.latest == pytest.approx(process.top, abs=1e-6)


@cases(CUT)
def test_the_first_state_is_drawn_from_the_prior_at_the_top(process):
    seen = []
    model = Mixture(process, torch.zeros(1, 20_000), [0.5])
    sample(model, 1, SamplingSettings(steps=2), callback=lambda _, state: seen.append(state))
    signal, ratio = process.at_top()
    assert seen[0].ratio == pytest.approx(ratio)
    assert (signal * seen[0].y).std().item() == pytest.approx(process.prior_std, rel=0.02)


@cases(CUT)
def test_what_is_known_and_what_is_not_start_inpainting_at_the_top(process):
    """The unknown part has the prior's spread, the known one the item's at the top's noise."""
    seen = []

    class First(Mixture):
        def eps(self, x, t, condition=None):
            seen.append(x)
            return super().eps(x, t)

    known = torch.arange(20_000) % 2 == 0
    model = First(process, torch.zeros(1, 20_000), [0.5])
    inpaint(model, torch.full((1, 20_000), 0.3), known, SamplingSettings("ddim", 2), resamples=1)
    assert seen[0][0][~known].std().item() == pytest.approx(process.prior_std, rel=0.03)
    assert seen[0][0][known].std().item() == pytest.approx(process.prior_std, rel=0.03)


@cases(CUT)
def test_noise_above_the_top_is_the_tops(process):
    model, x = Mixture(process, torch.zeros(1, 2), [0.5]), torch.ones(3, 2)
    assert torch.equal(perturb(model, x, 1.0), perturb(model, x, process.top))
    assert not torch.equal(perturb(model, x, 1.0), perturb(model, x, process.top - 0.1))


def test_attacks_start_below_the_top():
    class Config:
        process = {"name": "ddpm", "schedule": "squaredcos_cap_v2"}  # noqa: RUF012

    check_levels([0.5, 160], Config, "attack")
    with pytest.raises(UserError, match=r"attack\.levels must lie between .* and 160\.4"):
        check_levels([0.5, 161], Config, "attack")


@pytest.mark.parametrize("schedule", ["log", "karras", "time"])
def test_the_protocol_names_the_grid_and_the_top(schedule):
    words = {"log": "ln rho", "karras": r"rho^(1/7)", "time": "t"}
    text = SamplingSettings(schedule=schedule).describe(COSINE)
    assert f"grid even in {words[schedule]}; walks start at sigma / a = 160.4, the largest level" in text
    assert "runs to 2.029e+04" in text
