from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from msgm.data import DATASETS
from msgm.evaluation import Bench
from msgm.evaluation.attacks import membership
from msgm.evaluation.attacks.inference import Sides, auc_text, held_out
from msgm.evaluation.attacks.levels import clean_items
from msgm.evaluation.attacks.membership import Membership, item_losses
from msgm.evaluation.attacks.separation import auc, true_positives
from msgm.requests import ForgetRequest
from msgm.strata import controls
from tests.evaluation.attacks import Empirical, bench_of, fresh, subject_of


@pytest.fixture(scope="module")
def bench():
    return bench_of()


def inferred(members, others, weights=None):
    return Membership().separated(members, others, weights)


def scores(m, n, shift, ties=False, seed=0):
    rng = np.random.default_rng(seed)
    positive, negative = rng.normal(shift, 1, m), rng.normal(0, 1, n)
    return (positive.round(1), negative.round(1)) if ties else (positive, negative)


@pytest.mark.parametrize(("m", "n", "shift", "ties"), [(40, 30, 0.5, False), (7, 90, -0.3, True), (1, 5, 0, False)])
def test_the_area_is_scikit_learns(m, n, shift, ties):
    positive, negative = scores(m, n, shift, ties)
    expected = roc_auc_score([1] * m + [0] * n, np.concatenate([positive, negative]))
    found = auc(positive, negative)
    assert found["value"] == pytest.approx(expected, abs=1e-12)
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
    assert found["n"] == [m, n]


def test_the_interval_covers_the_true_area_19_times_in_20():
    truth = 0.5 * (1 + torch.erf(torch.tensor(1.0 / 2))).item()  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt(2))
    found = [auc(*scores(60, 80, 1.0, seed=seed)) for seed in range(300)]
    covered = np.mean([f["low"] <= truth <= f["high"] for f in found])
    assert 0.91 <= covered <= 0.98


def test_the_true_positive_rate_is_scikit_learns():
    positive, negative = scores(300, 500, 1.5)
    fpr, tpr, _ = roc_curve([1] * 300 + [0] * 500, np.concatenate([positive, negative]), drop_intermediate=False)
    found = true_positives(positive, negative)
    assert found["value"] == pytest.approx(tpr[fpr <= 0.01].max())
    assert found["n"] == 300


def test_below_a_hundred_others_no_false_positive_is_allowed():
    found = true_positives(np.array([3.0, 0.9, 0.5]), np.array([1.0, 0.0]))
    assert found["value"] == pytest.approx(1 / 3)


def test_members_have_the_lower_loss():
    found = inferred(np.array([0.1, 0.2]), np.array([0.3, 0.4]))
    assert found["auc"]["value"] == 1
    assert (found["true_positives"]["value"], found["true_positives_low"]["value"]) == (1, 0)
    assert inferred(np.array([0.3, 0.4]), np.array([0.1, 0.2]))["true_positives_low"]["value"] == 1
    assert found["mean_loss_members"] < found["mean_loss_others"]


def test_losses_that_are_no_numbers_are_counted_and_give_no_area():
    found = inferred(np.array([0.1, np.nan]), np.array([np.inf]))
    assert (found["auc"], found["non_finite"]) == (None, 2)
    assert set(Membership.followed({"forget": found, "retain": found}).values()) == {None}
    assert Membership.counted({"forget": found, "retain": found}) == {}
    row = {"membership": {"forget": found, "retain": found}}
    cells = [column.cell(row, {}) for column in Membership.columns]
    assert cells == ["diverged on 2", "diverged", "diverged on 2", "-"]


def test_a_model_that_knows_its_training_items_gives_them_away(bench):
    known = clean_items(bench.dataset, bench.split.train.all, torch.device("cpu"))
    model = Empirical(fresh(bench).process, known, width=0.05)
    found = Membership(items=60, levels=[0.28, 0.77]).measure(subject_of(bench, model))["membership"]
    for part in ("forget", "retain"):
        assert found[part]["auc"]["value"] > 0.95
        assert found[part]["members"] == found[part]["others"] == 60


def test_a_fresh_network_tells_nothing(bench):
    found = Membership(items=200).measure(subject_of(bench))["membership"]
    for part in ("forget", "retain"):
        assert found[part]["auc"]["low"] < 0.5 < found[part]["auc"]["high"]


