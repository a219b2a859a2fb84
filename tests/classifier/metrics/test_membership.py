"""Population membership inference: definitions, two-sidedness, and the retain side."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from msgm.classifier.metrics import METRICS, Case
from msgm.classifier.metrics.membership import VARIANTS, attack, score
from msgm.classifier.metrics.scores import controls, losses
from msgm.classifier.outputs import Outputs
from msgm.strata import auc
from tests.classifier.metrics.worlds import certain, posteriors

MEMBERSHIP = METRICS.build({"name": "membership"})


def weights(outputs, part):
    """Weights of a part's items and of the non-members, class by class: every class has some of both."""
    own, others = outputs.labels[part], outputs.labels["nonmembers"]
    return np.concatenate([np.ones(len(own)), [(own == y).sum() / (others == y).sum() for y in others]])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_auc_compares_forget_items_with_non_members_of_their_class(variant):
    target = posteriors()
    forget, others = score(target, "forget", variant), score(target, "nonmembers", variant)
    truth = np.repeat([1, 0], [len(forget), len(others)])
    wanted = roc_auc_score(truth, np.concatenate([forget, others]), sample_weight=weights(target, "forget"))
    assert attack(target, variant)["auc"] == pytest.approx(wanted)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_efficacy_is_that_of_the_best_threshold_on_retain_items_against_non_members(variant):
    target = posteriors(4)
    retain, others = score(target, "retain", variant), score(target, "nonmembers", variant)
    every = np.append(np.unique(np.concatenate([retain, others])), np.inf)
    weight = weights(target, "retain")[len(retain) :]
    right = [(retain >= t).mean() + weight[others < t].sum() / weight.sum() for t in every]
    best = [t for t, share in zip(every, right, strict=True) if share == pytest.approx(max(right))]
    found = attack(target, variant)["efficacy"]
    assert found == pytest.approx(np.mean([(score(target, "forget", variant) < t).mean() for t in best]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_that_are_all_alike_have_half_the_efficacy(variant):
    sizes = {"retain": 60, "forget": 20, "nonmembers": 40, "test": 50}
    outputs = Outputs(
        {part: np.zeros((n, 4)) for part, n in sizes.items()}, {part: np.arange(n) % 4 for part, n in sizes.items()}
    )
    assert attack(outputs, variant) == {"auc": 0.5, "efficacy": 0.5}


def test_the_variants_are_what_they_are_called():
    target = posteriors()
    p = np.exp(target.logits["forget"])
    p /= p.sum(1, keepdims=True)
    right = p.argmax(1) == target.labels["forget"]
    np.testing.assert_array_equal(score(target, "forget", "correctness"), right)
    np.testing.assert_allclose(score(target, "forget", "confidence"), p.max(1))
    np.testing.assert_allclose(score(target, "forget", "loss"), np.log(p[np.arange(20), target.labels["forget"]]))


def test_gaps_are_two_sided():
    target, retrained = posteriors(0), [posteriors(1), posteriors(2)]
    found = MEMBERSHIP.measure(Case(target, target, retrained))
    mean = np.mean([attack(one, "loss")["auc"] for one in retrained])
    assert found["mia_loss_auc_gap"] == pytest.approx(abs(found["mia_loss_auc"] - mean))
    below, above = certain(5.0, wrong=("forget",)), certain(5.0, wrong=("nonmembers",))
    for extreme in (below, above):
        value = MEMBERSHIP.measure(Case(extreme, extreme, retrained))
        assert value["mia_loss_auc_gap"] > 0.3
    assert MEMBERSHIP.measure(Case(target, target))["mia_loss_auc_gap"] is None


def test_a_class_request_compares_within_the_forgotten_class():
    rng = np.random.default_rng(0)
    labels = {"retain": np.zeros(50), "forget": np.ones(30), "nonmembers": np.repeat([0, 1], [40, 30])}
    labels = {part: values.astype(np.int64) for part, values in labels.items()}
    # The forgotten class has low loss everywhere: no membership in it, but class 1 is easy to tell from class 0.
    margin = {part: np.where(y == 1, 6.0, 1.0) + rng.normal(0, 0.5, len(y)) for part, y in labels.items()}
    logits = {p: np.stack([np.where(labels[p] == k, m, 0) for k in (0, 1)], 1) for p, m in margin.items()}
    target = Outputs(logits, labels)
    assert abs(attack(target, "loss")["auc"] - 0.5) < 0.15
    assert auc(score(target, "forget", "loss"), score(target, "nonmembers", "loss")) > 0.7


def patients(shift, count=4000, held_out=400):
    """A model that never saw patient 0, whose items are easier by ``shift`` standard deviations than others'."""
    rng = np.random.default_rng(0)
    who = {"retain": np.ones(count), "forget": np.zeros(count), "nonmembers": np.repeat([0, 1], [held_out, count])}
    margins = {part: rng.normal(0, 1, len(own)) + shift * (own == 0) for part, own in who.items()}
    logits = {part: np.stack([m, np.zeros(len(m))], 1) for part, m in margins.items()}
    labels = {part: np.zeros(len(m), dtype=np.int64) for part, m in margins.items()}
    return Outputs(logits, labels), {part: own.astype(np.int64) for part, own in who.items()}


def test_a_patient_whose_items_are_easier_is_compared_with_his_own_held_out_ones():
    outputs, sources = patients(0.5)
    assert attack(outputs, "loss")["auc"] == pytest.approx(norm.cdf(0.5 / np.sqrt(2)), abs=0.02)
    matched = replace(outputs, strata=sources)
    assert attack(matched, "loss")["auc"] == pytest.approx(0.5, abs=0.02)
    assert controls(matched).unmatched == 0


def test_without_an_item_of_the_patient_there_is_no_number():
    outputs, sources = patients(0.5)
    nobody = replace(outputs, strata=sources | {"nonmembers": np.ones_like(sources["nonmembers"])})
    assert controls(nobody).unmatched == 4000
    found = MEMBERSHIP.measure(Case(nobody, nobody))
    assert found["mia_loss_auc"] is None
    assert found["mia_loss_efficacy"] is not None


def test_non_members_of_a_forgotten_class_do_not_calibrate_the_attack():
    outputs = posteriors(3)
    labels = {part: np.minimum(y, 3) for part, y in outputs.labels.items()} | {"forget": np.full(20, 4)}
    labels["nonmembers"][:15] = 4
    changed = dict(outputs.logits) | {"nonmembers": outputs.logits["nonmembers"].copy()}
    changed["nonmembers"][:15] = [0, 0, 0, 0, 50]  # the forgotten class, known with certainty
    found = [attack(Outputs(logits, labels), "confidence") for logits in (outputs.logits, changed)]
    assert found[0]["efficacy"] == found[1]["efficacy"]
    assert found[0]["auc"] != found[1]["auc"]


def test_the_retain_side_counts_items_that_became_more_exposed():
    original = posteriors(0)
    louder = Outputs(dict(original.logits), original.labels)
    louder.logits["retain"] = original.logits["retain"] + 9 * np.eye(5)[original.labels["retain"]]
    found = MEMBERSHIP.measure(Case(louder, original))
    held_out = losses(original, "nonmembers")
    lowest = losses(original, "retain") < held_out.min()
    assert found["mia_retain_worse"] == pytest.approx((~lowest).mean(), abs=0.1)
    assert found["mia_retain_auc"] > MEMBERSHIP.measure(Case(original, original))["mia_retain_auc"] + 0.2
    assert MEMBERSHIP.measure(Case(original, original))["mia_retain_worse"] == 0
