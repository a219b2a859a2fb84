"""Anchors: the minimum of a quadratic loss with a penalty is known."""

import pytest
import torch
from torch import nn

from msgm.diffusion import VP, ScoreModel
from msgm.errors import UserError
from msgm.objectives import (
    OBJECTIVES,
    Anchor,
    Held,
    SelectiveAmnesia,
    Setup,
    Standard,
    Subtract,
    anchors,
    moments,
    noised,
)
from msgm.seeding import generator

D = 3
STARTED = torch.tensor([0.4, -0.2, 0.7])


class Diagonal(nn.Module):
    """eps_theta = w x, element by element: the denoising loss is quadratic in w."""

    def __init__(self, weight=STARTED):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())

    def forward(self, x, label):
        return self.weight * x


def model(weight=STARTED):
    return ScoreModel(Diagonal(weight), VP(), (D,))


RETAIN = torch.randn(40, D, generator=torch.Generator().manual_seed(2)) * torch.tensor([0.3, 1.0, 2.0])


def setup(base=None):
    base = base or model()
    taken = lambda part, items, levels=10, batch=1: moments(base, RETAIN, levels, batch)  # noqa: E731
    return Setup(lambda: base, lambda n: RETAIN[:n], None, moments=taken)


def batch():
    g = torch.Generator().manual_seed(5)
    t = torch.rand(64, generator=g)
    return noised(VP(), torch.randn(64, D, generator=g), t, torch.randn(64, D, generator=g))


def minimum(centre, stiffness):
    """Of mean (w x - eps)^2 + sum stiffness (w - centre)^2, which has an equation a weight."""
    given = batch()
    curvature, pull = given.x.square().mean(0) / D, (given.x * given.eps).mean(0) / D
    return (pull + stiffness * centre) / (curvature + stiffness)


@pytest.mark.parametrize("weight", [0.0, 0.1, 50.0])
@pytest.mark.parametrize("by", ["fisher", "identity"])
def test_the_penalised_minimum_is_the_closed_form(by, weight):
    held = Anchor(by, weight, levels=4).prepared(setup())
    stiffness = weight * (moments(model(), RETAIN, 4).square["weight"] if by == "fisher" else torch.ones(D))
    optimum = model(minimum(STARTED, stiffness))
    weights = dict(optimum.network.named_parameters())
    loss = sum(term.values.mean() for term in Standard().terms(optimum.eps, batch(), None).values())
    loss = loss + sum(held.penalty(weights).values())
    (gradient,) = torch.autograd.grad(loss, list(weights.values()))
    assert gradient.abs().max() < 1e-6 * (1 + float(torch.as_tensor(stiffness).max()))
    assert weight == 0 or (minimum(STARTED, stiffness) - minimum(STARTED, 0)).norm() > 1e-3


def test_the_weight_of_selective_amnesia_s_sums_is_the_one_that_its_card_and_the_anchors_tell():
    times, strength, moved = 4, 10.0, STARTED + 0.1
    squares = []
    for place, item in enumerate(RETAIN):
        draws = generator(0, "moments", place)
        t = VP().training_times((torch.arange(times) + torch.rand(times, generator=draws)) / times)
        eps = torch.randn(times, D, generator=draws)
        x = VP().signal(t)[:, None] * item + VP().noise(t)[:, None] * eps
        squares.append((2 * (STARTED * x - eps) * x).sum(0).square())
    fisher = torch.stack(squares).mean(0)
    replays, forget = batch(), batch()
    images = forget.signal * (2 * forget.uniform() - 1) + forget.noise * forget.eps
    of_sums = sum((2 * (moved * x - eps) * x).mean(0) for x, eps in ((replays.x, replays.eps), (images, forget.eps)))
    of_sums = of_sums + 2 * strength * fisher * (moved - STARTED)

    objective = SelectiveAmnesia(anchor=Anchor("fisher", 0.5 * strength * times**2 * D, levels=times))
    held, made = objective.anchor.prepared(setup()), model(moved)
    terms = objective.terms(made.eps, replays, forget)
    loss = sum(term.weight * term.values.mean() for term in terms.values())
    loss = loss + sum(held.penalty(dict(made.network.named_parameters())).values())
    (of_means,) = torch.autograd.grad(loss, list(made.network.parameters()))
    torch.testing.assert_close(2 * D * of_means, of_sums, rtol=1e-4, atol=1e-4)
    assert "lambda T^2 D" in SelectiveAmnesia.card.deviations
    assert "lambda T^2 D" in anchors.__doc__


