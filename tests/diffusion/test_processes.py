import math

import pytest
import torch
from diffusers import DDPMScheduler

from msgm.diffusion import DDPM, PROCESSES, VE, VP, SubVP
from msgm.errors import UserError
from tests.helpers import PROCESS_CASES

CASES = pytest.mark.parametrize("process", PROCESS_CASES.values(), ids=PROCESS_CASES)
SCHEDULES = pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
MIDDLES = (torch.tensor([0, 3, 50, 333, 500, 871, 998], dtype=torch.float64) + 0.5) / 1000


def derivative(function, t, h=1e-6):
    return (function(t + h) - function(t - h)) / (2 * h)


@CASES
def test_drift_is_the_derivative_of_log_signal(process):
    slope = derivative(lambda t: process.signal(t).log(), MIDDLES)
    torch.testing.assert_close(process.drift(MIDDLES), slope, rtol=1e-6, atol=1e-8)


@CASES
def test_diffusion_is_what_the_noise_needs(process):
    growth = derivative(lambda t: process.noise(t) ** 2, MIDDLES)
    expected = growth - 2 * process.drift(MIDDLES) * process.noise(MIDDLES) ** 2
    torch.testing.assert_close(process.diffusion(MIDDLES) ** 2, expected, rtol=1e-6, atol=1e-9)


@SCHEDULES
def test_drift_and_diffusion_hold_for_every_ddpm_schedule(schedule):
    process = DDPM(schedule=schedule)
    slope = derivative(lambda t: process.signal(t).log(), MIDDLES)
    torch.testing.assert_close(process.drift(MIDDLES), slope, rtol=1e-6, atol=1e-8)
    growth = derivative(lambda t: process.noise(t) ** 2, MIDDLES)
    expected = growth + 2 * slope.abs() * process.noise(MIDDLES) ** 2
    torch.testing.assert_close(process.diffusion(MIDDLES) ** 2, expected, rtol=1e-5, atol=1e-8)


@CASES
def test_ratio_is_noise_over_signal_and_increases(process):
    t = torch.linspace(process.t_min, 1, 301, dtype=torch.float64)
    ratio = process.ratio(t)
    torch.testing.assert_close(ratio, process.noise(t) / process.signal(t), rtol=1e-10, atol=0)
    assert (ratio.diff() > 0).all()


@CASES
def test_time_inverts_ratio(process):
    t = torch.cat([torch.tensor([process.t_min, process.t_sample]), torch.linspace(0.002, 1, 77)]).double()
    torch.testing.assert_close(process.time(process.ratio(t)), t, rtol=1e-9, atol=1e-13)


@SCHEDULES
def test_time_inverts_ratio_for_every_ddpm_schedule(schedule):
    process = DDPM(steps=100, schedule=schedule)
    t = torch.linspace(0.01, 1, 333, dtype=torch.float64)
    torch.testing.assert_close(process.time(process.ratio(t)), t, rtol=1e-9, atol=0)


def integral(process, t):
    return process.beta_min * t + 0.5 * (process.beta_max - process.beta_min) * t**2


@pytest.mark.parametrize("t", [1e-5, 1e-4, 1e-3])
def test_vp_noise_is_accurate_in_float32_at_small_times(t):
    exact = math.sqrt(-math.expm1(-integral(VP(), t)))
    assert VP().noise(torch.tensor([t])).item() == pytest.approx(exact, rel=1e-6)
    assert VP().ratio(torch.tensor([t])).item() == pytest.approx(math.sqrt(math.expm1(integral(VP(), t))), rel=1e-6)


@pytest.mark.parametrize("t", [1e-5, 1e-4, 1e-3])
def test_subvp_noise_and_diffusion_are_accurate_in_float32_at_small_times(t):
    process = SubVP()
    beta = process.beta_min + (process.beta_max - process.beta_min) * t
    assert process.noise(torch.tensor([t])).item() == pytest.approx(-math.expm1(-integral(process, t)), rel=1e-6)
    exact = math.sqrt(beta * -math.expm1(-2 * integral(process, t)))
    assert process.diffusion(torch.tensor([t])).item() == pytest.approx(exact, rel=1e-6)


