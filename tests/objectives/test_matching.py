"""Losses that match the score without the drawn noise, against closed forms on Gaussian data."""

import dataclasses

import pytest
import torch

from msgm.diffusion import VP, ScoreModel
from msgm.errors import UserError
from msgm.objectives import Anchor, EraseDiff, Obtuse, Standard, mean_square, noised
from msgm.objectives.matching import MATCHING, FiniteDifference, Sliced, gaussian, rademacher

CASES = {
    "plain": Sliced(variance_reduced=False),
    "reduced": Sliced(),
    "reduced-gaussian": Sliced(directions="gaussian"),
    "plain-gaussian": Sliced(variance_reduced=False, directions="gaussian"),
    "finite-difference": FiniteDifference(),
}
DIMS, WIDTH, TIME = 4, 0.7, 0.2


def gaussians(count, seed=0, dims=DIMS):
    """Noised draws of N(0, WIDTH^2 I) at one time, in float64."""
    g = torch.Generator().manual_seed(seed)
    x0, eps = (torch.randn(count, dims, generator=g, dtype=torch.float64) for _ in range(2))
    uniform = torch.rand(count, dims, generator=g, dtype=torch.float64)
    times = torch.full((count,), TIME, dtype=torch.float64)
    return noised(VP(), WIDTH * x0, times, eps, lambda name="": uniform)


def slope():
    """The factor c of the exact noise prediction c x on such data."""
    t = torch.tensor([TIME], dtype=torch.float64)
    signal, noise = VP().signal(t), VP().noise(t)
    return float(noise / (noise**2 + (signal * WIDTH) ** 2))


@pytest.mark.parametrize("matching", CASES.values(), ids=CASES)
@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.7])
def test_in_expectation_it_is_the_denoising_loss(matching, factor):
    batch = gaussians(100_000)

    def predict(x, t, condition):
        return factor * slope() * x + 0.3 * torch.sin(x)

    with torch.no_grad():
        denoising = mean_square(predict(batch.x, batch.t, None) - batch.eps)
    found = matching.losses(predict, batch).detach()
    gap = found - denoising
    # By finite differences a sine is off by at most a sixth of the squared step times its third derivative.
    allowed = 0.002 if isinstance(matching, FiniteDifference) else 0.0
    assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5 + allowed
    assert gap.std() > 0.01


@pytest.mark.parametrize("matching", CASES.values(), ids=CASES)
def test_its_minimiser_is_the_exact_score(matching):
    batch = gaussians(100_000)
    factor = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    losses = [matching.losses(lambda x, t, c, f=f: f * x, batch).mean() for f in (factor, factor + 1, factor + 2)]
    low, middle, high = (float(loss.detach()) for loss in losses)
    best = 1.5 - (high - low) / (2 * (high - 2 * middle + low))  # the loss is a parabola in the factor
    assert best == pytest.approx(slope(), rel=0.02)
    (gradient,) = torch.autograd.grad(losses[0], factor)
    assert gradient < 0


def test_directions_of_length_one_would_mislead_the_variance_reduced_form():
    batch = gaussians(50_000)
    unit = rademacher(batch) / DIMS**0.5
    factor = 1.0
    squares = mean_square(factor * batch.x)
    divergence = batch.noise[:, 0] * factor * unit.square().sum(1) / DIMS
    wrong = (divergence / squares.mean()).mean()
    assert float(wrong) == pytest.approx(slope() / DIMS, rel=0.05)


def test_finite_differences_are_exact_for_linear_predictions_whatever_the_step():
    batch = gaussians(50)
    results = [FiniteDifference(step).losses(lambda x, t, c: 0.8 * x, batch) for step in (0.01, 0.1, 3.0)]
    for found in results[1:]:
        torch.testing.assert_close(found, results[0])


def test_directions_have_unit_covariance():
    batch = gaussians(50_000)
    for directions in (rademacher(batch), gaussian(batch)):
        covariance = directions.T @ directions / len(directions)
        torch.testing.assert_close(covariance, torch.eye(DIMS, dtype=torch.float64), atol=0.03, rtol=0)
    assert set(rademacher(batch).unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("matching", CASES.values(), ids=CASES)
@pytest.mark.parametrize("attention", [[], [4]])
def test_its_gradient_reaches_every_weight_of_a_network(matching, attention):
    model = ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8, 8], attention=attention)
    g = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(4, 1, 8, 8, generator=g) for _ in range(2))
    batch = noised(model.process, x0, torch.linspace(0.1, 0.9, 4), eps)
    for weight in model.network.parameters():  # a new network's last layers may be zero
        torch.nn.init.normal_(weight, std=0.1)
    losses = matching.losses(model.eps, batch)
    assert losses.shape == (4,)
    losses.mean().backward()
    gradients = [weight.grad for weight in model.network.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("settings", [{"step": 0.0}, {"step": -1.0}, {"step": float("inf")}])
def test_steps_that_are_none_are_refused(settings):
    with pytest.raises(UserError, match="matching.step"):
        FiniteDifference(**settings)


def test_directions_that_are_unknown_are_refused():
    with pytest.raises(UserError, match="directions"):
        Sliced(directions="sphere")


def test_they_are_registered():
    assert sorted(MATCHING.entries) == ["finite-difference", "sliced"]
    assert dataclasses.is_dataclass(MATCHING.entries["sliced"])


def predict(x, t, condition=None):
    return 0.4 * x + 0.1 * torch.sin(x)


def weighted_erasediff(**settings):
    return EraseDiff(variant="weighted", **settings)


@pytest.mark.parametrize("made", [Obtuse, EraseDiff, weighted_erasediff])
@pytest.mark.parametrize("setting", ["sliced", {"name": "sliced"}])
def test_an_objective_matches_so_on_the_items_that_it_keeps_alone(made, setting):
    retain, forget = gaussians(6), gaussians(5, seed=1)
    usual = made(alpha=0.7, every=1).terms(predict, retain, forget)
    found = made(alpha=0.7, every=1, matching=setting).terms(predict, retain, forget)
    assert {name: term.weight for name, term in found.items()} == {name: term.weight for name, term in usual.items()}
    torch.testing.assert_close(found["forget"].values, usual["forget"].values)
    torch.testing.assert_close(found["retain"].values, Sliced().losses(predict, retain))
    assert not torch.allclose(found["retain"].values, usual["retain"].values)


def test_a_step_without_forget_batch_matches_so_too():
    retain = gaussians(6)
    found = Obtuse(alpha=0.7, matching="finite-difference").terms(predict, retain, None)
    torch.testing.assert_close(found["retain"].values, FiniteDifference().losses(predict, retain))
    found = Standard(matching={"name": "finite-difference", "step": 0.01}).terms(predict, retain, None)
    torch.testing.assert_close(found["all"].values, FiniteDifference(0.01).losses(predict, retain))


def test_a_target_of_the_base_model_goes_with_no_other_matching():
    with pytest.raises(UserError, match=r"anchor\.by: base"):
        Obtuse(matching="sliced", anchor=Anchor(by="base"))


def test_an_unknown_matching_is_refused_with_the_nearest_name():
    for given in ("slicd", {"name": "slicd"}):
        with pytest.raises(UserError, match="Did you mean 'sliced'"):
            Obtuse(matching=given)


def test_directions_are_not_the_numbers_that_an_objective_draws_itself():
    batch = noised(VP(), torch.zeros(500, 4), torch.full((500,), 0.5), torch.randn(500, 4))
    own = torch.where(batch.uniform() < 0.5, -1.0, 1.0)
    for directions in (rademacher(batch), gaussian(batch)):
        assert abs(float((own * directions).mean())) < 0.15
