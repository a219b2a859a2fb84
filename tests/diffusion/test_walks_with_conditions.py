"""Conditions travel through samplers, likelihood, the variational bound and restoration, each row with its own item."""

from functools import partial

import pytest
import torch
from diffusers import DDIMScheduler

from msgm.diffusion import (
    DDPM,
    SAMPLERS,
    VP,
    Condition,
    LikelihoodSettings,
    SamplingSettings,
    ScoreModel,
    log_likelihood,
    negative_log_likelihood,
    sample,
)
from msgm.diffusion.likelihood import measure_likelihoods
from msgm.diffusion.restoration import decode, encode, inpaint, reconstruct, sdedit
from msgm.diffusion.samplers import Grid, Noise, sigma_space
from msgm.diffusion.variational import variational_bound
from msgm.errors import UserError
from tests.diffusion.test_conditional import ddim, model
from tests.helpers import Mixture

FAR = [[-3.0, 0.0], [3.0, 0.0], [0.0, 4.0]]
LABELS = [0, 2, -1, 1, 1, 0, 2]


def mixture(process=None):
    return Mixture(process or VP(), FAR, [0.3, 0.3, 0.3])


@pytest.mark.parametrize("sampler", sorted(SAMPLERS.entries))
def test_samples_are_of_the_component_asked_for(sampler):
    asked = [0, 1, 2] * 8
    found = sample(mixture(), 24, SamplingSettings(sampler, 12), condition=asked)
    nearest = torch.cdist(found, torch.tensor(FAR)).argmin(1)
    assert nearest.tolist() == asked


@pytest.mark.parametrize("sampler", ["ddim", "dpm++2m-sde", "pf-ode-adaptive", "heun"])
@pytest.mark.parametrize("name", ["unet", "dit", "mlp"])
def test_a_sample_depends_neither_on_the_batch_size_nor_on_its_mates(name, sampler):
    # Its answers agree to the bit whatever its tolerance, and a tight one takes thousands of passes.
    loose = {"rtol": 1e-2, "atol": 1e-2} if sampler == "pf-ode-adaptive" else {}
    made = partial(model(name, process="vp").sample, sampler=sampler, steps=4, seed=1, **loose)
    whole = made(7, condition=LABELS)
    split = made(7, condition=LABELS, batch_size=3)
    part = made(3, first=2, condition=LABELS[2:5])
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(part, whole[2:5], rtol=1e-4, atol=1e-4)
    others = made(7, condition=[0] * 7)
    same = [bool(torch.allclose(a, b, rtol=1e-4, atol=1e-4)) for a, b in zip(whole, others, strict=True)]
    assert same == [label == 0 for label in LABELS]


def test_nothing_asked_is_the_null_condition_of_every_sample():
    made = model("mlp")
    assert torch.equal(made.sample(3, steps=3), made.sample(3, steps=3, condition=-1))


def test_a_condition_that_is_not_known_is_refused_before_sampling():
    with pytest.raises(UserError, match="knows labels 0 to 2"):
        model("mlp").sample(2, condition=5)
    with pytest.raises(UserError, match="unconditional"):
        model("mlp", classes=0).sample(2, condition=1)
    with pytest.raises(UserError, match="2 rows for 3 items"):
        model("mlp").sample(3, condition=[1, 2])


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_the_likelihood_is_that_given_the_condition(solver):
    exact, settings = mixture(), LikelihoodSettings(solver, 40)
    x = exact.draw(7).float()
    x[1] = torch.tensor([0.1, 3.9])
    asked = Condition(torch.tensor(LABELS))
    t = torch.full((7,), exact.process.t_min, dtype=torch.float64)
    expected = exact.log_density(x, t, asked)
    near = expected > -50
    assert near[1]
    assert near[2]
    found = log_likelihood(exact, x, settings, condition=asked)
    torch.testing.assert_close(found[near], expected[near], rtol=0, atol=0.02)
    split = log_likelihood(exact, x, LikelihoodSettings(solver, 40, batch_size=2), condition=asked)
    torch.testing.assert_close(split, found, rtol=1e-4, atol=1e-3)