def test_the_naive_noise_would_fail_the_accuracy_asked_here():
    signal = VP().signal(torch.tensor([1e-5]))
    naive = torch.sqrt(1 - signal**2).item()
    assert abs(naive / VP().noise(torch.tensor([1e-5])).item() - 1) > 0.02


def test_ve_noise_is_accurate_in_float32_at_small_times():
    assert VE().noise(torch.tensor([1e-5])).item() == pytest.approx(0.02 * 5000**1e-5, rel=1e-6)


def test_ddpm_noise_of_the_first_label_is_accurate_in_float32():
    assert DDPM().noise(torch.tensor([1e-3])).item() == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize("steps", [1000, 50])
@SCHEDULES
def test_ddpm_labels_have_the_noise_of_diffusers(schedule, steps):
    scheduler = DDPMScheduler(steps, beta_schedule=schedule)
    process = DDPM(steps=steps, schedule=schedule)
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    exact = (1 - scheduler.betas.double()).cumprod(0)
    torch.testing.assert_close(process.signal(t) ** 2, exact, rtol=1e-9, atol=0)
    torch.testing.assert_close(process.noise(t) ** 2, 1 - exact, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(process.signal(t).float() ** 2, scheduler.alphas_cumprod, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(process.label(t), torch.arange(steps, dtype=torch.float64), rtol=0, atol=1e-9)


def test_ddpm_in_float32_has_the_noise_of_diffusers():
    t = torch.arange(1, 1001) / 1000
    torch.testing.assert_close(DDPM().signal(t) ** 2, DDPMScheduler().alphas_cumprod, rtol=1e-4, atol=0)


def test_ddpm_with_its_own_betas_ignores_the_other_settings():
    betas = (0.1, 0.2, 0.3)
    process = DDPM(steps=7, schedule="no such", betas=betas)
    t = torch.tensor([1 / 3, 2 / 3, 1], dtype=torch.float64)
    assert process.steps == 3
    torch.testing.assert_close(process.signal(t) ** 2, torch.tensor([0.9, 0.72, 0.504], dtype=torch.float64))


def test_ddpm_trains_on_every_label_and_on_labels_only():
    process = DDPM(steps=10)
    u = torch.linspace(0, 1, 1001)[:-1]
    labels = process.label(process.training_times(u))
    torch.testing.assert_close(labels, labels.round(), rtol=0, atol=1e-5)
    assert labels.round().long().unique().tolist() == list(range(10))
    assert (labels.round().long().bincount() - 100).abs().max() <= 1
    extremes = process.label(process.training_times(torch.tensor([0.0, 1 - 2**-24])))
    assert extremes.round().tolist() == [0, 9]


@pytest.mark.parametrize("name", ["ve", "vp", "subvp"])
def test_continuous_training_times_fill_the_range_from_t_min(name):
    process = PROCESS_CASES[name]
    low, high = process.training_times(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    assert (low, high) == (1e-5, 1.0)


@pytest.mark.parametrize(
    ("name", "t_min", "t_sample", "prior_std"),
    [("ve", 1e-5, 1e-5, 100), ("vp", 1e-5, 1e-3, 1), ("subvp", 1e-5, 1e-3, 1), ("ddpm", 1e-3, 1e-3, 1)],
)
def test_limits_and_prior(name, t_min, t_sample, prior_std):
    process = PROCESS_CASES[name]
    assert (process.t_min, process.t_sample, process.prior_std) == (t_min, t_sample, prior_std)
    assert process.noise(torch.ones(1)).item() == pytest.approx(prior_std, rel=1e-4)


def test_ddpm_limits_follow_the_number_of_steps():
    assert (DDPM(steps=50).t_min, DDPM(steps=50).t_sample) == (0.02, 0.02)


@pytest.mark.parametrize("name", ["vp", "subvp", "ddpm"])
def test_signal_nearly_vanishes_at_the_end(name):
    assert PROCESS_CASES[name].signal(torch.ones(1)).item() == pytest.approx(0.00657, rel=0.05)


@CASES
def test_signal_is_one_at_the_start(process):
    torch.testing.assert_close(process.signal(torch.zeros(3)), torch.ones(3))


@pytest.mark.parametrize("name", ["vp", "ddpm"])
def test_variance_is_preserved(name):
    process = PROCESS_CASES[name]
    total = process.signal(MIDDLES) ** 2 + process.noise(MIDDLES) ** 2
    torch.testing.assert_close(total, torch.ones_like(MIDDLES))


def test_subvp_noise_is_the_square_of_vps():
    torch.testing.assert_close(SubVP().noise(MIDDLES), VP().noise(MIDDLES) ** 2)
    exact = torch.tensor([-math.expm1(-integral(VP(), t)) for t in MIDDLES.tolist()], dtype=torch.float64)
    torch.testing.assert_close(SubVP().noise(MIDDLES), exact)


@pytest.mark.parametrize("name", ["vp", "subvp"])
def test_beta_processes_read_999_t(name):
    torch.testing.assert_close(PROCESS_CASES[name].label(MIDDLES), 999 * MIDDLES)


def test_ve_reads_the_log_of_its_noise():
    torch.testing.assert_close(VE().label(MIDDLES), VE().noise(MIDDLES).log())


def test_ve_input_has_unit_size_for_data_of_unit_size():
    scale = VE().input_scale(MIDDLES)
    torch.testing.assert_close(scale * torch.sqrt(1 + VE().noise(MIDDLES) ** 2), torch.ones_like(MIDDLES))


@pytest.mark.parametrize("name", ["vp", "subvp", "ddpm"])
def test_the_others_do_not_scale_their_input(name):
    assert (PROCESS_CASES[name].input_scale(MIDDLES) == 1).all()


@CASES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coefficients_keep_the_dtype_and_shape_of_the_times(process, dtype):
    t = torch.tensor([0.1, 0.5, 1.0], dtype=dtype)
    for function in (process.signal, process.noise, process.ratio, process.drift, process.diffusion, process.label):
        values = function(t)
        assert (values.dtype, values.shape) == (dtype, t.shape)


@pytest.mark.parametrize(
    ("process", "settings"),
    [
        (VE, {"sigma_min": 0.0}),
        (VE, {"sigma_min": 2.0, "sigma_max": 1.0}),
        (VP, {"beta_min": 0.0}),
        (VP, {"beta_min": 5.0, "beta_max": 1.0}),
        (SubVP, {"beta_min": -1.0}),
        (DDPM, {"steps": 0}),
        (DDPM, {"beta_min": 0.0}),
        (DDPM, {"beta_min": 0.5, "beta_max": 1.5}),
        (DDPM, {"betas": ()}),
        (DDPM, {"betas": (0.1, 1.1)}),
    ],
)
def test_bad_settings_are_user_errors(process, settings):
    with pytest.raises(UserError, match=r"^process"):
        process(**settings)


def test_an_unknown_ddpm_schedule_is_a_user_error_that_names_the_known_ones():
    with pytest.raises(UserError, match=r"'linaer'.*squaredcos_cap_v2"):
        DDPM(schedule="linaer").signal(torch.ones(1))


def test_an_unknown_process_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'subvp'"):
        PROCESSES.build({"name": "subpv"})


def test_an_unknown_key_is_named():
    with pytest.raises(UserError, match=r"process\.sigma_mxa"):
        PROCESSES.build({"name": "ve", "sigma_mxa": 3.0})


def test_settings_reach_the_process():
    assert PROCESSES.build({"name": "ve", "sigma_max": 20.0}) == VE(sigma_max=20.0)
    assert PROCESSES.build({"name": "ddpm", "betas": [0.1, 0.2]}) == DDPM(betas=(0.1, 0.2))
