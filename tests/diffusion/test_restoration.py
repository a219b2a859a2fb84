"""Restoration against conditional Gaussians in closed form, and round trips of the PF-ODE."""

import itertools

import pytest
import torch

from msgm.diffusion import SAMPLERS, SamplingSettings, ScoreModel, sample
from msgm.diffusion import restoration as module
from msgm.diffusion.networks import NETWORKS
from msgm.diffusion.processes import VE, VP
from msgm.diffusion.restoration import (
    decode,
    encode,
    inpaint,
    inpainting_evaluations,
    inpainting_settings,
    perturb,
    reconstruct,
    sdedit,
)
from msgm.errors import UserError
from tests.helpers import PROCESS_CASES, Correlated, Counted, Mixture

CASES = pytest.mark.parametrize("process", PROCESS_CASES.values(), ids=PROCESS_CASES)
COVARIANCE = torch.tensor([[1.0, 0.6, 0.3], [0.6, 1.0, 0.5], [0.3, 0.5, 0.8]], dtype=torch.float64)
KNOWN = torch.tensor([True, False, False])
MEAN = torch.tensor([0.6, 0.3], dtype=torch.float64)  # of the others, given that the first one is 1
SPREAD = COVARIANCE[1:, 1:] - torch.outer(COVARIANCE[1:, 0], COVARIANCE[0, 1:]) / COVARIANCE[0, 0]


class Repeated(Correlated):
    """One item is ``count`` independent draws, so that thousands of them cost one stream of noise."""

    def __init__(self, process, covariance, count):
        super().__init__(process, covariance)
        self.shape = (count, len(covariance))

    def eps(self, x, t, condition=None):
        return super().eps(x.flatten(0, 1), t.repeat_interleave(x.shape[1])).view_as(x)


def unknown_moments(process, resamples, steps=50, count=4000):
    model = Repeated(process, COVARIANCE, count)
    x = torch.tensor([1.0, 9.0, 9.0]).expand(1, count, 3)
    settings = SamplingSettings("reverse-diffusion", steps)
    done = inpaint(model, x, KNOWN, settings, resamples)[0].double()
    assert (done[:, 0] == 1).all()
    return done[:, 1:].mean(0), done[:, 1:].T.cov()


@pytest.mark.parametrize("process", [VP(), VE()], ids=["vp", "ve"])
def test_resampled_inpainting_has_the_exact_conditional_mean_and_covariance(process):
    mean, covariance = unknown_moments(process, resamples=30)
    # Four standard errors of 4000 draws are .05 (mean) and .06 (variance); 30 resamples leave a bias of .01.
    torch.testing.assert_close(mean, MEAN, rtol=0, atol=0.06)
    torch.testing.assert_close(covariance, SPREAD, rtol=0, atol=0.07)


def mean_without_noise(monkeypatch, resamples, steps, sampler="reverse-diffusion", correlation=0.5):
    """The model is linear, so what becomes of zero noise is the mean over the noise, exactly."""
    monkeypatch.setattr(module.Noise, "__call__", lambda self: torch.zeros(len(self.seeds), *self.shape))
    model = Correlated(VP(), [[1.0, correlation], [correlation, 1.0]])
    done = inpaint(model, torch.ones(1, 2), KNOWN[:2], SamplingSettings(sampler, steps), resamples)
    return done[0, 1].item()


@pytest.mark.parametrize(("correlation", "mean"), [(0.5, 0.27), (0.8, 0.50), (0.95, 0.72)])
def test_the_plain_projector_is_biased_as_documented(monkeypatch, correlation, mean):
    assert mean_without_noise(monkeypatch, 1, 1000, correlation=correlation) == pytest.approx(mean, abs=0.006)


@pytest.mark.parametrize("sampler", ["ancestral", "dpm++2m"])
def test_the_bias_falls_as_one_over_the_resamples(monkeypatch, sampler):
    errors = [0.5 - mean_without_noise(monkeypatch, resamples, 50, sampler) for resamples in (10, 20, 40)]
    for before, after in itertools.pairwise(errors):
        assert 0 < after < 0.6 * before
    assert errors[-1] < 0.025


