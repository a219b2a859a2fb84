"""Samplers of the reverse SDE: their orders, exactly on Gaussians, and diffusers as a second implementation."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from msgm.diffusion import DDPM, SAMPLERS, VE, VP, SamplingSettings, SubVP, sample
from msgm.diffusion.samplers import Noise
from msgm.diffusion.samplers.corrector import annealed_langevin, langevin
from tests.diffusion.walks import CASES, Repeated, exact_eps, grid_of, run, scale, solve, start_noise, two_bumps
from tests.helpers import Mixture

STD = 0.6


def variance_error(name, process, steps, schedule=None, **options):
    """Exactly, on N(0, STD^2): every fresh noise is a new basis vector, so the variance is a squared length."""
    grid = grid_of(process, steps, schedule or SAMPLERS.entries[name].schedule)
    unit = iter(torch.eye(2 * steps + 2, dtype=torch.float64))
    noise = lambda: next(unit)[None]  # noqa: E731
    eps = lambda y, ratio, rows=None: ratio * y / (STD**2 + ratio**2)  # noqa: E731
    variance = run(name, eps, scale(process) * noise(), process, grid.ratios, noise, **options).square().sum().item()
    # The denoising step from the sampling limit changes the variance too, whatever the number of steps.
    return variance - STD**4 / (STD**2 + grid.ratios[-2] ** 2)


@pytest.mark.parametrize(
    ("name", "options", "order"),
    [
        ("euler-maruyama", {}, 1),
        ("reverse-diffusion", {}, 1),
        ("ancestral", {}, 1),
        ("ddim", {"eta": 0.5}, 1),
        ("heun", {"churn": 20.0, "schedule": "karras"}, 2),
        ("dpm++2m-sde", {}, 2),
        ("dpm++3m-sde", {}, 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@CASES
def test_variance_converges_at_the_samplers_order(process, name, options, order):
    # On VE's geometric grid Euler-Maruyama's first-order error of the variance cancels.
    order = 2 if (name, process.name) == ("euler-maruyama", "ve") else order
    coarse, fine = (variance_error(name, process, steps, **options) for steps in (400, 800))
    assert abs(coarse) < (0.025 if order == 1 else 5e-4)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.3)


@CASES
def test_the_third_order_solver_beats_the_second(process):
    second, third = (variance_error(name, process, 50, "karras") for name in ("dpm++2m-sde", "dpm++3m-sde"))
    assert abs(third) < 0.1 * abs(second)


@CASES
def test_a_corrector_adds_a_bias_that_falls_with_steps(process):
    errors = [
        variance_error("predictor-corrector", process, steps, corrector="annealed-langevin") for steps in (100, 800)
    ]
    # Flow matching's first steps, from almost no signal, are the longest of all in ln a.
    assert abs(errors[1]) < (0.3 if process.name == "flow" else 0.2) * abs(errors[0])


def test_the_third_order_solver_integrates_a_parabola_exactly():
    """D(lambda) known and quadratic, no noise: only the two first steps, of lower order, err."""
    parabola = lambda ratio: 0.3 + 0.5 * math.log(ratio) - 0.2 * math.log(ratio) ** 2  # noqa: E731
    eps = lambda y, ratio, rows=None: (y - parabola(ratio)) / ratio  # noqa: E731
    silent = lambda: torch.zeros(1, 1, dtype=torch.float64)  # noqa: E731
    levels = [math.exp(-0.1 * i * (1 + 0.05 * i)) for i in range(12)]
    # The exact solution: y e^{2 lambda} changes by the integral of 2 e^{2 lambda} D, here by fine midpoints.
    state = torch.ones(1, 1, dtype=torch.float64)
    walked = [state]
    for i in range(len(levels) - 1):
        h = math.log(levels[i] / levels[i + 1])
        u = (torch.arange(20_000, dtype=torch.float64) + 0.5) * (h / 20_000)
        logs = math.log(levels[i]) - u
        pulled = (2 * (-2 * (h - u)).exp() * (0.3 + 0.5 * logs - 0.2 * logs**2)).mean() * h
        walked.append(math.exp(-2 * h) * walked[-1] + pulled)
    sampler = SAMPLERS.build({"name": "dpm++3m-sde"})
    known = [(-math.log(level), torch.tensor(parabola(level))) for level in levels]
    for i in range(2, len(levels) - 1):
        h = math.log(levels[i] / levels[i + 1])
        found = math.exp(-2 * h) * walked[i] + sampler.integral(h, known[i - 2 : i + 1][::-1])
        torch.testing.assert_close(found, walked[i + 1], rtol=0, atol=1e-6)
    coarse = run("dpm++3m-sde", eps, state, VE(), levels, silent)
    torch.testing.assert_close(coarse, walked[-1], rtol=0, atol=5e-3)


class Taped:
    """Noise that is drawn once and heard again."""

    def __init__(self, shape, count, last=None):
        g = torch.Generator().manual_seed(1)
        self.drawn = torch.randn(count, *shape, generator=g, dtype=torch.float64)
        self.left = iter(self.drawn)

    def __call__(self):
        return next(self.left)


def diffusers_walk(scheduler, step, eps, y, ratios, monkeypatch, noise):
    """Walk diffusers' scheduler with the given noise, in x = y / sqrt(1 + rho^2) of a VP path."""
    module = __import__(type(scheduler).__module__, fromlist=["randn_tensor"])
    monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: noise())
    x = y / math.hypot(1, ratios[0])
    for t, ratio in zip(scheduler.timesteps, ratios, strict=False):
        x = step(eps(x * math.hypot(1, ratio), ratio), t, x)
    return x