def test_an_items_loss_depends_on_its_own_noise_alone(bench):
    model = fresh(bench)
    indices = bench.split.train.forget[:5]
    whole = item_losses(model, bench, indices, [0.5, 2.0])
    alone = torch.cat([item_losses(model, bench, np.array([i]), [0.5, 2.0]) for i in indices])
    assert torch.allclose(whole, alone, atol=1e-5)
    assert len(set(whole.tolist())) == 5


def asking(bench, dataset=None, **request):
    """The bench of another request."""
    asked, dataset = ForgetRequest(**request), dataset or bench.dataset
    split = DATASETS.build({"name": "digits"}).split(dataset, asked)
    return Bench(replace(bench.config, request=asked), dataset, split, bench.judge, bench.reality)


def by_item(bench):
    """The positions of nine training items of the classes 3 and 7, and how many of them are threes."""
    chosen = bench.split.train.forget[:9]
    return chosen.tolist(), int((bench.dataset.labels[chosen] == 3).sum())


def test_items_listed_one_by_one_are_compared_with_held_out_ones_of_their_classes(bench):
    chosen, threes = by_item(bench)
    alone = asking(bench, indices=chosen)
    assert not len(alone.split.test.forget)
    sides = Membership().sides(alone, alone.split.train.forget, held_out(alone.split, "all"))
    classes = bench.dataset.labels[sides.others]
    assert set(classes) == {3, 7}
    assert sorted(sides.members) == chosen
    assert sides.weights[classes == 3].sum() == pytest.approx(threes)
    assert sides.weights.sum() == pytest.approx(9)
    found = Membership().measure(subject_of(alone))["membership"]
    assert (found["forget"]["members"], found["forget"]["others"]) == (9, len(classes))
    assert (found["forget"]["unmatched"], found["retain"]["unmatched"]) == (0, 0)


def test_items_are_drawn_among_those_that_have_controls_and_weighted_as_drawn(bench):
    """All but 30 forgotten items are of a patient without a held-out item; most held-out items are of other classes."""
    labels, forget = bench.dataset.labels, bench.split.train.forget
    listed = forget[:-30]
    patient = np.where(np.isin(np.arange(len(labels)), listed), "ann", "bob")
    alone = asking(bench, replace(bench.dataset, groups={"patient": patient}), indices=forget.tolist())
    sides = Membership(items=12).sides(alone, alone.split.train.forget, held_out(alone.split, "all"))
    assert (len(sides.members), len(sides.others), sides.unmatched) == (12, 12, len(listed))
    assert not np.isin(sides.members, listed).any()
    for label in (3, 7):
        count = (labels[sides.members] == label).sum()
        assert sides.weights[labels[sides.others] == label] == pytest.approx(
            count / (labels[sides.others] == label).sum()
        )


def test_losses_are_read_by_the_weights_of_the_controls(monkeypatch):
    """Two controls of weights 3 and 1 beside four members, whose losses lie between them."""
    losses = torch.tensor([2.0, 1.0, 3.0]).double()
    monkeypatch.setattr(membership, "losses_by_level", lambda *given: losses[given[2]][:, None])
    subject = SimpleNamespace(model=None, bench=None)
    sides = Sides(np.zeros(4, dtype=int), np.array([1, 2]), np.array([3.0, 1.0]), unmatched=0)
    found = Membership(levels=[1.0]).inferred(subject, sides)
    assert found["auc"]["value"] == 1 / 4  # members have the lower loss than one of four controls by weight
    assert found["mean_loss_others"] == (3 * 1 + 1 * 3) / 4


@pytest.mark.parametrize(("highest", "found"), [(1, 1), (4, 0)])
def test_true_positives_cost_a_share_of_the_weight(highest, found):
    """Of 200 controls that weigh 1 the highest costs .5%, which is allowed; where it weighs 4, 2%, which is not."""
    weights = np.append(np.ones(199), highest)
    scores = np.append(np.zeros(199), 3.0)
    assert true_positives(np.full(5, 2.0), scores, weights)["value"] == found
    tails = inferred(np.full(5, -2.0), -scores, weights)
    assert (tails["true_positives"]["value"], tails["true_positives_low"]["value"]) == (found, 0)


