"""Guidance: what each kind does on exact scores, where it does nothing, and that samples stay apart."""

import math
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

from msgm.diffusion import GUIDANCE, SAMPLERS, VE, VP, Condition, Flow, SamplingSettings, ScoreModel, log_likelihood
from msgm.diffusion.augmented import basis_probes, eps_and_trace
from msgm.diffusion.guidance import (
    DNG,
    Classifier,
    ClassifierFree,
    Negative,
    NegativePrompt,
    Reject,
    SafeDenoiser,
    SafeLatent,
    Spell,
)
from msgm.diffusion.guidance.posterior import Posterior, longest_distance, trained_posterior
from msgm.diffusion.guidance.prompted import STRENGTHS
from msgm.diffusion.restoration import inpaint
from msgm.diffusion.samplers import Grid, Noise, sigma_space
from msgm.errors import UserError
from msgm.objectives import Setup
from tests.diffusion.small_pipelines import stable_diffusion
from tests.diffusion.test_conditional import DIT, model
from tests.helpers import Mixture

RETAIN, FORGET = [[-1.5, 0.0], [1.5, 0.5]], [[0.0, 3.0]]
SHARES = [0.4, 0.4, 0.2]
PROCESSES = pytest.mark.parametrize("process", [VP(), VE(), Flow()], ids=["vp", "ve", "flow"])


def mixture(process=None):
    """Two components to retain, and the third, of label 2, to forget."""
    return Mixture(process or VP(), RETAIN + FORGET, [0.4] * 3, SHARES)


def retained(process=None):
    return Mixture(process or VP(), RETAIN, [0.4] * 2)


def points(process, count=9):
    g = torch.Generator().manual_seed(2)
    t = torch.linspace(max(0.05, process.t_min), process.top, count, dtype=torch.float64)
    x0 = mixture(process).draw(count)
    z = torch.randn(count, 2, generator=g, dtype=torch.float64)
    return process.signal(t)[:, None] * x0 + process.noise(t)[:, None] * z, t


def labels(*numbers):
    return Condition(torch.tensor(numbers))


def same_samples(guidance, **asked):
    """Whether guided samples are those of the model, to the bit."""
    made = model("mlp", process="vp")
    guided = guidance.wrap(made)
    return torch.equal(guided.sample(5, "ancestral", 6, **asked), made.sample(5, "ancestral", 6, **asked))


@pytest.mark.parametrize(
    "guidance",
    [
        ClassifierFree(scale=1.0),
        Negative(scale=0.0, label=2),
        DNG(scale=0.0, label=2),
        DNG(prior=0.0, label=2),
        Classifier(scale=0.0),
    ],
    ids=lambda guidance: f"{guidance.name} {guidance}",
)
@pytest.mark.parametrize("asked", [None, 1])
def test_guidance_without_weight_is_the_model_to_the_bit(guidance, asked):
    assert same_samples(guidance, condition=asked)


def test_scale_0_is_the_unconditional_model_to_the_bit():
    made = model("mlp", process="vp")
    assert torch.equal(ClassifierFree(scale=0.0).wrap(made).sample(4, steps=5, condition=1), made.sample(4, steps=5))
    assert same_samples(ClassifierFree(scale=3.0))


def test_a_guided_view_is_not_guided_a_second_time():
    once = ClassifierFree(scale=3.0).wrap(model("mlp", process="vp"))
    hidden = Reject().wrap(once)
    for view in (once, hidden):
        with pytest.raises(UserError, match=r"^sampling.guidance: these samples .* never applied twice"):
            view.sample(2, steps=3, condition=1, guidance=2.0)
    assert once.sample(2, steps=3, condition=1).isfinite().all()