def test_likelihoods_of_several_sets_have_each_its_conditions():
    made = model("mlp")
    one, two = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    settings = LikelihoodSettings(steps=4)
    both = measure_likelihoods(made, [one, two], None, settings, conditions=[2, None])
    torch.testing.assert_close(both[0].per_item, negative_log_likelihood(made, one, None, settings, condition=2))
    torch.testing.assert_close(both[1].per_item, negative_log_likelihood(made, two, None, settings))
    assert (both[0].per_item - negative_log_likelihood(made, one, None, settings)).abs().max() > 1e-4


def test_the_error_of_the_solver_is_measured_with_the_items_conditions():
    exact = mixture()
    x = exact.draw(5).float()
    settings = LikelihoodSettings(steps=60, error_items=3)
    asked = torch.cdist(x, torch.tensor(FAR)).argmin(1)
    (found,) = measure_likelihoods(exact, [x], None, settings, conditions=[asked])
    assert found.solver_error.max() < 0.1


def test_the_variational_bound_reads_conditions():
    made = model("unet", process={"name": "ddpm", "steps": 20})
    items = torch.randint(0, 17, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    whole = variational_bound(made, items, 17, condition=[0, 1, 2, -1])
    split = variational_bound(made, items, 17, condition=[0, 1, 2, -1], batch_size=3)
    torch.testing.assert_close(whole, split, rtol=1e-4, atol=1e-4)
    free = variational_bound(made, items, 17)
    assert (whole - free).abs()[:3].max() > 1e-3
    torch.testing.assert_close(whole[3], free[3])


RESTORE = {
    "inpaint": lambda m, x, s, c: inpaint(
        m, x, torch.tensor([True, False]), SamplingSettings("ddim", 4, batch_size=s), 2, condition=c
    ),
    "sdedit": lambda m, x, s, c: sdedit(m, x, 0.7, SamplingSettings("ddim", 4, batch_size=s), condition=c),
    "encode": lambda m, x, s, c: encode(m, x, 4, s, condition=c),
    "decode": lambda m, x, s, c: decode(m, x, 4, s, condition=c),
    "reconstruct": lambda m, x, s, c: reconstruct(m, x, 0.5, 4, batch_size=s, condition=c),
}


@pytest.mark.parametrize("how", RESTORE)
def test_restoring_reads_each_item_s_condition(how):
    made = model("mlp", process="vp")
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    whole = RESTORE[how](made, x, 500, LABELS)
    torch.testing.assert_close(RESTORE[how](made, x, 3, LABELS), whole, rtol=1e-4, atol=1e-5)
    free = RESTORE[how](made, x, 500, None)
    moved = (whole - free).abs().flatten(1).amax(1) > 1e-5
    assert moved.tolist() == [label != -1 for label in LABELS]
    with pytest.raises(UserError, match="knows labels"):
        RESTORE[how](made, x, 500, 9)


def test_encoding_and_decoding_under_one_condition_is_the_identity():
    exact = mixture()
    x = torch.tensor(FAR) + 0.1
    back = decode(exact, encode(exact, x, 200, condition=[0, 1, 2]), 200, condition=[0, 1, 2])
    torch.testing.assert_close(back, x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_ddim_with_labels_agrees_with_the_library(name):
    made = model(name, process="ddpm")
    asked = torch.tensor([0, 1, 2, 1])
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        theirs = ddim(made.network.body, scheduler, x, asked, 10)
        times = (scheduler.timesteps.double() + 1) / 1000
        process = DDPM(betas=tuple(scheduler.betas.double().tolist()))
        ratios = [float(ratio) for ratio in process.ratio(times)]
        grid = Grid(process, [*ratios, 0.0])
        again = ScoreModel(made.network, process, made.shape)
        noise = Noise(0, range(4), made.shape, made.device)
        y = x / float(process.signal(times[:1]))
        ours = SAMPLERS.entries["ddim"]().run(sigma_space(again, Condition(asked)), y, grid, noise, lambda state: None)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
