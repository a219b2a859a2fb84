"""Samplers of the probability-flow ODE: their orders, and diffusers as a second implementation."""

import math
from functools import cache

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from msgm.diffusion import DDPM, VP, SamplingSettings, sample
from tests.diffusion.walks import CASES, exact_eps, run, solve, start_noise, two_bumps


@cache
def exact(process):
    """Where the walks of all these tests end, but for an error far below theirs."""
    return solve("pf-ode", process, 500, start_noise(process, 50))


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpm++2m", 2), ("pf-ode", 4)])
@CASES
def test_error_falls_at_the_samplers_order(process, name, order):
    start = start_noise(process, 50)
    fine = exact(process)
    errors = [(solve(name, process, steps, start) - fine).square().mean().sqrt().item() for steps in (80, 160)]
    assert errors[0] < (0.1 if order == 1 else 2e-2)
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@CASES
def test_the_adaptive_solvers_error_follows_its_tolerance(process):
    start = start_noise(process, 50)
    fine = exact(process)
    for tolerance in (1e-5, 1e-7):
        found = solve("pf-ode-adaptive", process, 2, start, rtol=tolerance, atol=tolerance)
        assert (found - fine).square().mean().sqrt() < 20 * tolerance


def test_the_adaptive_solver_spends_what_it_needs():
    calls = []
    for tolerance in (1e-2, 1e-5):
        model = two_bumps(VP())
        sample(model, 3, SamplingSettings("pf-ode-adaptive", options={"rtol": tolerance, "atol": tolerance}))
        calls.append(model.calls)
    assert 20 < calls[0] < calls[1] < 300


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
    y = start_noise(VP(), 20)
    x = (y / math.hypot(1, ratios[0])).float()
    for t, ratio in zip(scheduler.timesteps, ratios[:-1], strict=True):
        x = scheduler.step(eps(x.double() * math.hypot(1, ratio), ratio).float(), t, x).prev_sample
    ours = run("dpm++2m", eps, y, DDPM(), ratios)
    torch.testing.assert_close(ours.float(), x, rtol=1e-4, atol=1e-4)


def test_ddim_agrees_with_diffusers():
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(20)
    process, eps, y = DDPM(), exact_eps(two_bumps(DDPM())), start_noise(VP(), 20)
    ratios = [process.ratio(torch.tensor((int(t) + 1) / 1000, dtype=torch.float64)).item() for t in scheduler.timesteps]
    x = y / math.hypot(1, ratios[0])
    for t, ratio in zip(scheduler.timesteps, ratios, strict=True):
        x = scheduler.step(eps(x * math.hypot(1, ratio), ratio), t, x).prev_sample
    torch.testing.assert_close(run("ddim", eps, y, process, [*ratios, 0.0]), x, rtol=1e-4, atol=1e-4)


def test_heun_without_churn_draws_no_noise():
    def refuse():
        raise AssertionError("it drew noise")

    eps, y = exact_eps(two_bumps(VP())), start_noise(VP(), 5)
    run("heun", eps, y, VP(), [2.0, 1.0, 0.0], refuse)
    run("heun", eps, y, VP(), [2.0, 1.0, 0.0], refuse, churn=10, s_min=3.0)
    run("heun", eps, y, VP(), [2.0, 1.0, 0.0], refuse, churn=10, s_max=0.5)


def test_churn_raises_the_level_by_algorithm_2_and_not_above_the_prior():
    seen, eps, y = [], exact_eps(two_bumps(VP())), start_noise(VP(), 5)
    top = VP().ratio(torch.ones((), dtype=torch.float64)).item()
    for churn, expected in ((0.3, [top, 2.2, 1.1]), (50.0, [top, 2 * math.sqrt(2), math.sqrt(2)])):
        seen.clear()
        run("heun", eps, y, VP(), [top, 2.0, 1.0, 0.0], watch=seen.append, churn=churn)
        assert [state.ratio for state in seen] == pytest.approx(expected)