@PROCESSES
def test_classifier_free_guidance_extrapolates_the_exact_scores(process):
    exact = mixture(process)
    x, t = points(process)
    asked = labels(*[0, 1, 2] * 3)
    null, given = exact.score(x, t), exact.score(x, t, asked)
    exact.calls = 0
    found = ClassifierFree(scale=2.5).wrap(exact).score(x, t, asked)
    assert exact.calls == 1
    torch.testing.assert_close(found, null + 2.5 * (given - null))


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_both_ends_are_exact_where_the_scores_are_far_apart(scale):
    exact = Mixture(VP(), [[-3.0, 0.0], [30.0, 0.5], [0.0, 900.0]], [0.4] * 3)
    x, t = points(VP())
    asked = labels(*[0, 1, 2] * 3)
    found = ClassifierFree(scale).wrap(exact).eps(x.float(), t, asked)
    assert torch.equal(found, exact.eps(x.float(), t, asked if scale else None))


def test_rows_without_a_condition_stay_unguided():
    exact = mixture()
    x, t = points(VP())
    found = ClassifierFree(scale=2.5).wrap(exact).eps(x, t, labels(*[-1] * 9))
    torch.testing.assert_close(found, exact.eps(x, t))


def latents(body, scheduler, x, asked, scale, steps):
    """The loop of DiTPipeline before its decoder."""
    scheduler.set_timesteps(steps)
    null = torch.full_like(asked, 1000)
    for time in scheduler.timesteps:
        both = body(torch.cat([x, x]), time.expand(2 * len(x)), class_labels=torch.cat([asked, null])).sample
        given, free = both[:, :1].chunk(2)
        x = scheduler.step(free + scale * (given - free), time, x, eta=0.0).prev_sample
    return x


@torch.no_grad()
def test_guided_ddim_agrees_with_the_library():
    torch.manual_seed(0)
    body = DiTTransformer2DModel(**DIT, out_channels=2, num_embeds_ada_norm=1000).eval()
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True)
    made = ClassifierFree(scale=4.0).wrap(ScoreModel.from_pretrained(Holder(body, scheduler)))
    made.base.network.eval()
    asked, x = torch.tensor([7, 999, 0]), torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    theirs = latents(body, scheduler, x, asked, 4.0, 8)
    times = (scheduler.timesteps.double() + 1) / 1000
    grid = Grid(made.process, [*(float(r) for r in made.process.ratio(times)), 0.0])
    noise = Noise(0, range(3), made.shape, made.device)
    y = x / float(made.process.signal(times[:1]))
    ours = SAMPLERS.entries["ddim"]().run(sigma_space(made, Condition(asked)), y, grid, noise, lambda state: None)
    # Guidance by 4 enlarges what the rounding of times costs, 1e-5 without it.
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-4)


class Holder:
    def __init__(self, transformer, scheduler):
        self.transformer, self.scheduler = transformer, scheduler


def test_a_transformer_s_pipeline_samples_as_the_library_s():
    torch.manual_seed(0)
    body = DiTTransformer2DModel(**DIT, out_channels=2, num_embeds_ada_norm=1000).eval()
    vae = AutoencoderKL(block_out_channels=(8,), latent_channels=1, norm_num_groups=4).eval()
    theirs = DiTPipeline(body, vae, DDIMScheduler(clip_sample=False))
    made = ScoreModel.from_pretrained(theirs)
    with pytest.raises(UserError, match="autoencoder"):
        made.to_pipeline()
    images = [
        pipeline([7, 3], 4.0, torch.Generator().manual_seed(1), num_inference_steps=3, output_type="pt").images
        for pipeline in (theirs, made.to_pipeline(vae=vae))
    ]
    assert torch.equal(*images)


@PROCESSES
def test_negative_guidance_subtracts_a_constant_share(process):
    exact = mixture(process)
    x, t = points(process)
    base, forget = exact.score(x, t), exact.score(x, t, labels(*[2] * 9))
    torch.testing.assert_close(Negative(0.4, label=2).wrap(exact).score(x, t), base - 0.4 * (forget - base))


def setup(process=None):
    """What a trainer offers: the forget set's exact model, and items."""
    drawn = mixture(process).draw(4000, seed=3).float()
    far = drawn[:, 1] > 1.75
    tuned = Mixture(process or VP(), FORGET, [0.4])

    class Drawn:
        items = drawn[far]

    given = Setup(model=lambda: mixture(process), retain=lambda n: drawn[~far][:n], tune_on_forget=lambda steps: tuned)
    object.__setattr__(given, "forget", lambda n: Drawn)
    object.__setattr__(given, "forget_share", 0.2)
    return given