def test_items_that_a_kind_names_are_compared_with_held_out_ones_that_it_names(bench):
    sides = Membership(items=9999).sides(bench, bench.split.train.forget, held_out(bench.split, "forget"))
    assert set(sides.others) == set(held_out(bench.split, "forget"))
    assert (
        len(Membership(items=20).sides(bench, bench.split.train.forget, held_out(bench.split, "forget")).others) <= 20
    )


def test_without_held_out_items_of_their_source_it_is_not_tested(bench, capsys):
    chosen, _ = by_item(bench)
    patient = np.where(np.isin(np.arange(len(bench.dataset)), chosen), "ann", "bob")
    alone = asking(bench, replace(bench.dataset, groups={"patient": patient}), indices=chosen)
    found = Membership().measure(subject_of(alone))["membership"]
    assert list(found) == ["not_tested"]
    assert "no held-out item of the request's kind has the class and source" in found["not_tested"]
    assert "model: membership not tested: " in capsys.readouterr().out
    assert {column.cell({"membership": found}, {}) for column in Membership.columns} == {"not tested"}


def test_items_without_controls_are_counted(bench):
    chosen, _ = by_item(bench)
    patient = np.where(np.isin(np.arange(len(bench.dataset)), chosen[:4]), "ann", "bob")
    alone = asking(bench, replace(bench.dataset, groups={"patient": patient}), indices=chosen)
    found = Membership().measure(subject_of(alone))["membership"]
    assert (found["forget"]["members"], found["forget"]["unmatched"]) == (5, 4)
    assert Membership.columns[0].cell({"membership": found}, {}).endswith("; 4 items without controls")


def test_without_a_request_it_is_not_tested(bench):
    nobody = replace(bench.split, train=replace(bench.split.train, forget=np.empty(0, dtype=np.int64)))
    assert Membership().obstacle(bench.split, None) is None
    assert Membership().obstacle(nobody, None) == "nothing was asked to be forgotten"


def test_a_side_without_items_has_no_numbers():
    found = Membership().inferred(None, Sides(*(np.empty(0) for _ in range(3)), unmatched=4))
    assert (found["auc"], found["members"]) == (None, 0)
    assert auc_text("forget", {"forget": found}) == "no controls"


def test_a_report_of_an_earlier_version_has_one_tail(bench):
    found = inferred(np.array([0.1, 0.2]), np.array([0.3, 0.4]))
    known = {
        part: {key: value for key, value in found.items() if key != "true_positives_low"}
        for part in ("forget", "retain")
    }
    assert list(Membership.followed(known)) == ["MIA AUC forget", "MIA AUC retain", "MIA TPR %"]
    assert Membership.counted(known) == {"MIA TPR %": 50}
    assert Membership.columns[1].cell({"membership": known}, {}) == "100.0"
    assert list(Membership.followed({"forget": found, "retain": found}))[2:] == [
        "MIA TPR %",
        "MIA TPR % of the highest losses",
    ]


def strata_of(rng, shift, members, others):
    """Scores of people whose items are shifted, with the weights of the controls."""
    who = [np.repeat(np.arange(len(shift)), count) for count in (members, others)]
    positive, negative = (np.asarray(shift)[one] + rng.normal(size=len(one)) for one in who)
    return positive, negative, controls(*who).weights


def test_the_area_of_matched_groups_is_a_half_and_its_interval_covers_it():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        positive, negative, weights = strata_of(rng, [0.5, 0.0], [60, 20], [20, 90])
        found.append(auc(positive, negative, weights))
        expected = roc_auc_score([1] * 80 + [0] * 110, [*positive, *negative], sample_weight=[*np.ones(80), *weights])
        assert found[-1]["value"] == pytest.approx(expected)
    assert np.mean([one["value"] for one in found]) == pytest.approx(0.5, abs=0.015)
    assert 0.91 <= np.mean([one["low"] <= 0.5 <= one["high"] for one in found]) <= 0.98


def test_equal_weights_change_no_interval():
    positive, negative = scores(40, 30, 0.5)
    plain, weighted = auc(positive, negative), auc(positive, negative, np.full(30, 40 / 30))
    assert {**weighted, "n": None} == pytest.approx({**plain, "n": None})
