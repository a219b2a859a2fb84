"""Targets at forget points: guided, ESD, concept ablation and EraseDiff's, against exact scores."""

import copy
from dataclasses import replace

import pytest
import torch

from msgm.config import load_config
from msgm.diffusion import VE, VP, Condition, Flow, ScoreModel
from msgm.diffusion.guidance.posterior import Posterior
from msgm.errors import UserError
from msgm.objectives import ESD, ConceptAblation, Drawn, EraseDiff, GuidedTarget, Setup, mean_square, noised
from tests.helpers import Mixture
from tests.objectives.test_families import UNIFORM, Asked, prepared
from tests.objectives.test_families import batch as asked_batch

PROCESSES = pytest.mark.parametrize("process", [VP(), VE(), Flow()], ids=["vp", "ve", "flow"])
MEANS = [[-1.5, 0.0], [1.5, 0.5], [0.0, 3.0]]


def mixture(process, part=slice(None)):
    """Two components to retain, and the third, of label 2, to forget."""
    return Mixture(process, MEANS[part], [0.4] * len(MEANS[part]), [0.4, 0.4, 0.2][part])


def batch(process, labels=None):
    """Noised forget items at times from the start of the path to its end."""
    g = torch.Generator().manual_seed(1)
    t = torch.linspace(max(0.05, process.t_min), process.top, 9, dtype=torch.float64)
    x0 = mixture(process, slice(2, 3)).draw(9)
    eps = torch.randn(9, 2, generator=g, dtype=torch.float64)
    return noised(process, x0, t, eps, condition=None if labels is None else Condition(torch.tensor(labels)))


def exact_logit(model):
    def logit(y, ratio):
        t = model.process.time(ratio)
        joint = model.joint(model.process.signal(t)[:, None] * y, t)
        return joint[:, 2] - joint[:, :2].logsumexp(1)

    return logit


def guided(model, posterior, **settings):
    objective = GuidedTarget(**settings)
    objective.base, objective.posterior = model, posterior
    return objective


@PROCESSES
def test_with_an_exact_logit_guided_aims_at_the_retain_score(process):
    exact, forget = mixture(process), batch(process)
    target = guided(exact, Posterior(exact_logit(exact))).target(forget)
    torch.testing.assert_close(target, mixture(process, slice(2)).eps(forget.x, forget.t), rtol=1e-6, atol=1e-6)
    bent = guided(exact, Posterior(exact_logit(exact)), scale=2.0).target(forget)
    base = exact.eps(forget.x, forget.t)
    torch.testing.assert_close(bent - base, 2 * (target - base), rtol=1e-5, atol=1e-6)


def test_where_nothing_is_to_be_forgotten_guided_aims_at_the_base_model():
    exact, forget = mixture(VP()), batch(VP(), [2] * 9)
    never = Posterior(lambda y, ratio: y.sum(1) - 1e5)  # w is 0, and its logit slopes
    objective = guided(exact, never)
    base = exact.eps(forget.x, forget.t)
    assert torch.equal(objective.target(forget), base)  # and that without a label
    loss = objective.forget_loss(torch.zeros_like(base), forget)
    torch.testing.assert_close(loss, mean_square(base) / (1 + mean_square(base)))


def setup(model, drawn=None, **more):
    drawn = mixture(VP()).draw(400, seed=3).float() if drawn is None else drawn
    far = drawn[:, 1] > 1.75
    labels = torch.full((int(far.sum()),), 2)
    tuned = mixture(VP(), slice(2, 3))
    return Setup(
        lambda: copy.deepcopy(model),
        lambda n: drawn[~far][:n],
        lambda steps: tuned,
        lambda n: Drawn(drawn[far][:n], labels[:n]),
        **{"forget_share": 0.2, "retained": (0, 1)} | more,
    )


def test_guided_trains_its_classifier_before_the_first_step():
    objective = GuidedTarget(classifier_steps=60, width=16)
    with pytest.raises(RuntimeError, match="prepare"):
        objective.target(batch(VP()))
    objective.prepare(setup(mixture(VP())))
    torch.testing.assert_close(objective.posterior.logit.shift.exp(), torch.tensor(0.25).double())
    assert 0 < objective.found()["classifier_loss"] < 0.65
    assert objective.posterior.reach > 3


def test_guided_needs_real_retain_items():
    with pytest.raises(UserError, match=r"^objective.replay: guided tells retain items from forget items"):
        GuidedTarget(replay=10)


@PROCESSES
def test_esd_moves_away_from_the_label_or_from_the_tuned_copy(process):
    exact = mixture(process)
    objective = ESD(eta=0.5)
    objective.base, objective.teacher = exact, mixture(process, slice(2, 3))
    labelled, bare = batch(process, [2] * 9), batch(process)
    base, forget = exact.eps(bare.x, bare.t), objective.teacher.eps(bare.x, bare.t)
    torch.testing.assert_close(objective.target(bare), base - 0.5 * (forget - base))
    exact.network.classes = 3
    torch.testing.assert_close(objective.target(labelled), base - 0.5 * (forget - base))
    # The label of an item says which score is moved away from; an item without one takes the tuned copy's.
    mixed = objective.target(replace(bare, condition=Condition(torch.tensor([1, -1, 2] * 3))))
    other = exact.eps(bare.x, bare.t, Condition(torch.tensor([1] * 9)))
    torch.testing.assert_close(mixed[0::3], (base - 0.5 * (other - base))[0::3])
    torch.testing.assert_close(mixed[1::3], (base - 0.5 * (forget - base))[1::3])
    torch.testing.assert_close(objective.forget_loss(mixed, replace(bare)), mean_square(mixed - objective.target(bare)))