def labels_ratios(timesteps):
    return [DDPM().ratio(torch.tensor((int(t) + 1) / 1000, dtype=torch.float64)).item() for t in timesteps]


@pytest.mark.parametrize("steps", [1000, 20])
def test_ancestral_agrees_with_diffusers_ddpm(steps, monkeypatch):
    scheduler = DDPMScheduler(variance_type="fixed_small", clip_sample=False)
    scheduler.set_timesteps(steps)
    eps, y = exact_eps(two_bumps(DDPM())), start_noise(DDPM(), 10)
    ratios = labels_ratios(scheduler.timesteps)
    step = lambda found, t, x: scheduler.step(found, t, x).prev_sample  # noqa: E731
    theirs = diffusers_walk(scheduler, step, eps, y, ratios, monkeypatch, Taped(y.shape, steps))
    ours = run("ancestral", eps, y, DDPM(), [*ratios, 0.0], Taped(y.shape, steps))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_ddim_with_noise_agrees_with_diffusers(eta, monkeypatch):
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(20)
    eps, y = exact_eps(two_bumps(DDPM())), start_noise(DDPM(), 10)
    ratios = labels_ratios(scheduler.timesteps)
    step = lambda found, t, x: scheduler.step(found, t, x, eta=eta).prev_sample  # noqa: E731
    theirs = diffusers_walk(scheduler, step, eps, y, ratios, monkeypatch, Taped(y.shape, 20))
    ours = run("ddim", eps, y, DDPM(), [*ratios, 0.0], Taped(y.shape, 20), eta=eta)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("karras", [True, False])
def test_dpm_solver_sde_agrees_with_diffusers(karras, monkeypatch):
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++", final_sigmas_type="zero", use_karras_sigmas=karras
    )
    scheduler.set_timesteps(25)
    eps, y = exact_eps(two_bumps(DDPM())), start_noise(DDPM(), 10)
    ratios = scheduler.sigmas.double().tolist()
    step = lambda found, t, x: scheduler.step(found, t, x).prev_sample  # noqa: E731
    theirs = diffusers_walk(scheduler, step, eps, y, ratios, monkeypatch, Taped(y.shape, 26))
    ours = run("dpm++2m-sde", eps, y, DDPM(), ratios, Taped(y.shape, 26))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@CASES
def test_ddim_at_eta_one_is_ancestral(process):
    start = start_noise(process, 10)
    torch.testing.assert_close(solve("ddim", process, 20, start, eta=1.0), solve("ancestral", process, 20, start))


def one_step(name, process, t, then, **options):
    """Mean of one step from x = y a at time t; returns (x, score, mean of x')."""
    times = torch.tensor([t, then], dtype=torch.float64)
    ratios, (now, after) = process.ratio(times).tolist(), process.signal(times).tolist()
    model, y = two_bumps(process), start_noise(VP(), 6) / 50
    eps = exact_eps(model)
    silent = lambda: torch.zeros(6, 2, dtype=torch.float64)  # noqa: E731
    moved = run(name, eps, y, process, ratios, silent, **options)
    score = -eps(y, ratios[0]) / float(process.noise(times[0]))
    return now * y, score, after * moved


@pytest.mark.parametrize("process", [VP(), VE(), SubVP()], ids=["vp", "ve", "subvp"])
def test_euler_maruyama_is_score_sdes(process):
    t = torch.tensor(0.5, dtype=torch.float64)
    x, score, found = one_step("euler-maruyama", process, 0.5, 0.49)
    drift, diffusion = process.drift(t) * x, process.diffusion(t)
    torch.testing.assert_close(found, x - (drift - diffusion**2 * score) * 0.01)


