"""Per-example scores by their definitions, and the numbers that attacks are read by."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from msgm.classifier.metrics.scores import (
    attack_numbers,
    best_thresholds,
    controls,
    entropies,
    forgotten_classes,
    gap,
    log_complements,
    losses,
    margins,
    mean_of,
    modified_entropies,
    told_apart,
)
from msgm.classifier.outputs import Outputs
from tests.classifier.metrics.worlds import posteriors


def probabilities(outputs, part):
    z = np.exp(outputs.logits[part])
    return z / z.sum(1, keepdims=True)


def test_scores_follow_their_definitions():
    outputs = posteriors()
    p, labels = probabilities(outputs, "forget"), outputs.labels["forget"]
    for i, y in enumerate(labels):
        others = sum(p[i, j] * math.log(1 - p[i, j]) for j in range(5) if j != y)
        assert losses(outputs, "forget")[i] == pytest.approx(-math.log(p[i, y]))
        assert entropies(outputs, "forget")[i] == pytest.approx(stats.entropy(p[i]))
        assert modified_entropies(outputs, "forget")[i] == pytest.approx(-(1 - p[i, y]) * math.log(p[i, y]) - others)
        assert margins(outputs, "forget")[i] == pytest.approx(math.log(p[i, y] / (1 - p[i, y])))


def test_the_modified_entropy_depends_on_the_labels_of_a_batch_that_holds_all_classes():
    outputs = posteriors()
    assert set(outputs.labels["retain"]) == set(range(5))
    other = Outputs(outputs.logits, {"retain": (outputs.labels["retain"] + 1) % 5})
    assert not np.allclose(modified_entropies(outputs, "retain"), modified_entropies(other, "retain"))


def test_scores_of_nearly_certain_models_stay_finite_and_exact():
    outputs = Outputs({"forget": np.array([[200.0, 0.0, 0.0], [200.0, 0.0, 0.0]])}, {"forget": np.array([0, 1])})
    assert margins(outputs, "forget")[0] == pytest.approx(200 - math.log(2))
    assert margins(outputs, "forget")[1] == pytest.approx(-200, abs=1e-6)
    # Wrong with certainty: (1 - p_y)(-log p_y) is 200 and p_top (-log(1 - p_top)) is 200 - log 2.
    assert modified_entropies(outputs, "forget")[1] == pytest.approx(400 - math.log(2))
    assert modified_entropies(outputs, "forget")[0] == pytest.approx(0, abs=1e-80)


def test_complements_agree_with_the_direct_form_where_that_is_exact():
    lp = np.log(np.random.default_rng(0).dirichlet(np.ones(6), 50))
    np.testing.assert_allclose(log_complements(lp), np.log(1 - np.exp(lp)), rtol=1e-9)


def test_the_threshold_has_the_best_balanced_accuracy():
    rng = np.random.default_rng(2)
    members, others = rng.normal(1, 1, 60), rng.normal(0, 1, 45)

    def balanced(t):
        return ((members >= t).mean() + (others < t).mean()) / 2

    every = np.concatenate([members, others])
    best = [balanced(t) for t in best_thresholds(members, others)]
    assert best == pytest.approx([max(balanced(t) for t in every)] * len(best))


def test_equally_good_thresholds_are_all_given():
    assert best_thresholds(np.zeros(3), np.zeros(4)).tolist() == [0, np.inf]
    assert best_thresholds(np.array([1.0, 3.0]), np.array([0.0, 2.0])).tolist() == [1, 3]


def test_weights_of_the_others_move_the_best_threshold():
    members, others = np.array([3.0, 2.0, 1.0]), np.array([2.5, 0.5])
    assert best_thresholds(members, others, np.array([1.0, 9.0])).tolist() == [1]
    assert best_thresholds(members, others, np.array([9.0, 1.0])).tolist() == [3]


def test_thresholds_that_differ_by_rounding_are_equally_good():
    same = np.arange(7.0)
    assert len(best_thresholds(same, same, np.full(7, 0.1))) == 8


def test_items_are_compared_with_non_members_of_their_class_and_source():
    labels = {"retain": np.array([0, 1]), "forget": np.array([2, 2]), "nonmembers": np.repeat([0, 1, 2], [5, 5, 2])}
    outputs = Outputs({"forget": np.zeros((2, 3))}, labels)
    assert forgotten_classes(outputs).tolist() == [2]
    assert controls(outputs).weights.tolist() == [0] * 10 + [1] * 2
    assert controls(outputs, "retain").weights.tolist() == [0.2] * 10 + [0] * 2
    sources = {
        "retain": np.array([0, 1]),
        "forget": np.array([2, 3]),
        "nonmembers": np.repeat([0, 1, 4, 3], [5, 5, 1, 1]),
    }
    found = controls(replace(outputs, strata=sources))
    assert found.weights.tolist() == [0] * 11 + [1]
    assert (found.matched.tolist(), found.unmatched) == ([False, True], 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_attack_is_read_in_both_tails(sign):
    members, others = sign * np.array([5.0, 0.2, 0.3]), sign * np.linspace(-1, 1, 200)
    found = told_apart("lira", members, others, np.ones(200), 0.001)
    assert found["lira_auc"] == pytest.approx(0.5 + sign * 0.25, abs=0.01)
    tails = [found["lira_tpr_at_0_1_fpr"], found["lira_low_tpr_at_0_1_fpr"]]
    assert tails[::sign] == [pytest.approx(1 / 3), 0]
    assert list(found) == list(attack_numbers("lira", "LiRA", 0.001))


def test_gaps_and_means_need_what_they_compare():
    assert gap(0.2, 0.5) == pytest.approx(0.3)
    assert gap(None, 0.5) is gap(0.5, None) is gap(None, None) is None
    assert mean_of([None, 1.0, 2.0]) == 1.5
    assert mean_of([None]) is None
