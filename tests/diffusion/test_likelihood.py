import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from msgm.data.pixels import dequantise
from msgm.diffusion import (
    NETWORKS,
    VE,
    VP,
    LikelihoodSettings,
    SamplingSettings,
    ScoreModel,
    likelihood,
    log_likelihood,
    negative_log_likelihood,
    sample,
)
from msgm.diffusion.likelihood import Likelihoods, measure_likelihood
from msgm.errors import RunError, UserError
from tests.helpers import PROCESS_CASES, Correlated, Counted, Mixture

CASES = pytest.mark.parametrize("process", PROCESS_CASES.values(), ids=PROCESS_CASES)
BIT = math.log(2)


def at_t_min(process, count):
    return torch.full((count,), process.t_min, dtype=torch.float64)


def correlated(process, dims=12):
    place = torch.arange(dims, dtype=torch.float64)
    return Correlated(process, 0.3 * 0.8 ** (place[:, None] - place).abs())


class Box(ScoreModel):
    """The exact model of data uniform on [-1, 1]^D."""

    def __init__(self, process, shape):
        super().__init__(nn.Linear(1, 1), process, shape)

    def eps(self, x, t, condition=None):
        signal, noise = (
            c(t.double()).view(-1, *[1] * (x.dim() - 1)) for c in (self.process.signal, self.process.noise)
        )
        y, ratio = -(x.double() / signal).abs(), noise / signal
        normal = torch.distributions.Normal(0, 1)
        above, below = (1 - y) / ratio, (-1 - y) / ratio
        mass = 0.5 * (torch.erfc(below / math.sqrt(2)) - torch.erfc(above / math.sqrt(2)))
        slope = (normal.log_prob(above).exp() - normal.log_prob(below).exp()) / mass
        return (-x.sign() * slope).to(x.dtype)


@pytest.mark.parametrize(("solver", "steps"), [("rk4", 25), ("rk4", 60), ("heun", 150)])
@pytest.mark.parametrize("exact_dims", [16, 0], ids=["exact", "hutchinson"])
@CASES
def test_gaussian_data_have_their_exact_likelihood(process, solver, steps, exact_dims):
    model = Mixture(process, torch.zeros(1, 6), [0.5])
    x = model.draw(16)
    settings = LikelihoodSettings(solver, steps, exact_dims=exact_dims)
    error = log_likelihood(model, x.float(), settings) - model.log_density(x, at_t_min(process, 16))
    assert error.abs().max() / (6 * BIT) < 1e-3


@CASES
def test_a_mixture_has_its_exact_likelihood(process):
    model = Mixture(process, [[-0.6, 0.3], [0.6, -0.3]], [0.25, 0.15])
    x = model.draw(128)
    error = log_likelihood(model, x, LikelihoodSettings(steps=60)) - model.log_density(x, at_t_min(process, 128))
    # The prior is a zero-mean Gaussian, so that each mode is off by about a(1) |mean| |z| / prior_std nats.
    assert error.abs().max() < 2e-2
    assert error.mean().abs() / (2 * BIT) < 1e-3


@CASES
def test_a_correlated_gaussian_has_its_exact_likelihood(process):
    model = correlated(process)
    x = model.draw(16)
    error = log_likelihood(model, x, LikelihoodSettings(steps=40)) - model.log_density(x, at_t_min(process, 16))
    assert error.abs().max() / (12 * BIT) < 1e-3


def hutchinson_errors(probes, count=600):
    model = correlated(VP())
    x = model.draw(count)
    exact = model.log_density(x, at_t_min(VP(), count))
    return log_likelihood(model, x, LikelihoodSettings(steps=15, exact_dims=0, probes=probes)) - exact


def test_hutchinson_is_right_in_the_mean_and_its_spread_falls_with_the_probes():
    one, sixteen = hutchinson_errors(1), hutchinson_errors(16)
    for errors in (one, sixteen):
        assert errors.mean().abs() < 4 * errors.std() / math.sqrt(len(errors)) + 1e-3 * 12 * BIT
    assert one.std() > 0.1
    assert (one.std() / sixteen.std()).item() == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("solver", ["heun", "rk4"])