def test_reverse_diffusion_is_score_sdes():
    x, score, found = one_step("reverse-diffusion", DDPM(), 0.5, 0.499)
    beta = DDPM().beta(torch.tensor(0.4995, dtype=torch.float64)) / 1000
    beta = -torch.expm1(-beta)
    torch.testing.assert_close(found, (2 - (1 - beta).sqrt()) * x + beta * score)
    x, score, found = one_step("reverse-diffusion", VE(), 0.5, 0.49)
    squares = VE().noise(torch.tensor([0.5, 0.49], dtype=torch.float64)) ** 2
    torch.testing.assert_close(found, x + (squares[0] - squares[1]) * score)


@pytest.mark.parametrize("corrector", ["langevin", "annealed-langevin"])
def test_a_corrector_is_score_sdes_with_norms_of_each_item(corrector):
    """One level, one Langevin step and the denoiser; the expectation is written in x and the score."""
    process, t = VP(), torch.tensor(0.3, dtype=torch.float64)
    ratio, signal, noise = (float(part(t)) for part in (process.ratio, process.signal, process.noise))
    eps, y, z = exact_eps(two_bumps(process)), start_noise(process, 6) / 100, Taped((6, 2), 1).drawn[0]
    seen = []
    run(
        "predictor-corrector",
        eps,
        y,
        process,
        [ratio, 0.0],
        lambda: z,
        seen.append,
        corrector=corrector,
        snr=0.05,
    )
    x, score = signal * y, -eps(y, ratio) / noise
    length = lambda v: v.norm(dim=1, keepdim=True)  # noqa: E731
    size = 2 * signal**2 * (0.05 * (length(z) / length(score) if corrector == "langevin" else noise)) ** 2
    size = size.clamp(max=noise**2) if corrector == "langevin" else size
    torch.testing.assert_close(signal * seen[0].y, x + size * score + math.sqrt(2) * size**0.5 * z)


def test_a_corrector_survives_a_score_of_zero():
    zero = lambda y, ratio, rows=None: torch.zeros_like(y)  # noqa: E731
    out = run("predictor-corrector", zero, torch.ones(3, 4), VP(), [1.0, 0.5, 0.0])
    assert out.isfinite().all()
    assert annealed_langevin(torch.zeros(3, 4), torch.ones(3, 4)).tolist() == [1, 1, 1]
    assert langevin(torch.full((3, 4), 2.0), torch.ones(3, 4)).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("corrector", ["langevin", "annealed-langevin"])
@pytest.mark.parametrize("predictor", ["reverse-diffusion", "euler-maruyama", "ancestral"])
@CASES
def test_every_predictor_runs_with_every_corrector(process, predictor, corrector):
    options = {"predictor": predictor, "corrector": corrector, "corrector_steps": 2}
    settings = SamplingSettings("predictor-corrector", 40, options=options)
    model = Repeated(process, two_bumps(process), 800)
    x = sample(model, 1, settings)[0]
    assert model.calls == settings.evaluations == 120
    assert (x[:, 0] > 0).double().mean().item() == pytest.approx(2 / 3, abs=0.07)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("srk", 1.5)])
def test_torchsde_converges_to_one_path_at_its_strong_order(method, order):
    """Both methods, on the same Brownian path, against the finer walk of the better one."""

    def walk(method, steps):
        noise = Noise(0, range(1), (200, 2), torch.device("cpu"))
        flat = exact_eps(Mixture(VP(), [[0.3, -0.2]], [STD]))
        eps = lambda y, ratio, rows=None: flat(y[0], ratio)[None]  # noqa: E731
        ratios = grid_of(VP(), steps + 1, "time").ratios
        return run("torchsde", eps, scale(VP()) * noise().double(), VP(), ratios, noise, method=method)

    fine = walk("srk", 320)
    errors = [(walk(method, steps) - fine).square().mean().sqrt().item() for steps in (20, 80)]
    assert errors[1] < 0.05
    assert math.log(errors[0] / errors[1], 4) == pytest.approx(order, abs=0.25)


def test_torchsdes_path_is_named_by_its_seed():
    model = two_bumps(VP())
    coarse, fine = (sample(model, 2, SamplingSettings("torchsde", steps), seed=2) for steps in (30, 45))
    other = sample(model, 2, SamplingSettings("torchsde", 30), seed=3)
    assert (coarse - fine).abs().max() < 0.1 < (coarse - other).abs().max()
