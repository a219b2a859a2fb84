"""Controls that match a group: weights, the closed form of what unmatched ones do, and areas as scikit-learn's."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from msgm.strata import auc, balanced, controls, tpr_at, weight_below


def test_controls_weigh_as_much_as_members_in_every_stratum():
    strata = np.array([0, 0, 0, 1, 1, 2, 3])
    first = np.array([True, True, False, True, False, True, False])
    keep, weights = balanced(strata, first)
    assert keep.tolist() == [True] * 5 + [False] * 2
    assert weights[keep].tolist() == [1, 1, 2, 1, 1]


def test_members_without_a_control_are_counted_and_compared_with_nothing():
    found = controls(np.array([0, 0, 1, 2, 2, 2]), np.array([0, 0, 0, 0, 2, 5]))
    assert found.matched.tolist() == [True, True, False, True, True, True]
    assert found.unmatched == 1
    assert found.weights.tolist() == [0.5, 0.5, 0.5, 0.5, 3, 0]
    assert found.weights.sum() == found.matched.sum()
    assert found.used.tolist() == [True] * 5 + [False]
    members, others = np.array([1.0, 1, 9, 1, 1, 1]), np.array([0.0, 0, 0, 0, 0, 9])
    assert found.auc(members, others) == 1
    assert found.auc(-members, -others) == 0
    nobody = controls(np.array([0, 0]), np.array([1]))
    assert (nobody.unmatched, nobody.auc(np.ones(2), np.ones(1))) == (2, None)


def test_an_easier_group_is_told_from_everybody_and_not_from_its_own():
    """A model that never saw him: a patient's items score d above those of the others, held out or not."""
    d, count = 0.5, 40_000
    rng = np.random.default_rng(0)
    his, own, others = rng.normal(d, 1, count), rng.normal(d, 1, count // 100), rng.normal(0, 1, count)
    members, held_out = np.zeros(count, dtype=int), np.repeat([0, 1], [len(own), count])
    assert auc(his, others) == pytest.approx(norm.cdf(d / np.sqrt(2)), abs=0.005)
    assert norm.cdf(d / np.sqrt(2)) == pytest.approx(0.638, abs=0.001)
    assert controls(members, held_out).auc(his, np.concatenate([own, others])) == pytest.approx(0.5, abs=0.03)


def test_strata_in_other_shares_are_balanced():
    """Three patients, one of them easy and forgotten whole, the others in part: .5 of a model that saw none of them."""
    rng = np.random.default_rng(1)
    shift = np.array([2.0, 0.0, -1.0])
    members, others = np.repeat([0, 1, 2], [9000, 500, 500]), np.repeat([0, 1, 2], [1000, 8000, 3000])
    scores = [shift[who] + rng.normal(size=len(who)) for who in (members, others)]
    assert auc(*scores) > 0.8
    assert controls(members, others).auc(*scores) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_the_area_is_that_of_scikit_learn_with_ties_and_weights(decimals):
    rng = np.random.default_rng(0)
    members, others = rng.normal(0.5, 1, 40).round(decimals), rng.normal(0, 1, 70).round(decimals)
    weights = rng.uniform(0.1, 3, 70)
    truth, scores = np.repeat([1, 0], [40, 70]), np.concatenate([members, others])
    assert auc(members, others) == pytest.approx(roc_auc_score(truth, scores))
    wanted = roc_auc_score(truth, scores, sample_weight=np.concatenate([np.ones(40), weights]))
    assert auc(members, others, weights) == pytest.approx(wanted)
    assert auc(np.zeros(0), others) is auc(members, np.zeros(0)) is None


def test_the_weight_below_leaves_equal_ones_out_unless_asked():
    others, weights = np.array([3.0, 1.0, 2.0]), np.array([4.0, 1.0, 2.0])
    assert weight_below(np.array([0.0, 2.0, 9.0]), others, weights).tolist() == [0, 1, 7]
    assert weight_below(np.array([0.0, 2.0, 9.0]), others, weights, "right").tolist() == [0, 3, 7]


def test_the_true_positives_cost_no_more_false_ones_than_allowed():
    rng = np.random.default_rng(1)
    members, others = rng.normal(1, 1, 300), rng.normal(0, 1, 200)
    best = max((members > t).mean() for t in np.concatenate([others, [-9.0]]) if (others > t).mean() <= 0.05)
    assert tpr_at(members, others, 0.05) == pytest.approx(best)
    assert tpr_at(members, others, 0.001) == (members > others.max()).mean()
    assert tpr_at(members, np.zeros(0), 0.05) is None


@pytest.mark.parametrize("fpr", [0.001, 0.01, 0.3])
def test_the_curve_is_a_straight_line_within_ties(fpr):
    assert tpr_at(np.zeros(30), np.zeros(50), fpr) == pytest.approx(fpr)
    members, others = np.repeat([2.0, 1.0, 0.0], [5, 10, 5]), np.repeat([2.0, 1.0, 0.0], [4, 20, 16])
    points = np.cumsum([0, 4, 20, 16]) / 40, np.cumsum([0, 5, 10, 5]) / 20
    assert tpr_at(members, others, fpr) == pytest.approx(np.interp(fpr, *points))


@pytest.mark.parametrize("fpr", [0.01, 0.2, 0.5])
def test_true_positives_at_weighted_false_ones_are_scikit_learns(fpr):
    rng = np.random.default_rng(3)
    members, others, weights = rng.normal(1, 1, 300), rng.normal(0, 1, 200), rng.uniform(0.1, 3, 200)
    truth, scores = np.repeat([1, 0], [300, 200]), np.concatenate([members, others])
    every = np.concatenate([np.ones(300), weights])
    false, true, _ = roc_curve(truth, scores, sample_weight=every, drop_intermediate=False)
    assert tpr_at(members, others, fpr, weights) == pytest.approx(true[false <= fpr].max())


def test_equal_weights_are_no_weights_whatever_their_rounding():
    rng = np.random.default_rng(4)
    members, others = rng.normal(1, 1, 300), rng.normal(0, 1, 30)
    for fpr in (0.1, 0.2, 0.5):
        assert tpr_at(members, others, fpr, np.full(30, 300 / 30 / 3)) == tpr_at(members, others, fpr)