def test_a_stiffer_anchor_moves_less_and_dead_weights_are_free_under_fisher():
    dead = RETAIN * torch.tensor([1.0, 1.0, 0.0])
    base = model(torch.tensor([0.4, -0.2, 0.0]))
    square = moments(base, dead, 4).square["weight"]
    assert (square[:2] > 0).all()
    moved = [(minimum(STARTED, weight * square) - STARTED).abs()[:2].sum() for weight in (0.0, 1.0, 100.0)]
    assert moved[0] > moved[1] > moved[2]


def test_several_models_give_their_mean_and_spread_with_a_floor(tmp_path):
    """VDU, arXiv 2510.04058: dead weights do not differ between checkpoints, and would have no spread."""
    found = []
    for seed in range(3):
        made = ScoreModel.new("mlp", "vp", shape=(2,), seed=seed, width=4)
        made.network.get_parameter(next(n for n, _ in made.network.named_parameters())).data.fill_(0.5)
        made.save(tmp_path / str(seed))
        found.append(dict(made.network.named_parameters()))
    base = ScoreModel.load(tmp_path / "0")
    paths = [str(tmp_path / str(seed)) for seed in range(3)]
    held = Anchor("checkpoints", 0.5, models=paths, floor=0.01).prepared(Setup(lambda: base, None, None))
    for number, name in enumerate(found[0]):
        stacked = torch.stack([state[name] for state in found])
        torch.testing.assert_close(held.centre[name], stacked.mean(0))
        spread = stacked.std(0).clamp_min(0.01)
        torch.testing.assert_close(held.stiffness[name], 0.5 / (2 * spread**2))
        if number == 0:
            assert (held.stiffness[name] == 0.5 / (2 * 0.01**2)).all()
    other = ScoreModel.new("mlp", "vp", shape=(2,), width=6)
    with pytest.raises(UserError, match="objective.anchor.models: .*another network"):
        Anchor("checkpoints", models=paths).prepared(Setup(lambda: other, None, None))


def test_the_base_is_frozen_in_eval_mode_and_one_object():
    made = ScoreModel.new("unet", channels=[8])
    made.network.train()
    given = Setup(lambda: made, None, None)
    assert given.base() is given.base()
    assert not given.base().network.training
    assert not any(p.requires_grad for p in given.base().network.parameters())


def test_the_base_s_share_of_the_target_is_kept_as_it_is():
    held = Anchor("base", 0.25).prepared(setup())
    assert (held.share, held.base.shape) == (0.25, (D,))
    assert held.penalty({"weight": STARTED}) == {}


def test_weights_without_a_centre_are_free():
    held = Held({"a": torch.zeros(2)}, {"a": torch.ones(2)})
    assert float(held.penalty({"a": torch.tensor([1.0, 2.0]), "b": torch.ones(9)})["anchor"]) == 5


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Anchor(weight=-1.0), "objective.anchor.weight"),
        (lambda: Anchor(weight=float("nan")), "objective.anchor.weight"),
        (lambda: Anchor("base", 1.5), r"objective.anchor.weight of base is a share"),
        (lambda: Anchor("checkpoints", models=["one"]), "two model folders at least"),
        (lambda: Anchor("identity", models=["one", "two"]), "objective.anchor.models"),
        (lambda: Anchor(floor=0.0), "objective.anchor.floor"),
        (
            lambda: Subtract(descent="nothing", weight=1, ceiling=1.0, anchor=Anchor("base")),
            "base is a target at retain items",
        ),
    ],
)
def test_wrong_values_are_refused(make, why):
    with pytest.raises(UserError, match=why):
        make()


@pytest.mark.parametrize(("by", "weight"), [("identity", 0.01), ("base", 1.0), ("fisher", 1000.0)])
def test_another_kind_merged_over_a_default_has_the_weight_of_its_own_kind(by, weight):
    settings = {"name": "selective-amnesia", "anchor": {"by": by}}
    for built in (OBJECTIVES.build(settings), OBJECTIVES.build(OBJECTIVES.resolve(settings))):
        assert built.effective()["anchor"]["weight"] == weight
    resolved = OBJECTIVES.resolve(settings)
    resolved["anchor"]["by"] = "identity"
    assert OBJECTIVES.build(resolved).anchor.factor == 0.01


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        ({"by": "fisher"}, {"weight": 1000.0, "items": 256, "levels": 10}),
        ({"by": "identity"}, {"weight": 0.01}),
        ({"by": "checkpoints", "models": ["a", "b"]}, {"weight": 1e-6, "models": ["a", "b"], "floor": 1e-3}),
        ({"by": "base"}, {"weight": 1.0}),
    ],
)
def test_only_settings_with_an_effect_are_told(settings, own):
    assert Anchor(**settings).effective() == {"by": settings["by"]} | own


def test_moments_of_a_setup_without_them_are_refused_in_words():
    with pytest.raises(RuntimeError, match="without what the objective asks"):
        Anchor().prepared(Setup(model, None, None))