def test_integration_converges(solver):
    model, order = Mixture(VE(), torch.zeros(1, 2), [0.5]), {"heun": 2, "rk4": 4}[solver]
    x = model.draw(8)
    few, more, exact = (log_likelihood(model, x, LikelihoodSettings(solver, n)) for n in (12, 24, 200))
    ratio = (few - exact).abs().mean() / (more - exact).abs().mean()
    assert math.log2(ratio) == pytest.approx(order, abs=0.9)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_constant_density_costs_the_log_of_the_levels(levels, monkeypatch):
    shape = (3, 4, 4)
    density = torch.full((5,), -48 * BIT, dtype=torch.float64)
    monkeypatch.setattr(likelihood, "_log_density", lambda *_: (density, torch.ones(5)))
    items = torch.randint(levels, (5, *shape))
    bits = negative_log_likelihood(ScoreModel(Counted(), VP(), shape), items, levels)
    torch.testing.assert_close(bits, torch.full((5,), math.log2(levels), dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_offset_is_seven_bits_for_256_levels():
    assert likelihood.bits_offset(256) == 7
    assert likelihood.bits_offset(17) == pytest.approx(math.log2(17) - 1, abs=1e-15)


@CASES
def test_uniform_data_have_density_two_to_the_minus_dims(process):
    x = 1.8 * torch.rand(8, 4, generator=torch.Generator().manual_seed(0)) - 0.9
    bits = -log_likelihood(Box(process, (4,)), x, LikelihoodSettings(steps=50)) / (4 * BIT)
    torch.testing.assert_close(bits, torch.ones(8, dtype=torch.float64), rtol=0, atol=1e-3)


@pytest.mark.parametrize("levels", [17, 256])
def test_uniform_levels_cost_their_log_end_to_end(levels):
    items = torch.randint(1, levels - 1, (6, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    bits = negative_log_likelihood(Box(VP(), (1, 2, 2)), items, levels, LikelihoodSettings(steps=50))
    torch.testing.assert_close(bits, torch.full((6,), math.log2(levels), dtype=torch.float64), rtol=0, atol=1e-3)


def test_levels_are_dequantised_within_their_bin(monkeypatch):
    seen, nothing = [], torch.zeros(40)
    monkeypatch.setattr(likelihood, "_log_density", lambda model, x, *_: seen.append(x) or (nothing, nothing))
    items = torch.arange(17).repeat(40, 1)
    negative_log_likelihood(ScoreModel(Counted(), VP(), (17,)), items, 17, LikelihoodSettings(repeats=2, error_items=0))
    low, high = dequantise(items, 17, 0.0), dequantise(items, 17, 1.0)
    place, again = ((x - low) / (high - low) for x in seen)
    assert (place - again).abs().min() > 1e-7
    assert abs((place - 0.5).mul(again - 0.5).mean()) < 4 / 12 / math.sqrt(680)
    assert place.min() > -1e-5
    assert place.max() < 1 + 1e-5
    assert place.mean().item() == pytest.approx(0.5, abs=4 / math.sqrt(12 * 680))
    assert place.var().item() == pytest.approx(1 / 12, rel=0.15)


def test_vectors_are_answered_in_nats():
    model = Mixture(VE(), torch.zeros(1, 2), [0.5])
    x = model.draw(5)
    torch.testing.assert_close(negative_log_likelihood(model, x, None), -log_likelihood(model, x))


@pytest.mark.parametrize("exact_dims", [16, 0], ids=["exact", "hutchinson"])
def test_values_do_not_depend_on_batch_size_or_batch_mates(exact_dims):
    model = correlated(VP())
    x = torch.randn(7, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = log_likelihood(model, x, LikelihoodSettings(steps=5, exact_dims=exact_dims))
    split = log_likelihood(model, x, LikelihoodSettings(steps=5, exact_dims=exact_dims, batch_size=2))
    alone = log_likelihood(model, x[4:5], LikelihoodSettings(steps=5, exact_dims=exact_dims), first=4)
    torch.testing.assert_close(split, whole, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(alone, whole[4:5], rtol=1e-9, atol=1e-9)


def test_bits_of_levels_do_not_depend_on_batch_size_or_batch_mates():
    model = correlated(VP())
    items = torch.randint(256, (6, 12), generator=torch.Generator().manual_seed(1))
    settings = LikelihoodSettings(steps=5, exact_dims=0)
    whole = negative_log_likelihood(model, items, 256, settings)
    split = negative_log_likelihood(model, items, 256, LikelihoodSettings(steps=5, exact_dims=0, batch_size=4))
    mates = torch.cat([items[:2], 255 - items[2:]])
    torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        negative_log_likelihood(model, mates, 256, settings)[:2], whole[:2], rtol=1e-5, atol=1e-5
    )


def test_probes_follow_the_seed_and_the_item():
    model = correlated(VP())
    x = torch.zeros(5, 12, dtype=torch.float64)
    settings = LikelihoodSettings(steps=5, exact_dims=0)
    same, again, differs = (log_likelihood(model, x, settings, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(same, again)
    assert (same - differs).abs().min() > 1e-6
    assert (same[:, None] - same)[~torch.eye(5, dtype=torch.bool)].abs().min() > 1e-6


def test_more_probes_extend_the_fewer():
    x = torch.zeros(3, 2, 5)
    few, many = (
        likelihood._probes(x, LikelihoodSettings(probes=n, exact_dims=0), 0, range(7, 7 + len(x)), 0) for n in (2, 5)
    )
    for i in range(2):
        torch.testing.assert_close(few[i] * math.sqrt(2), many[i] * math.sqrt(5))
    assert (many[0].abs() * math.sqrt(5) - 1).abs().max() < 1e-6


class Fragile(Counted):
    def __init__(self, after):
        super().__init__()
        self.spare, self.frozen = nn.Linear(2, 2), nn.Parameter(torch.ones(1), requires_grad=False)
        self.after = after

    def forward(self, x, label):
        assert not any(p.requires_grad for p in self.parameters())
        assert not self.training
        if self.calls == self.after:
            raise RuntimeError("out of luck")
        return super().forward(x, label)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_gradients_and_training_mode_are_restored(training, fails):
    network = Fragile(after=3 if fails else -1).train(training)
    before = [p.requires_grad for p in network.parameters()]
    model = ScoreModel(network, VP(), (4,))
    if fails:
        with pytest.raises(RuntimeError, match="out of luck"):
            log_likelihood(model, torch.zeros(2, 4))
    else:
        log_likelihood(model, torch.zeros(2, 4))
    assert [p.requires_grad for p in network.parameters()] == before
    assert before.count(False) == 1
    assert network.training is training
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("probes", [1, 4])
@pytest.mark.parametrize("dims", [3, 30])
@pytest.mark.parametrize(("solver", "stages"), [("heun", 2), ("rk4", 4)])
def test_each_stage_is_one_forward_pass(solver, stages, dims, probes):
    network = Counted()
    settings = LikelihoodSettings(solver, steps=6, probes=probes)
    log_likelihood(ScoreModel(network, VP(), (dims,)), torch.zeros(5, dims), settings)
    assert network.calls == 6 * stages == settings.evaluations


def test_values_are_float64_on_the_cpu_without_gradient():
    value = log_likelihood(ScoreModel(Counted(), VP(), (3,)), torch.zeros(4, 3), LikelihoodSettings(steps=2))
    assert (value.dtype, value.shape, value.device.type, value.requires_grad) == (torch.float64, (4,), "cpu", False)


def test_it_works_under_no_grad():
    model = Mixture(VE(), torch.zeros(1, 2), [0.5])
    x = model.draw(3)
    expected = log_likelihood(model, x)
    with torch.no_grad():
        assert torch.equal(log_likelihood(model, x), expected)


def test_the_protocol_states_solver_evaluations_and_divergence():
    assert LikelihoodSettings().describe(784) == "PF-ODE, rk4, 100 evaluations, 1 Rademacher probe(s)"
    assert LikelihoodSettings("heun", 10).describe(2) == "PF-ODE, heun, 20 evaluations, exact divergence"
    # Nothing is drawn for vectors with an exact divergence, and so nothing is repeated.
    assert "repeats" not in LikelihoodSettings(repeats=3).describe(2)
    assert "repeats" in LikelihoodSettings(repeats=3).describe(4, levels=17)
    adaptive = LikelihoodSettings("dopri5", probes=2, repeats=3)
    assert adaptive.describe(784) == "PF-ODE, dopri5, tolerance 1e-05, 2 Rademacher probe(s), mean of 3 repeats"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0),
        ("probes", 0),
        ("repeats", 0),
        ("batch_size", 0),
        ("exact_dims", -1),
        ("tolerance", 0.0),
        ("tolerance", 1.0),
        ("tolerance", math.nan),
    ],
)
def test_bad_settings_are_user_errors(key, value):
    with pytest.raises(UserError, match=f"^evaluation.likelihood.{key} must .*{value}[^.]*[.]$"):
        LikelihoodSettings(**{key: value})


def test_an_unknown_solver_is_told_the_nearest():
    with pytest.raises(UserError, match="known: heun, rk4, dopri5. Did you mean 'dopri5'"):
        LikelihoodSettings("dopri")


@pytest.mark.parametrize("exact_dims", [16, 0], ids=["exact", "hutchinson"])
@CASES
def test_the_adaptive_solver_meets_the_exact_likelihood(process, exact_dims):
    model = correlated(process, 6)
    x = model.draw(8)
    adaptive = log_likelihood(model, x, LikelihoodSettings("dopri5", tolerance=1e-6, exact_dims=exact_dims))
    steps = log_likelihood(model, x, LikelihoodSettings(steps=100, exact_dims=exact_dims))
    assert (adaptive - steps).abs().max() < 1e-3
    if exact_dims:
        assert (adaptive - model.log_density(x, at_t_min(process, 8))).abs().max() / (6 * BIT) < 1e-3


def test_a_smaller_tolerance_costs_more_and_errs_less():
    model = Mixture(VP(), [[-0.6, 0.3], [0.6, -0.3]], [0.25, 0.15])
    x = model.draw(16)
    exact = log_likelihood(model, x, LikelihoodSettings(steps=400))
    found = [measure_likelihood(model, x, None, LikelihoodSettings("dopri5", tolerance=t)) for t in (1e-3, 1e-6)]
    errors = [(-f.per_item - exact).abs().mean() for f in found]
    assert errors[1] < 1e-4 < errors[0]
    assert found[1].evaluations.mean() > 2 * found[0].evaluations.mean()


def test_an_adaptive_value_does_not_depend_on_batch_size_or_batch_mates():
    model = correlated(VP())
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[1] *= 20
    settings = LikelihoodSettings("dopri5", tolerance=1e-4, exact_dims=0)
    whole = log_likelihood(model, x, settings)
    alone = torch.cat([log_likelihood(model, x[n : n + 1], settings, first=n) for n in range(5)])
    torch.testing.assert_close(alone, whole, rtol=1e-9, atol=1e-9)


def test_an_adaptive_solver_out_of_evaluations_restores_the_model():
    network = Counted(math.nan).train()
    with pytest.raises(RunError, match="adaptive solver"):
        log_likelihood(ScoreModel(network, VP(), (4,)), torch.zeros(2, 4), LikelihoodSettings("dopri5"))
    assert network.training
    assert network.weight.requires_grad


def repeated(repeats, **settings):
    model = correlated(VP())
    items = torch.randint(256, (6, 12), generator=torch.Generator().manual_seed(1))
    settings = LikelihoodSettings(steps=4, exact_dims=0, repeats=repeats, **settings)
    return measure_likelihood(model, items, 256, settings)


def test_repeats_are_streams_of_their_own_and_the_first_is_the_value_without_them():
    one, three = repeated(1), repeated(3)
    assert three.values.shape == (6, 3)
    assert torch.equal(three.values[:, :1], one.values)
    assert (three.values[:, 1:] - three.values[:, :1]).abs().min() > 1e-6
    assert (three.values[:, 1] - three.values[:, 2]).abs().min() > 1e-6
    assert torch.equal(three.per_item, three.values.mean(1))


def test_repeats_of_a_vector_are_new_probes():
    model = correlated(VP())
    x = model.draw(4)
    settings = [LikelihoodSettings(steps=4, exact_dims=0, repeats=n) for n in (1, 2)]
    values = measure_likelihood(model, x, None, settings[1]).values
    assert torch.equal(-values[:, 0], log_likelihood(model, x, settings[0]))
    torch.testing.assert_close(-values.mean(1), log_likelihood(model, x, settings[1]), rtol=0, atol=1e-12)


def test_what_draws_nothing_is_not_repeated():
    network = Counted()
    settings = LikelihoodSettings(steps=3, repeats=5, error_items=0)
    found = measure_likelihood(ScoreModel(network, VP(), (3,)), torch.zeros(2, 3), None, settings)
    assert found.values.shape == (2, 1)
    assert network.calls == settings.evaluations


def test_standard_errors():
    values = torch.tensor([[1.0, 2.0], [4.0, 4.0], [3.0, 9.0]], dtype=torch.float64)
    found = Likelihoods(values, torch.ones(3), torch.tensor([0.1, 0.3]), "nats", "by hand")
    means = torch.tensor([1.5, 4.0, 6.0])
    assert found.standard_error == pytest.approx(means.std().item() / math.sqrt(3))
    assert found.draw_error == pytest.approx(math.sqrt((0.5 + 0 + 18) / 2) / 3)
    assert found.summary() == {
        "mean": pytest.approx(23 / 6),
        "standard_error": found.standard_error,
        "draw_error": found.draw_error,
        "solver_error": pytest.approx(0.3),
        "n": 3,
        "unit": "nats",
        "protocol": "by hand",
    }


def test_one_item_and_one_repeat_have_no_standard_error():
    found = Likelihoods(torch.ones(1, 1), torch.ones(1), torch.zeros(0), "nats", "by hand").summary()
    assert (found["standard_error"], found["draw_error"]) == (None, None)


def test_the_draw_error_falls_with_the_repeats_and_the_probes():
    few, repeats, probes = repeated(8), repeated(64), repeated(8, probes=8)
    assert few.draw_error / repeats.draw_error == pytest.approx(math.sqrt(8), rel=0.4)
    assert probes.draw_error < few.draw_error / 2


def test_the_protocol_is_saved_with_the_number():
    found = repeated(2).summary()
    assert found["unit"] == "bits/dim"
    assert found["protocol"] == (
        "uniform dequantisation of 256 levels, PF-ODE, rk4, 16 evaluations, 1 Rademacher probe(s), mean of 2 repeats, "
        f"error |r_4 - r_2| on the first 16, from t = 1e-05; {VP().describe_top()}; seed 0"
    )
    adaptive = repeated(1, solver="dopri5", tolerance=1e-3)
    assert f"tolerance 0.001, 1 Rademacher probe(s), {adaptive.evaluations.mean():.0f} evaluations" in adaptive.protocol


def unet(shape=(1, 8, 8)):
    """A random U-Net whose output is not zero."""
    torch.manual_seed(1)
    network = NETWORKS.build({"name": "unet", "channels": [8], "mid_attention": False}).build(shape)
    return ScoreModel(network, VP(), shape)


def test_dopri5_of_an_item_is_the_same_to_the_bit_whatever_its_batch():
    model, settings = unet(), LikelihoodSettings("dopri5", tolerance=0.1)
    x = torch.rand(35, *model.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = log_likelihood(model, x, settings)
    assert whole.unique().numel() == 35
    for first, count, size in ((34, 1, 500), (7, 2, 500), (20, 6, 4)):
        part = log_likelihood(model, x[first : first + count], replace(settings, batch_size=size), first=first)
        assert torch.equal(part, whole[first : first + count]), (first, count, size)


@pytest.mark.parametrize("solver", ["rk4", "heun"])
def test_the_error_of_fixed_steps_is_what_half_the_steps_change_undivided(solver):
    model, items = correlated(VP()), torch.randint(256, (6, 12), generator=torch.Generator().manual_seed(1))
    settings = LikelihoodSettings(solver, steps=9, exact_dims=0, repeats=2, error_items=4)
    found = measure_likelihood(model, items, 256, settings)
    half = measure_likelihood(model, items, 256, replace(settings, steps=4))
    assert torch.equal(found.solver_error, (found.values - half.values)[:4, 0].abs())
    assert found.solver_error.min() > 1e-6
    assert found.summary()["solver_error"] == found.solver_error.max()
    assert "error |r_9 - r_4| on the first 4" in found.protocol


@pytest.mark.parametrize("settings", [{"solver": "dopri5"}, {"steps": 1}, {"error_items": 0}])
def test_where_no_error_is_estimated_none_is_claimed(settings):
    found = measure_likelihood(correlated(VP()), torch.zeros(2, 12), None, LikelihoodSettings(**settings))
    assert len(found.solver_error) == 0
    assert found.summary()["solver_error"] is None
    assert "error |r" not in found.protocol


def test_the_error_costs_half_the_passes_of_its_items():
    network = Counted()
    settings = LikelihoodSettings(steps=8, error_items=2, batch_size=1)
    measure_likelihood(ScoreModel(network, VP(), (3,)), torch.zeros(5, 3), None, settings)
    assert network.calls == 5 * 32 + 2 * 16


def test_adaptive_samples_are_the_same_to_the_bit_whatever_their_batch():
    model = unet()
    settings = SamplingSettings("pf-ode-adaptive", options={"rtol": 1e-2, "atol": 1e-2})
    whole = sample(model, 34, settings, seed=3)
    for first, count, size in ((0, 1, 500), (33, 1, 500), (5, 20, 7)):
        part = sample(model, count, replace(settings, batch_size=size), seed=3, first=first)
        assert torch.equal(part, whole[first : first + count]), (first, count, size)