def image_model(process, seed=0):
    torch.manual_seed(seed)
    network = NETWORKS.build({"name": "unet", "channels": [8], "mid_attention": False}).build((1, 8, 8))
    return ScoreModel(network, process, (1, 8, 8))


def test_the_known_part_is_kept_and_the_rest_is_not_read():
    model, known = two_bumps(VP()), torch.tensor([True, False])
    x = torch.tensor([[0.4, 3.0], [-0.7, float("nan")]])
    done = inpaint(model, x, known, SamplingSettings("euler-maruyama", 10), 2)
    torch.testing.assert_close(done[:, 0], x[:, 0], rtol=0, atol=0)
    other = inpaint(model, torch.tensor([[0.4, -8.0], [-0.7, 0.0]]), known, SamplingSettings("euler-maruyama", 10), 2)
    torch.testing.assert_close(done, other, rtol=0, atol=0)


def two_bumps(process):
    return Mixture(process, [[-1.0, 0.5], [1.0, 0.2]], [0.4, 0.3], [1.0, 2.0])


@pytest.mark.parametrize("name", SAMPLERS.entries)
def test_every_sampler_inpaints_with_the_evaluations_it_announces(name):
    network = Counted()
    model, settings = ScoreModel(network, VP(), (3,)), SamplingSettings(name, 4)
    done = inpaint(model, torch.ones(2, 3), KNOWN, settings, 3)
    assert done.isfinite().all()
    announced = inpainting_evaluations(settings, 3)
    assert announced is None or network.calls == announced


def test_the_default_takes_every_step_but_the_last_as_often_as_is_asked():
    assert inpainting_evaluations(inpainting_settings(), 10) == 99 * 10 + 1


