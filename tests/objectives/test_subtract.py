"""Subtraction: the identity of the calibrated weight, the pole, and importance sampling."""

import pytest
import torch
from torch import nn

from msgm.diffusion import VE, VP, ScoreModel
from msgm.errors import UserError
from msgm.objectives import Anchor, Mask, Setup, Subtract, Unseen, noised, shared_losses
from tests.helpers import Mixture

ITEMS = 12
FORGET = torch.tensor([2, 5, 6])
SHARE = len(FORGET) / ITEMS


class Features(nn.Module):
    """A model that is linear in its weights: a matrix times fixed nonlinear features of what it reads."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(4)
        self.weight = nn.Parameter(torch.randn(2, 16, generator=g, dtype=torch.float64) / 4)
        self.inner = torch.randn(16, 3, generator=g, dtype=torch.float64)

    def forward(self, x, label):
        read = torch.cat([x, label[:, None].to(x)], 1)
        return torch.tanh(read @ self.inner.T) @ self.weight.T


def prepared(share=SHARE, **settings):
    objective = Subtract(**settings)
    model = ScoreModel(Features(), VP(), (2,))
    objective.prepare(Setup(lambda: model, None, None, forget_share=share))
    return objective


def drawn(which, process=None):
    """Every item at its own time and with its own noise, of which ``which`` are taken."""
    g = torch.Generator().manual_seed(3)
    x0, eps = torch.randn(2, ITEMS, 2, generator=g, dtype=torch.float64)
    t = torch.rand(ITEMS, generator=g, dtype=torch.float64)
    return noised(process or VP(), x0[which], t[which], eps[which])


def gradient(objective, model, first, second):
    terms = objective.terms(model.eps, first, second)
    loss = sum(term.weight * term.values.mean() for term in terms.values())
    return torch.autograd.grad(loss, model.network.weight)[0]


@pytest.mark.parametrize("process", [VP(), VE()], ids=["vp", "ve"])
def test_all_minus_the_forget_share_is_the_retain_loss(process):
    model = ScoreModel(Features(), process, (2,))
    kept = torch.tensor([i for i in range(ITEMS) if i not in FORGET])
    calibrated = gradient(prepared(), model, drawn(slice(None), process), drawn(FORGET, process))
    retain = gradient(Unseen(), model, drawn(kept, process), None)
    torch.testing.assert_close(calibrated, (1 - SHARE) * retain, rtol=1e-6, atol=1e-9)
    other = prepared(weight=2 * SHARE, ceiling=100.0)
    wrong = gradient(other, model, drawn(slice(None), process), drawn(FORGET, process))
    assert (wrong - (1 - SHARE) * retain).norm() > 1e-2 * retain.norm()


def test_terms_are_named_by_their_data_and_weighed_by_beta():
    model = ScoreModel(Features(), VP(), (2,))
    for settings, weights in (
        ({}, {"all": 1.0, "forget": -SHARE}),
        ({"descent": "retain", "weight": 0.5, "ceiling": 1.0}, {"retain": 1.0, "forget": -0.5}),
        ({"descent": "nothing", "weight": 2, "ceiling": 1.0}, {"forget": -2.0}),
    ):
        objective = prepared(**settings)
        first = None if objective.needs == "forget" else drawn(slice(None))
        terms = objective.terms(model.eps, first, drawn(FORGET))
        assert {name: term.weight for name, term in terms.items()} == pytest.approx(weights)


@pytest.mark.parametrize(
    ("descent", "needs"), [("all", "all+forget"), ("retain", "retain+forget"), ("nothing", "forget")]
)
def test_what_is_read_follows_from_what_is_descended_on(descent, needs):
    objective = Subtract(descent, weight=0.0)
    assert objective.needs == needs
    assert all(objective.uses_forget(step) for step in range(3))
    assert objective.forget_batches(7) == 7


def test_replays_that_nothing_reads_are_refused():
    ascent = {"descent": "nothing", "weight": 1.0, "ceiling": 1.0, "replay": 8}
    for parts in ({}, {"mask": Mask(), "anchor": Anchor("identity")}):
        with pytest.raises(UserError, match="objective.replay: descent: nothing reads no replays"):
            Subtract(**ascent, **parts)
    for parts in ({"anchor": Anchor("fisher")}, {"mask": Mask("fisher")}):
        assert Subtract(**ascent, **parts).replay == 8
    assert Subtract("retain", weight=1.0, ceiling=1.0, replay=8).replay == 8


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"descent": "retain", "weight": 0.5}, "no minimum wherever p_r < 0.5 p_f.*ceiling, or by objective.combine"),
        ({"descent": "nothing", "weight": 1.0}, "no minimum at every point.*objective.ceiling"),
        ({"descent": "retain"}, "calibrated is for descent: all"),
        ({"weight": -1.0}, "objective.weight must be"),
        ({"weight": float("nan")}, "objective.weight must be"),
        ({"ceiling": 0.0}, "objective.ceiling"),
        ({"importance": 1.5}, r"objective.importance must lie in \[0, 1\]"),
        ({"descent": "nothing", "weight": 1.0, "ceiling": 1.0, "importance": 0.5}, "objective.importance"),
        ({"importance": 0.5, "anchor": Anchor("base")}, "objective.anchor.by: base changes the noise"),
    ],
)
def test_a_loss_without_a_minimum_and_wrong_values_are_refused(settings, why):
    with pytest.raises(UserError, match=why):
        Subtract(**settings)


def test_more_than_the_share_is_refused_unless_it_is_bounded():
    prepared(weight=SHARE)
    with pytest.raises(UserError, match=r"the forget set is 0.25 of the items, .* got 0.3; take calibrated, or bound"):
        prepared(weight=0.3)
    prepared(weight=0.3, ceiling=1.0)
    prepared(weight=0.3, combine="cap")


def test_importance_pairs_batches_of_one_size():
    unlike = Setup(None, None, None, forget_share=SHARE, sizes_alike=False)
    Subtract().prepare(unlike)
    with pytest.raises(UserError, match="objective.importance: it pairs .* so that training.forget_batch_size"):
        Subtract(importance=0.5).prepare(unlike)


def test_importance_is_refused_for_a_class_conditional_model_before_the_first_step():
    model = ScoreModel(Features(), VP(), (2,))
    model.network.classes = 10
    setup = Setup(lambda: model, None, None, forget_share=SHARE)
    Subtract().prepare(setup)
    with pytest.raises(UserError, match="objective.importance: items of a mixture have no condition in common"):
        Subtract(importance=0.5).prepare(setup)


def test_where_labels_are_left_out_unequally_the_losses_do_not_cancel_and_a_bound_is_needed():
    setup = Setup(None, None, None, forget_share=SHARE, labels_alike=False)
    for settings in ({}, {"weight": SHARE / 2}):
        with pytest.raises(UserError, match="take request.means: items"):
            Subtract(**settings).prepare(setup)
    Subtract(weight=SHARE / 2, ceiling=1.0).prepare(setup)
    Subtract(descent="retain", weight=1.0, ceiling=1.0).prepare(setup)


def test_above_the_share_the_optimum_runs_away_and_below_it_does_not():
    """At a point where forget items dominate: p_r = .1, p_f = 1, with shares of a half."""
    retain, forget = 0.5 * 0.1, 0.5 * 1.0
    for beta, bounded in ((0.4, True), (0.5, True), (0.549, False), (0.6, False)):
        curvature = retain + forget - beta
        optimum = (retain * 1.0 + (forget - beta) * -1.0) / curvature
        assert (curvature > 0 and abs(optimum) <= 1) == bounded


def test_a_forget_sample_above_the_ceiling_gives_no_gradient():
    predicted = torch.tensor([[0.5, 0.5], [9.0, 9.0]], dtype=torch.float64, requires_grad=True)
    forget = noised(VP(), torch.zeros(2, 2), torch.tensor([0.5, 0.5]), torch.zeros(2, 2))
    terms = prepared(descent="nothing", weight=1.0, ceiling=2.0).terms(lambda x, t, c=None: predicted, None, forget)
    assert terms["forget"].values.tolist() == [0.25, 2.0]
    (found,) = torch.autograd.grad(terms["forget"].values.sum(), predicted)
    assert found[0].abs().min() > 0
    assert found[1].tolist() == [0, 0]


RETAIN = Mixture(VP(), [[-0.4, 0.2], [0.3, -0.3]], [0.35, 0.5])
FORGOTTEN = Mixture(VP(), [[0.3, 0.5]], [0.4])


def predict(x, t, condition=None):
    return torch.tanh(x @ torch.tensor([[0.9, 0.3], [-0.4, 0.7]], dtype=x.dtype)) + 0.2


def pairs(count, time=0.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    t = torch.full((count,), time, dtype=torch.float64)
    u = torch.rand(count, 2, generator=g, dtype=torch.float64)
    made = []
    for model in (RETAIN, FORGOTTEN):
        eps = torch.randn(count, 2, generator=g, dtype=torch.float64)
        made.append(noised(VP(), model.draw(count, seed=len(made)), t, eps, lambda name="": u))
    return made


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_importance_sampling_is_unbiased_for_both_losses(share):
    one, two = pairs(200_000)
    losses = shared_losses(predict, one, two, share)
    for loss, own in zip(losses, (one, two), strict=True):
        direct = (predict(own.x, own.t) - own.eps).square().mean(1)
        error = (loss.var() + direct.var()).sqrt() / len(loss) ** 0.5
        assert (loss.mean() - direct.mean()).abs() < 4 * error


def test_at_share_0_and_1_the_own_loss_is_the_direct_one():
    one, two = pairs(50)
    first, _ = shared_losses(predict, one, two, 0.0)
    torch.testing.assert_close(first, (predict(one.x, one.t) - one.eps).square().mean(1))
    _, second = shared_losses(predict, one, two, 1.0)
    x = one.signal * two.clean + one.noise * one.eps
    torch.testing.assert_close(second, (predict(x, one.t) - one.eps).square().mean(1))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("process", [VP(), VE()], ids=["vp", "ve"])
def test_weights_are_finite_where_the_sets_are_far_apart(share, process):
    """As written in the released code, exp(d) overflows in float32 and 0 * inf is NaN."""
    t = torch.tensor([process.t_min, 0.01, 0.3, 1.0])
    x0, eps = torch.full((4, 768), 0.9), torch.randn(4, 768, generator=torch.Generator().manual_seed(0))
    u = torch.full((4, 768), 0.4)
    one, two = (noised(process, x, t, eps, lambda name="": u) for x in (x0, -x0))
    network = nn.Linear(768, 768)
    losses = shared_losses(lambda x, t, c=None: network(x), one, two, share)
    assert all(loss.isfinite().all() for loss in losses)
    sum(loss.mean() for loss in losses).backward()
    assert network.weight.grad.isfinite().all()


def test_weights_lie_between_nothing_and_the_reciprocal_share():
    one, two = pairs(2000)
    ones = lambda x, t, c=None: torch.zeros_like(x)  # noqa: E731
    for share in (0.2, 0.5):
        for loss, of, own in zip(shared_losses(ones, one, two, share), (one, two), (1 - share, share), strict=True):
            x = one.signal * torch.where(one.uniform()[:, :1] < share, two.clean, one.clean) + one.noise * one.eps
            weight = loss / ((x - one.signal * of.clean) / one.noise).square().mean(1)
            assert 0 <= weight.min() <= weight.max() <= 1 / own + 1e-9


@pytest.mark.parametrize(("exactly", "shown"), [(True, False), (False, True)])
def test_a_weight_beside_a_cap_that_is_met_exactly_has_no_effect(exactly, shown):
    cap = {"name": "cap", "ratio": 0.5, "exactly": exactly}
    model = ScoreModel(Features(), VP(), (2,))
    first, second = drawn(slice(None)), drawn(FORGET)
    merged = []
    for weight in (0.3, 3.0):
        objective = prepared(weight=weight, combine=cap)
        assert ("weight" in objective.effective()) == shown
        terms = objective.terms(model.eps, first, second).values()
        found = [
            torch.autograd.grad(t.weight * t.values.mean(), model.network.weight, retain_graph=True) for t in terms
        ]
        merged.append(objective.merge(*found)[0])
    assert torch.allclose(*merged) == exactly
    assert "weight" in prepared(weight=0.0, combine=cap).effective()


def test_the_ceiling_is_of_the_loss_before_its_weight():
    one, two = pairs(2000)
    _, free = shared_losses(predict, one, two, 0.5)
    _, weights = shared_losses(lambda x, t, c=None: torch.full_like(x, 1e9), one, two, 0.5, 1.0)
    _, bounded = shared_losses(predict, one, two, 0.5, 0.7)
    torch.testing.assert_close(bounded, weights * (free / weights).clamp_max(0.7))
    assert (weights * 0.7 < free).any()
    assert (weights < 0.5).any()
    terms = prepared(importance=0.5, ceiling=0.7).terms(predict, one, two)
    assert torch.equal(terms["forget"].values, bounded)


def test_importance_needs_one_pass():
    calls = []

    def counted(x, t, condition=None):
        calls.append(len(x))
        return predict(x, t)

    one, two = pairs(6)
    prepared(importance=0.5).terms(counted, one, two)
    assert calls == [6]
