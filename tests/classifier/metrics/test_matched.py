"""Attacks compare items with their controls: what each control weighs, and which items have none, matters."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from msgm.classifier.data import Shares, held_out, split_by
from msgm.classifier.measuring import outputs_of
from msgm.classifier.metrics import METRICS, Case
from msgm.classifier.metrics.lira import lira_scores
from msgm.classifier.metrics.probe import probe_auc
from msgm.classifier.metrics.u_lira import Probes, ULiRA
from msgm.classifier.outputs import Outputs
from msgm.data.base import Dataset

WHO = {"forget": [0] * 6 + [1] * 2 + [2] * 3, "nonmembers": [0] * 2 + [1] * 5 + [3] * 4, "retain": [0] * 3 + [1] * 3}
"""Patients: three forgotten items are of one, 2, of whom no other item is here; patient 3 has no forgotten one."""
SHARES = [6 / 2] * 2 + [2 / 5] * 5
"""What the non-members of patients 0 and 1 weigh beside the forgotten items of these."""


def margins_of(rng):
    """Draws for every item, higher for patient 0 and by far the highest for 2 and 3, who are compared with nothing."""
    return {part: rng.normal(np.array([1.0, 0.0, 9.0, -9.0])[who]) for part, who in WHO.items()}


def outputs(margins, who=WHO):
    """Outputs of two classes whose margin log p_y - log(1 - p_y) is the given one; all items are of one class."""
    logits = {part: np.stack([values, np.zeros(len(values))], axis=1) for part, values in margins.items()}
    return Outputs(
        logits,
        {part: np.zeros(len(values), dtype=np.int64) for part, values in margins.items()},
        strata={part: np.array(patient) for part, patient in who.items()},
    )


def weighted_auc(members, others, weights):
    truth = np.repeat([1, 0], [len(members), len(others)])
    sample_weight = [*np.ones(len(members)), *weights]
    return roc_auc_score(truth, np.concatenate([members, others]), sample_weight=sample_weight)


def test_outputs_know_the_class_and_the_source_of_every_item():
    labels, patient = np.arange(60) % 2, np.array(["ann", "bob", "cas"])[np.arange(60) % 3]
    dataset = Dataset("d", torch.zeros(60, 2), (2,), None, labels, ["a", "b"], groups={"patient": patient})
    parts = held_out(dataset, Shares(), 0)
    split = split_by(dataset, parts, np.isin(np.arange(60), parts["train"][:9]))
    found = outputs_of(torch.nn.Linear(2, 2), split)
    for part, examples in split.parts().items():
        np.testing.assert_array_equal(found.stratum(part), examples.strata)
        known = set(zip(found.stratum(part), labels[examples.indices], patient[examples.indices], strict=True))
        assert len(known) == len({code for code, *_ in known}) > 2


def test_lira_weighs_the_controls():
    rng = np.random.default_rng(0)
    target, *retrains = drawn = [margins_of(rng) for _ in range(4)]
    found = METRICS.build({"name": "lira"}).measure(Case(*[outputs(drawn[0])] * 2, [outputs(one) for one in retrains]))
    phi = np.stack([np.concatenate([one["forget"][:8], one["nonmembers"][:7]]) for one in (target, *retrains)])
    scores = lira_scores(phi[0], None, phi[1:])
    assert found["lira_auc"] == pytest.approx(weighted_auc(scores[:8], scores[8:], SHARES))
    assert found["lira_auc"] != pytest.approx(weighted_auc(scores[:8], scores[8:], np.ones(7)), abs=0.02)


def test_u_lira_weighs_the_controls_and_leaves_out_what_has_none(monkeypatch):
    rng = np.random.default_rng(1)
    target, inside, outside = outputs(margins_of(rng)), rng.normal(1, 1, (3, 15)), rng.normal(-1, 1, (3, 15))
    monkeypatch.setattr(ULiRA, "shadows", lambda *_: (inside, outside))
    live = SimpleNamespace(method="a method", settings=SimpleNamespace(seed=0))
    case = Case(target, target, live=live)
    probes = Probes.of(case, live)
    of_whom = np.array(WHO["nonmembers"])[probes.held_out]
    assert of_whom.tolist() == [0, 0, 1, 1]  # of patient 1 as many as he has forgotten items
    members, others = np.split(lira_scores(probes.margins(target), inside, outside), [11])
    found = ULiRA().measure(case)["u_lira_auc"]
    assert found == pytest.approx(weighted_auc(members[:8], others, [3, 3, 1, 1]))
    for other in (weighted_auc(members, others, [3, 3, 1, 1]), weighted_auc(members[:8], others, np.ones(4))):
        assert found != pytest.approx(other, abs=0.01)


def patients(rng, effect_of_0, effect_of_1):
    """Two patients of 1000 items in other shares, and a feature in which members of each differ from the others."""
    member = np.repeat([True, False, True, False], [900, 100, 100, 900])
    patient = np.repeat([0.0, 1.0], 1000)
    weights = np.where(member, 1.0, np.where(patient == 0, 900 / 100, 100 / 900))
    feature = rng.normal(np.where(member, 0.0, -np.where(patient == 0, effect_of_0, effect_of_1)))
    return np.stack([patient, feature], axis=1), member, weights


def test_the_probe_learns_from_weighted_controls():
    """By weight, whose an item is says nothing, so that the feature alone is read; unweighted it is mixed with that."""
    x, member, weights = patients(np.random.default_rng(2), 1, 1)
    alone = weighted_auc(x[member, 1], x[~member, 1], weights[~member])
    assert alone == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.05)
    assert probe_auc(x, member, weights, 5, 0) == pytest.approx(alone, abs=0.02)


def test_the_probe_is_read_by_weighted_controls():
    """Items of patient 0 are told by 3 standard deviations, those of patient 1, who lie halfway, not at all.

    Nine of ten pairs have a member, or a control, of patient 0; unweighted, one of ten controls is his: .83.
    """
    x, member, weights = patients(np.random.default_rng(2), 3, 0)
    both, one = norm.cdf(3 / np.sqrt(2)), norm.cdf(1.5 / np.sqrt(2))
    wanted = 0.81 * both + 0.18 * one + 0.01 / 2
    assert probe_auc(x, member, weights, 5, 0) == pytest.approx(wanted, abs=0.04)


def retain_side(then, now, who=WHO):
    """The retain side of a model whose non-members had the margins ``then`` and have ``now``; other items have 0."""
    others = {part: np.zeros(len(who[part])) for part in ("retain", "forget")}
    target, original = (outputs({**others, "nonmembers": np.array(values)}, who) for values in (now, then))
    return METRICS.build({"name": "membership"}).measure(Case(target, original))


def test_a_retain_item_is_more_exposed_by_the_weight_of_the_controls_with_a_higher_loss():
    """The controls of patient 0 weigh 3 / 2 each, those of patient 1 3 / 5: one of 0 is more than two of 1."""
    one_of_0, two_of_1 = [-1.0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0], [1.0, 1, -1, -1, 1, 1, 1, 0, 0, 0, 0]
    assert retain_side(then=two_of_1, now=one_of_0)["mia_retain_worse"] == 1
    assert retain_side(then=one_of_0, now=two_of_1)["mia_retain_worse"] == 0
    assert retain_side(two_of_1, one_of_0)["mia_retain_auc"] == pytest.approx(1.5 / 6)


def test_the_same_weight_summed_in_another_order_is_no_more_exposure():
    """Controls of three patients weigh .1, .2 and .3; half of each have the lower loss, in orders drawn at random."""
    rng, who = np.random.default_rng(3), {"retain": [0, 1, 1, 2, 2, 2], "forget": [0], "nonmembers": [0, 1, 2] * 10}
    higher = np.repeat([False, True], 15)
    for _ in range(20):
        then, now = (np.where(higher, -1.0, 1 + rng.permutation(30)) for _ in range(2))
        assert retain_side(then, now, who)["mia_retain_worse"] == 0
