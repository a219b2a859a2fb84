"""SalUn, SFR-on and Selective Amnesia: their formulas, and the faults of their sources."""

import copy
import math

import pytest
import torch
from torch import nn

from msgm.diffusion import VP, Condition, ScoreModel
from msgm.errors import UserError
from msgm.objectives import Phase, SalUn, SelectiveAmnesia, Setup, SFRon, mean_square, noised

G = torch.Generator().manual_seed(0)
UNIFORM = torch.rand(4, 3, generator=G)


def batch(seed, labels=None):
    g = torch.Generator().manual_seed(seed)
    x0, eps = torch.randn(2, 4, 3, generator=g)
    condition = None if labels is None else Condition(torch.tensor(labels))
    return noised(VP(), x0, torch.linspace(0.1, 0.9, 4), eps, lambda name="": UNIFORM, condition)


class Asked(nn.Module):
    """Puts out w_c x, with a weight for each of ten classes and one without a class."""

    def __init__(self, classes=10):
        super().__init__()
        self.classes = classes
        self.weight = nn.Parameter(torch.linspace(-1, 1, 11))

    def predict(self, x, t, condition=None):
        labels = torch.full((len(x),), -1) if condition is None else condition.labels
        return self.weight[labels][:, None] * x


def prepared(objective, forgotten=(3, 4), classes=10, steps=100):
    network = Asked(classes)
    model = ScoreModel(network, VP(), (3,))
    objective.prepare(Setup(lambda: copy.deepcopy(model), None, None, steps=steps, forgotten=forgotten))
    return objective, network


def test_salun_s_target_is_the_student_s_own_prediction_under_a_label_that_is_kept():
    objective, network = prepared(SalUn())
    retain, forget = batch(0, [0, 1, 2, 5]), batch(1, [3, 4, 3, 3])
    terms = objective.terms(network.predict, retain, forget)
    own, other = (network.weight[torch.tensor(labels)][:, None] for labels in ([3, 4, 3, 3], [5, 5, 5, 5]))
    torch.testing.assert_close(terms["forget"].values, mean_square((own - other) * forget.x))
    (gradient,) = torch.autograd.grad(terms["forget"].values.sum(), network.weight)
    assert gradient[[3, 4]].abs().min() > 0
    assert gradient[5] == 0  # the target has no gradient
    assert {name: term.weight for name, term in terms.items()} == {"retain": 0.75, "forget": 0.25}


@pytest.mark.parametrize(("forgotten", "expected"), [((3,), 4), ((3, 4), 5), ((9,), 0), ((8, 9, 0), 1)])
def test_the_other_label_is_the_next_that_is_not_forgotten(forgotten, expected):
    objective, _ = prepared(SalUn(), forgotten)
    assert objective.others[forgotten[0]] == expected


def test_without_labels_salun_teaches_uniform_noise():
    objective, network = prepared(SalUn(), classes=0)
    retain, forget = batch(0), batch(1)
    terms = objective.terms(network.predict, retain, forget)
    torch.testing.assert_close(terms["forget"].values, mean_square(network.weight[-1] * forget.x - UNIFORM))
    torch.testing.assert_close(terms["retain"].values, mean_square(network.weight[-1] * retain.x - retain.eps))


def test_a_row_without_its_label_is_taught_uniform_noise_too():
    objective, network = prepared(SalUn())
    forget = batch(1, [3, -1, 3, -1])
    values = objective.terms(network.predict, batch(0, [0, 0, 0, 0]), forget)["forget"].values
    expected = mean_square(network.predict(forget.x, forget.t, forget.condition) - UNIFORM)
    torch.testing.assert_close(values[[1, 3]], expected[[1, 3]])
    assert (values[[0, 2]] != expected[[0, 2]]).all()


def test_salun_s_default_weighs_a_mean_as_the_code_weighs_a_sum():
    """The code's mean squared error at forget items stands beside 1e-3 times a sum over 32x32x3 at retain items."""
    retain = 1e-3 * 32 * 32 * 3
    assert SalUn().alpha == pytest.approx(retain / (1 + retain), abs=0.005)


def test_sfr_on_makes_two_updates_of_which_the_first_is_masked_and_fades():
    objective, _ = prepared(SFRon(strength=2.0))
    assert objective.phases(0) == (Phase("forget", 2.0), Phase("retain", masked=False))
    rates = [objective.phases(step)[0].rate for step in range(101)]
    assert rates == pytest.approx([1 + math.cos(math.pi * step / 100) for step in range(101)])
    assert (objective.mask.by, objective.mask.threshold) == ("fisher", 1.0)


def test_sfr_on_ascends_with_weights_of_one_over_the_root_of_each_loss():
    objective, network = prepared(SFRon())
    forget = batch(1)
    terms = objective.terms(network.predict, None, forget)
    loss = mean_square(network.weight[-1] * forget.x - forget.eps)
    assert terms.keys() == {"forget"}
    torch.testing.assert_close(terms["forget"].values, loss.sqrt())
    (gradient,) = torch.autograd.grad(terms["forget"].weight * terms["forget"].values.sum(), network.weight)
    (expected,) = torch.autograd.grad(-2 * loss.sqrt().sum(), network.weight)
    torch.testing.assert_close(gradient, expected)
    assert objective.terms(network.predict, batch(0), None).keys() == {"retain"}


def test_a_loss_of_zero_has_a_finite_weight():
    objective, _ = prepared(SFRon())
    forget = batch(1)
    predicted = forget.eps.clone().requires_grad_(True)
    terms = objective.terms(lambda x, t, c=None: predicted, None, forget)
    (gradient,) = torch.autograd.grad(terms["forget"].values.sum(), predicted)
    assert gradient.isfinite().all()


def test_gradients_of_updates_by_themselves_are_not_merged():
    with pytest.raises(UserError, match="objective.combine: .*steps along each by itself"):
        SFRon(combine="pcgrad")


def test_selective_amnesia_teaches_noise_images_under_the_forgotten_label_and_reads_no_retain_item():
    objective = SelectiveAmnesia()
    assert (objective.replay, objective.anchor.by) == (1000, "fisher")
    network, retain, forget = Asked(), batch(0, [0, 1, 2, 5]), batch(1, [3, 4, 3, 3])
    terms = objective.terms(network.predict, retain, forget)
    x = forget.signal * (2 * UNIFORM - 1) + forget.noise * forget.eps
    own = network.weight[forget.condition.labels][:, None]
    torch.testing.assert_close(terms["forget"].values, mean_square(own * x - forget.eps))