def test_esd_tunes_a_copy_only_where_an_item_may_come_without_its_label(capsys):
    for classes, dropped, wanted in ((0, True, True), (3, True, True), (3, False, False)):
        model, objective = mixture(VP()), ESD()
        model.network.classes = classes
        objective.prepare(setup(model, labels_dropped=dropped))
        assert (objective.teacher is not None) == wanted
    assert not capsys.readouterr().out
    ESD(eta=0.6).prepare(setup(mixture(VP())))
    assert "objective.eta 0.6 is above 0.5" in capsys.readouterr().out


def ablation(**settings):
    network = Asked()
    model = ScoreModel(network, VP(), (3,))
    objective = ConceptAblation(**settings)
    drawn = torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    objective.prepare(replace(setup(model, drawn), forgotten=(3, 4)))
    objective.base.eps = lambda x, t, condition=None: 7 * x
    return objective, network


def retained_batch(labels):
    x0, eps = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.1, 0.9, 4)
    return noised(VP(), x0, t, eps, lambda name="": UNIFORM, Condition(torch.tensor(labels)))


def test_concept_ablation_teaches_a_forgotten_label_what_a_retained_one_gives():
    objective, network = ablation()
    retain = retained_batch([0, 1, -1, 1])
    terms = objective.terms(network.predict, retain, None)
    asked = torch.tensor([3, 4])[(2 * UNIFORM[:, 0]).long()]
    assert len(set(asked.tolist())) == 2
    gap = (network.weight[asked] - network.weight[retain.condition.labels])[:, None] * retain.x
    expected = mean_square(gap) * torch.tensor([1.0, 1.0, 0.0, 1.0])  # one without a label is no anchor
    torch.testing.assert_close(terms["forget"].values, expected)
    (gradient,) = torch.autograd.grad(terms["forget"].values.sum(), network.weight)
    assert gradient[[0, 1]].abs().max() == 0  # the target has no gradient
    assert gradient[[3, 4]].abs().max() > 0


def test_an_anchor_s_items_count_alone_and_the_base_model_may_teach():
    objective, network = ablation(anchor_class=1, teacher="base")
    retain = retained_batch([0, 1, -1, 1])
    values = objective.terms(network.predict, retain, None)["forget"].values
    asked = torch.tensor([3, 4])[(2 * UNIFORM[:, 0]).long()]
    expected = 2 * mean_square((network.weight[asked][:, None] - 7) * retain.x) * torch.tensor([0.0, 1.0, 0.0, 1.0])
    torch.testing.assert_close(values, expected)
    with pytest.raises(UserError, match=r"^objective.anchor_class must be a retained class, 0, 1, got 3"):
        ablation(anchor_class=3)


def test_concept_ablation_refuses_a_network_without_classes():
    asked = ["rows.ablated={objective: {name: concept-ablation}}", "request.labels=[3]"]
    with pytest.raises(UserError, match=r"rows.ablated: objective.name: concept-ablation .* is unconditional"):
        load_config("digits/vp", asked)
    assert "ablated" in load_config("digits/class", asked).rows


def drawing(*shares):
    """A batch that is told labels, and draws these numbers for its items."""
    forget, drawn = asked_batch(1, [3, 4, 3, -1]), torch.tensor(shares)[:, None].expand(-1, 3)
    return replace(forget, uniform=lambda name="": drawn if name == "other label" else UNIFORM)


@pytest.mark.parametrize("variant", ["bilevel", "weighted"])
def test_erasediff_teaches_its_own_prediction_under_a_label_to_retain(variant):
    """Of ten labels, 3 and 4 forgotten, draws of 0, .5 and .99 are the first, the fifth and the last of the others."""
    objective, network = prepared(EraseDiff(target="relabelled", variant=variant, every=1))
    forget = drawing(0.0, 0.5, 0.99, 0.7)
    values = objective.terms(network.predict, asked_batch(0, [0, 1, 2, 5]), forget)["forget"].values
    own, other = (network.weight[torch.tensor(labels)][:, None] for labels in ([3, 4, 3], [0, 6, 9]))
    torch.testing.assert_close(values[:3], mean_square((own - other) * forget.x[:3]))
    torch.testing.assert_close(values[3:], mean_square(network.weight[-1] * forget.x[3:] - UNIFORM[3:]))
    (gradient,) = torch.autograd.grad(values.sum(), network.weight)
    assert gradient[[3, 4]].abs().min() > 0
    assert gradient[[0, 6, 9]].abs().max() == 0  # the target has no gradient


def test_erasediff_s_relabelled_target_needs_classes():
    asked = ["rows.other={objective: {name: erasediff, target: relabelled}}", "request.labels=[3]"]
    with pytest.raises(UserError, match=r"rows.other: objective.target: relabelled .* unconditional; .* or gaussian"):
        load_config("digits/vp", asked)
    assert "other" in load_config("digits/class", asked).rows


def test_the_minimiser_of_erasediff_s_target_is_its_mean():
    x0 = torch.zeros(4, 20000)
    forget = noised(VP(), x0, torch.full((4,), 0.5), torch.ones(4, 20000))
    for target, mean in (("uniform", 0.5), ("gaussian", 0.0)):
        objective = EraseDiff(target=target)
        around = [float(objective.forget_loss(torch.full_like(x0, mean + d), forget).mean()) for d in (-0.1, 0, 0.1)]
        assert around[1] < min(around[0], around[2])
        assert around[0] == pytest.approx(around[2], abs=0.01)
        assert around[1] == pytest.approx({"uniform": 1 / 12, "gaussian": 1.0}[target], rel=0.02)