METHODS = {
    "inpaint": lambda model, x, size, **numbers: inpaint(
        model, x, torch.tensor([True, False]), SamplingSettings("euler-maruyama", 8, batch_size=size), 2, **numbers
    ),
    "reconstruct": lambda model, x, size, **numbers: reconstruct(model, x, 0.3, 10, batch_size=size, **numbers),
    "sdedit": lambda model, x, size, **numbers: sdedit(
        model, x, 0.3, SamplingSettings("euler-maruyama", 8, batch_size=size), **numbers
    ),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_an_item_depends_on_its_number_alone(method):
    model = two_bumps(VP())
    x = model.draw(7).float()
    whole = method(model, x, 500)
    torch.testing.assert_close(whole, method(model, x, 3), rtol=1e-5, atol=1e-6)
    alone = method(model, x[[5, 2]], 500, numbers=[5, 2])
    torch.testing.assert_close(alone, whole[[5, 2]], rtol=1e-5, atol=1e-6)
    assert (method(model, x, 500, seed=1) - whole).abs().amax(1).min() > 1e-4
    assert (method(model, x[:1].expand(2, -1), 500)).diff(dim=0).abs().max() > 1e-4


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_restoring_leaves_the_model_as_it_is(method):
    model = ScoreModel(Counted(), VP(), (2,))
    seen = []
    model.network.register_forward_hook(lambda network, *_: seen.append(network.training))
    for training in (True, False):
        model.network.train(training)
        done = method(model, torch.ones(2, 2), 500)
        assert model.network.training is training
        assert not done.requires_grad
    assert not any(seen)


@CASES
def test_encoding_and_decoding_return_the_input_of_an_exact_model(process):
    model = two_bumps(process)
    x = model.draw(100).float()
    back = decode(model, encode(model, x, steps=100), steps=100)
    assert (back - x).abs().max() < 1e-2


@CASES
def test_latents_of_data_are_the_prior(process):
    model = Mixture(process, torch.full((1, 300), 0.3), [0.6])
    latents = encode(model, model.draw(20).float())
    assert latents.mean().item() == pytest.approx(
        0.3 * process.signal(torch.ones(1)).item(), abs=0.06 * process.prior_std
    )
    assert latents.std().item() == pytest.approx(process.prior_std, rel=0.03)


def test_decoding_the_prior_is_sampling():
    model = two_bumps(VP())
    x = decode(model, torch.randn(1500, 2, generator=torch.Generator().manual_seed(0)))
    assert (x[:, 0] > 0).double().mean().item() == pytest.approx(2 / 3, abs=0.06)


def test_reconstruction_moves_the_latent_by_the_noise_of_time_t():
    model = two_bumps(VP())
    x = model.draw(50).float()
    by_hand = decode(model, perturb(model, encode(model, x), 0.02))
    torch.testing.assert_close(reconstruct(model, x, 0.02), by_hand)
    # A latent moved by .08 of its standard deviation is decoded near the item.
    assert 1e-3 < (by_hand - x).abs().mean() < 0.1


@CASES
def test_perturbing_has_the_moments_of_the_process(process):
    model, t = ScoreModel(Counted(), process, (20_000,)), torch.tensor(0.3)
    moved = perturb(model, torch.full((1, 20_000), 0.5), 0.3)
    signal, noise = process.signal(t).item(), process.noise(t).item()
    assert moved.mean().item() == pytest.approx(0.5 * signal, abs=5 * noise / 20_000**0.5)
    assert moved.std().item() == pytest.approx(noise, rel=0.03)


def test_sdedit_keeps_the_item_at_small_t_and_forgets_it_at_one():
    model = two_bumps(VP())
    x = torch.tensor([[-1.0, 0.5]]).expand(600, -1)
    settings = SamplingSettings("euler-maruyama", 60)
    near, far = sdedit(model, x, 0.05, settings), sdedit(model, x, 1.0, settings)
    assert (near - x).abs().max() < 0.8
    assert (far[:, 0] > 0).double().mean().item() == pytest.approx(2 / 3, abs=0.08)


def test_sdedit_from_time_one_is_sampling():
    model = Mixture(VP(), torch.full((1, 50), 0.3), [0.6])
    drawn, edited = sample(model, 40), sdedit(model, torch.zeros(40, 50), 1.0)
    assert edited.mean().item() == pytest.approx(drawn.mean().item(), abs=0.06)
    assert edited.std().item() == pytest.approx(drawn.std().item(), abs=0.03)


def test_a_trained_networks_round_trip_returns_the_images():
    model = image_model(VP())
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1)).mul(2).sub(1)
    optimiser = torch.optim.Adam(model.network.parameters(), 2e-3)
    draws = torch.Generator().manual_seed(0)
    for _ in range(40):
        t = VP().training_times(torch.rand(16, generator=draws))
        z = torch.randn(x.shape, generator=draws)
        noised = VP().signal(t)[:, None, None, None] * x + VP().noise(t)[:, None, None, None] * z
        loss = (model.eps(noised, t) - z).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 1
    back = decode(model, encode(model, x[:4], steps=100), steps=100)
    assert (back - x[:4]).abs().max() < 1e-2


def test_masks_of_all_allowed_sizes_are_one_mask():
    model = image_model(VP())
    plane = torch.zeros(8, 8, dtype=torch.bool)
    plane[4:] = True
    settings = SamplingSettings("euler-maruyama", 3)
    done = [inpaint(model, torch.zeros(1, 1, 8, 8), mask, settings, 1) for mask in (plane, plane[None])]
    torch.testing.assert_close(done[0], done[1], rtol=0, atol=0)


@pytest.mark.parametrize("size", [(8, 4), (1, 1), (3, 8, 8), (8,)])
def test_a_mask_of_the_wrong_size_is_a_user_error(size):
    wrong = "x".join(map(str, size))
    with pytest.raises(UserError, match=f"the mask has size {wrong}, but the items have 8x8"):
        inpaint(image_model(VP()), torch.zeros(1, 1, 8, 8), torch.ones(size, dtype=torch.bool))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model, x: inpaint(model, x, KNOWN[:2], resamples=0), "resamples must be at least 1, got 0"),
        (lambda model, x: reconstruct(model, x, 0.0), r"t must lie in \(0, 1\], got 0"),
        (lambda model, x: sdedit(model, x, 1.5), r"t must lie in \(0.001, 1\], got 1.5"),
        (lambda model, x: sdedit(model, x, 1e-4), r"t must lie in \(0.001, 1\], got 0.0001"),
    ],
)
def test_settings_out_of_range_are_user_errors(call, words):
    with pytest.raises(UserError, match=words):
        call(two_bumps(VP()), torch.zeros(1, 2))