def test_the_forget_set_s_model_is_tuned_where_no_label_names_it():
    exact = mixture()
    x, t = points(VP())
    guidance = Negative(0.4)
    with pytest.raises(RuntimeError, match="prepare"):
        guidance.wrap(exact).eps(x, t)
    guidance.prepare(setup())
    torch.testing.assert_close(guidance.wrap(exact).eps(x, t), Negative(0.4, label=2).wrap(exact).eps(x, t))


def forgotten(samples):
    return float((samples[:, 1] > 1.75).double().mean())


@PROCESSES
def test_the_posterior_along_a_path_is_the_exact_one(process):
    exact, guidance = mixture(process), DNG(scale=1e-9, prior=0.2, label=2, most=1 - 1e-9)
    view = guidance.wrap(exact)
    kept = []
    view.for_walk = lambda seeds=None: kept.append(type(view).for_walk(view, seeds)) or kept[-1]
    errors = []

    def watch(numbers, state):
        x, t = state.y.double() * signal(state.ratio), time(state.ratio).expand(len(state.y))
        share = exact.joint(x, t).softmax(1)[:, 2]
        errors.append((kept[-1].guidance.odds - share).abs().mean())

    def time(ratio):
        return process.time(torch.tensor(ratio, dtype=torch.float64))

    def signal(ratio):
        return float(process.signal(time(ratio)))

    view.sample(200, "ancestral", 300, callback=watch)
    assert torch.stack(errors).mean() < 0.03


@PROCESSES
def test_a_step_moves_the_posterior_by_the_ratio_of_its_likelihoods(process):
    exact = mixture(process)
    times = process.time(torch.tensor([2.0, 0.5], dtype=torch.float64))
    grid = Grid(process, [2.0, 0.5])
    y = torch.randn(2, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    y[0] = 2 * y[0] + 0.5
    walk = DNG(prior=0.3, label=2).wrap(exact).for_walk()
    for state, time in zip(y, times, strict=True):
        walk.eps(process.signal(time) * state, time.expand(6))
    likely = []
    for asked in (labels(*[2] * 6), None):
        slope = exact.eps(process.signal(times[0]) * y[0], times[:1].expand(6), asked)
        mean, std = SAMPLERS.entries["ancestral"]().step(y[0], slope, grid, 0)
        likely.append(torch.distributions.Normal(mean, std).log_prob(y[1]).sum(1))
    expected = 0.3 * (likely[0] - likely[1]).exp()
    torch.testing.assert_close(walk.guidance.odds, expected.clamp(1e-6, 0.99))
    assert ((expected > 1e-6) & (expected < 0.99)).sum() >= 2


def test_dynamic_guidance_removes_the_forget_set_and_little_else():
    exact = mixture()
    free = exact.sample(600, "ancestral", 60)
    guided = DNG(prior=0.2, label=2).wrap(exact).sample(600, "ancestral", 60)
    assert forgotten(free) > 0.15
    assert forgotten(guided) < 0.02
    near = torch.cdist(guided, torch.tensor(RETAIN)).amin(1) < 1.6
    assert near.double().mean() > 0.97


def test_each_walk_begins_with_the_prior():
    view = DNG(prior=0.2, label=2).wrap(mixture())
    first = view.sample(6, "ancestral", 8)
    assert torch.equal(view.sample(6, "ancestral", 8), first)
    torch.testing.assert_close(view.sample(6, "ancestral", 8, batch_size=2), first)
    assert view.guidance.odds is None


def test_the_share_of_the_data_is_the_prior_unless_it_is_given():
    guidance = DNG()
    guidance.prepare(setup())
    walk = guidance.wrap(mixture()).for_walk()
    x, t = points(VP(), 1)
    walk.eps(x, t)
    assert walk.guidance.odds.tolist() == [0.2]


def test_a_sampler_with_steps_of_its_own_is_refused_a_path():
    with pytest.raises(UserError, match="level by level"):
        DNG(label=2).wrap(mixture()).sample(3, "pf-ode-adaptive")


@PROCESSES
def test_an_exact_classifier_gives_the_retain_score(process):
    exact, rest = mixture(process), retained(process)
    guidance = Classifier()

    def logit(y, ratio):
        t = process.time(ratio)
        joint = exact.joint(process.signal(t)[:, None] * y, t)
        return joint[:, 2] - joint[:, :2].logsumexp(1)

    guidance.posterior = Posterior(logit)
    x, t = points(process)
    torch.testing.assert_close(guidance.wrap(exact).score(x, t), rest.score(x, t), rtol=1e-6, atol=1e-6)


def test_a_slope_is_held_to_what_items_at_these_distances_can_give():
    posterior = Posterior(lambda y, ratio: 1e3 * y.sum(1), reach=4.0)
    x, t = points(VP())
    _, pull = posterior.pull(VP(), x, t)
    torch.testing.assert_close(pull.norm(dim=1), 4.0 / VP().ratio(t))
    assert longest_distance(torch.zeros(3, 2), torch.tensor([[1.0, 0.0], [3.0, 4.0]])) == 5.0


def test_training_stops_where_held_out_items_are_classified_best():
    g = torch.Generator().manual_seed(0)
    forget, retain = torch.randn(2, 30, 8, generator=g)  # nothing to be learnt: longer training can only memorise
    found = trained_posterior(forget, retain, 0.5, steps=600, width=128)
    assert found.loss < 0.75
    unseen = torch.randn(200, 8, generator=g)
    assert found.logit(unseen, torch.full((200,), 0.02)).abs().mean() < 2  # after 600 steps it is sure, at 4.8
    assert math.isnan(trained_posterior(forget[:4], retain[:4], 0.5, 2, 4).loss)


def test_a_trained_classifier_removes_most_of_the_forget_set():
    exact, guidance = mixture(), Classifier(steps=400, width=64)
    guidance.prepare(setup())
    shift = guidance.posterior.logit.shift
    torch.testing.assert_close(shift, torch.logit(torch.tensor(0.2).double()), rtol=1e-6, atol=1e-6)
    guided = guidance.wrap(exact).sample(400, "dpm++2m-sde", 30)
    assert forgotten(exact.sample(400, "dpm++2m-sde", 30)) > 0.15
    assert forgotten(guided) < 0.05
    again = Classifier(steps=400, width=64)
    again.prepare(setup())
    x, t = points(VP())
    y, ratio = x.float(), VP().ratio(t.float())
    assert torch.equal(again.posterior.logit(y, ratio), guidance.posterior.logit(y, ratio))


def shield(radius, *items):
    guidance = Spell(radius=radius)
    guidance.bank = torch.tensor(items, dtype=torch.float64)
    return guidance


@PROCESSES
def test_a_shield_puts_the_denoised_item_on_the_ball_s_surface(process):
    exact = mixture(process)
    x, t = points(process)
    before = exact.denoise(x, t)
    after = shield(50.0, [0.1, 2.5]).wrap(exact).denoise(x, t)
    centre = torch.tensor([[0.1, 2.5]], dtype=torch.float64)
    torch.testing.assert_close((after - centre).norm(dim=1), torch.full((9,), 50.0, dtype=torch.float64))
    way, moved = before - centre, after - centre
    torch.testing.assert_close(way / way.norm(dim=1, keepdim=True), moved / moved.norm(dim=1, keepdim=True))


def test_a_shield_outside_all_balls_is_the_model_to_the_bit():
    assert same_samples(shield(0.5, [90.0, 90.0], [-80.0, 70.0]))
    assert not same_samples(shield(200.0, [90.0, 90.0]))


def test_a_shield_of_many_items_does_not_depend_on_its_blocks(monkeypatch):
    guidance = shield(1.0, *mixture().draw(37).tolist())
    x, t = points(VP())
    whole = guidance.wrap(mixture()).eps(x, t)
    monkeypatch.setattr("msgm.diffusion.guidance.shield.BLOCK", 5)
    torch.testing.assert_close(guidance.wrap(mixture()).eps(x, t), whole)


def test_a_shield_takes_its_radius_from_the_forget_items():
    guidance = Spell(items=50)
    guidance.prepare(setup())
    assert guidance.radius is None
    assert 0.01 < guidance.reach < 1
    other = SafeDenoiser(items=50)
    other.prepare(setup())
    assert other.reach == guidance.reach
    lone = setup()
    object.__setattr__(lone, "forget", lambda n: type("Drawn", (), {"items": torch.zeros(1, 2)}))
    for kind, measure in ((Spell, "radius"), (SafeDenoiser, "width")):
        with pytest.raises(UserError, match=f"^guidance.{measure}: .* give the {measure}"):
            kind().prepare(lone)


def denoiser(width, *items, scale=1.0):
    guidance = SafeDenoiser(scale, width)
    guidance.bank = torch.tensor(items, dtype=torch.float64)
    return guidance


@PROCESSES
def test_a_safe_denoiser_moves_each_sample_away_from_its_own_kernel_mean(process):
    exact, z = mixture(process), torch.tensor([[0.1, 2.5], [1.0, -3.0]], dtype=torch.float64)
    x, t = points(process)
    before = exact.denoise(x, t)
    guidance = denoiser(1.5, *z.tolist(), scale=0.7)
    after = guidance.wrap(exact).denoise(x, t)
    kernels = (-(before[:, None] - z).square().sum(2) / (2 * 1.5**2)).exp()  # of squared distances
    total = kernels.sum(1, keepdim=True)
    weight = 0.7 * total / (1 + total)
    torch.testing.assert_close(after, before - weight * (kernels @ z / total - before))
    alone = torch.cat([guidance.wrap(exact).denoise(x[i : i + 1], t[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(after, alone)  # by each sample's own distances, and not by the first one's


def test_a_safe_denoiser_far_from_all_items_or_without_weight_is_the_model_to_the_bit():
    assert same_samples(denoiser(1.0, [90.0, 90.0], [-80.0, 70.0]))
    assert same_samples(denoiser(200.0, [90.0, 90.0], scale=0.0))
    assert not same_samples(denoiser(200.0, [90.0, 90.0]))


def reject():
    guidance = Reject()
    guidance.judge = lambda items: items[:, 1] > 1.75
    return guidance


def test_rejection_leaves_the_other_samples_as_they_were():
    exact = mixture()
    free, kept = exact.sample(60, steps=10), reject().wrap(exact).sample(60, steps=10)
    right = free[:, 1] <= 1.75
    assert torch.equal(kept[right], free[right])
    assert (~right).any()
    assert forgotten(kept) == 0
    assert torch.equal(reject().wrap(exact).sample(60, steps=10, batch_size=7), kept)


def test_rejection_gives_up_at_last():
    guidance = Reject()
    guidance.judge = lambda items: torch.ones(len(items), dtype=torch.bool)
    assert guidance.wrap(mixture()).sample(2, steps=3).shape == (2, 2)


@pytest.mark.parametrize(
    "guidance",
    [
        ClassifierFree(3.0),
        Negative(0.3, label=2),
        DNG(label=2),
        shield(1.0, [0.0, 1.0]),
        NegativePrompt(2),
        SafeLatent(2, "max"),
    ],
    ids=lambda g: g.name,
)
def test_a_guided_sample_depends_neither_on_batch_size_nor_mates(guidance):
    view = guidance.wrap(model("mlp", process="vp"))
    asked = [0, 1, 2, -1, 1]
    whole = view.sample(5, "ancestral", 6, condition=asked)
    torch.testing.assert_close(
        view.sample(5, "ancestral", 6, condition=asked, batch_size=2), whole, rtol=1e-4, atol=1e-4
    )
    part = view.sample(2, "ancestral", 6, first=3, condition=asked[3:])
    torch.testing.assert_close(part, whole[3:], rtol=1e-4, atol=1e-4)


def test_rejection_has_a_classifier_of_its_own():
    exact, guidance = mixture(), Reject(steps=200, width=32)
    guidance.prepare(setup())
    guided = guidance.wrap(exact).sample(200, "dpm++2m-sde", 20)
    assert forgotten(exact.sample(200, "dpm++2m-sde", 20)) > 0.15
    assert forgotten(guided) < 0.02
    strict = Reject(threshold=0.001, steps=200, width=32)
    strict.recall(guidance.state(), exact)
    x = mixture().draw(500, seed=9).float()
    assert int(strict.judge(x).sum()) > int(guidance.judge(x).sum())
    with pytest.raises(RuntimeError, match="prepare"):
        Reject().accepts(x)


def test_a_likelihood_sees_the_divergence_of_the_classifiers_gradient():
    guidance = Classifier(steps=60, width=16)
    guidance.prepare(setup())
    view = guidance.wrap(mixture())
    y, step = mixture().draw(4).float().double(), 1e-4
    guidance.posterior.logit.double()
    probes = basis_probes(y)
    _, trace = eps_and_trace(sigma_space(view), y, 0.7, probes)
    shifted = [sigma_space(view)(y + step * v, 0.7) - sigma_space(view)(y - step * v, 0.7) for v in probes]
    by_hand = sum((change * v).sum(1) for change, v in zip(shifted, probes, strict=True)) / (2 * step)
    torch.testing.assert_close(trace, by_hand, rtol=1e-3, atol=1e-3)


def test_views_of_views_add_up():
    exact = mixture()
    both = reject().wrap(Negative(0.2, label=2).wrap(exact))
    one = Negative(0.2, label=2).wrap(exact)
    x, t = points(VP())
    assert torch.equal(both.eps(x, t), one.eps(x, t))
    assert forgotten(both.sample(40, steps=8)) == 0


def test_a_view_goes_wherever_a_model_goes():
    exact = mixture()
    view = Negative(0.25, label=2).wrap(exact)
    x = exact.draw(3).float()
    assert (log_likelihood(view, x) - log_likelihood(exact, x)).abs().max() > 1e-2
    known = torch.tensor([True, False])
    settings = SamplingSettings("ddim", 5)
    assert not torch.equal(inpaint(view, x, known, settings), inpaint(exact, x, known, settings))
    with pytest.raises(UserError, match="save the model itself"):
        view.save("anywhere")
    with pytest.raises(UserError, match="save the model itself"):
        view.save_pretrained("anywhere")


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "negative", "scale": -1},
        {"name": "negative", "scale": math.inf},
        {"name": "classifier-free", "scale": math.nan},
        {"name": "classifier", "scale": math.inf},
        {"name": "dng", "prior": 1.0},
        {"name": "dng", "temperature": -1},
        {"name": "dng", "offset": math.nan},
        {"name": "spell", "radius": math.inf},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(UserError, match=rf"guidance\.{list(settings)[-1]}"):
        GUIDANCE.build(settings)


@pytest.mark.parametrize("name", sorted(GUIDANCE.entries))
def test_cards_name_formula_source_and_deviations(name):
    parts = dict(line.split(": ", 1) for line in GUIDANCE.entries[name].describe().split("\n"))
    assert list(parts) == ["formula", "source", "defaults", "deviations"]
    assert all(parts.values())


def test_a_negative_prompt_stands_in_the_place_of_the_null_condition():
    exact, (x, t) = mixture(), points(VP())
    asked = labels(*[0, 1, -1] * 3)
    cfg = ClassifierFree(scale=2.5).wrap(NegativePrompt(concept=2).wrap(exact)).eps(x, t, asked)
    forgotten_eps = exact.eps(x, t, labels(*[2] * 9))
    expected = forgotten_eps + 2.5 * (exact.eps(x, t, asked) - forgotten_eps)
    expected[2::3] = forgotten_eps[2::3]
    torch.testing.assert_close(cfg, expected)
    same = NegativePrompt(concept=2).wrap(exact).eps(x, t, labels(*[0] * 9))
    assert torch.equal(same, exact.eps(x, t, labels(*[0] * 9)))


def test_diffusers_gives_what_a_negative_prompt_gives_from_the_same_noise():
    found = ScoreModel.from_pretrained(stable_diffusion())
    view = NegativePrompt(concept="seven").wrap(found)
    x, t = torch.randn(2, 4, 8, 8), torch.full((2,), 0.5)
    both = found.network.encode(["seven", "a three"])
    given = ClassifierFree(3.0).wrap(view).eps(x, t, both[[1, 1]])
    unguided, guided = found.eps(x, t, both[[0, 0]]), found.eps(x, t, both[[1, 1]])
    torch.testing.assert_close(given, unguided + 3 * (guided - unguided))


@pytest.mark.parametrize("strength", ["weak", "medium", "strong", "max"])
def test_safe_latent_diffusion_follows_its_formula_step_by_step(strength):
    scale, warm_up, threshold, weight, decay = STRENGTHS[strength]
    exact, asked = mixture(), labels(0, 1, 2)
    view = SafeLatent(2, strength).wrap(exact).for_walk()
    nu = torch.zeros(3, 2, dtype=torch.float64)
    for step in range(17):
        t = torch.full((3,), 0.9 - 0.05 * step, dtype=torch.float64)
        x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        c, s, null = exact.eps(x, t, asked), exact.eps(x, t, labels(2, 2, 2)), exact.eps(x, t)
        mu = (scale * (c - s).abs()).clamp(max=1) * ((c - s) < threshold)
        gamma = mu * (s - null) + weight * nu
        nu = decay * nu + (1 - decay) * gamma
        torch.testing.assert_close(view.eps(x, t, asked), c - gamma if step >= warm_up else c)


def test_safe_latent_diffusion_is_no_change_where_the_concept_is_the_null_branch_and_where_nothing_is_asked():
    exact, (x, t) = mixture(), points(VP())
    never = SafeLatent(2, "max")
    never.concept_eps = lambda model, x, t: model.eps(x, t)
    asked = labels(*[0, 1, 1] * 3)
    assert torch.equal(never.wrap(exact).for_walk().eps(x, t, asked), exact.eps(x, t, asked))
    strong, mixed = SafeLatent(2, "max").wrap(exact).for_walk(), labels(*[0, -1, 1] * 3)
    found, plain = strong.eps(x, t, mixed), exact.eps(x, t, mixed)
    assert torch.equal(found[1::3], plain[1::3])
    assert not torch.equal(found[0::3], plain[0::3])
    assert same_samples(SafeLatent(2, "max"))


def test_the_concept_is_the_one_that_the_request_forgets_and_must_be_named_where_it_forgets_several():
    made = NegativePrompt()
    with pytest.raises(RuntimeError, match="prepare"):
        made.wrap(mixture()).eps(*points(VP()))
    made.prepare(replace(setup(), forgotten=(2,)))
    x, t = points(VP())
    assert torch.equal(made.wrap(mixture()).eps(x, t), mixture().eps(x, t, labels(*[2] * 9)))
    again = NegativePrompt()
    again.recall(made.state(), mixture())
    assert again.found == 2
    with pytest.raises(UserError, match="forgets 2 classes"):
        SafeLatent().prepare(replace(setup(), forgotten=(1, 2)))


def test_a_concept_that_the_model_does_not_know_is_refused():
    with pytest.raises(UserError, match="one of 0 to 3"):
        SafeLatent(7).check(4)
    for concept in (0, None):
        with pytest.raises(UserError, match="none, as the network is unconditional"):
            NegativePrompt(concept).check(0)
    with pytest.raises(UserError, match="empty"):
        NegativePrompt("  ")
    with pytest.raises(UserError, match="strength"):
        SafeLatent(1, "huge")
    with pytest.raises(UserError):
        NegativePrompt("seven").wrap(model("mlp", process="vp")).sample(1, steps=2, condition=1, guidance=2.0)
