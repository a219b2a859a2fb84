import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from msgm.data import DATASETS
from msgm.evaluation import Bench
from msgm.evaluation.attacks.levels import clean_items
from msgm.evaluation.attacks.membership import Membership, auc, inference, item_losses, true_positives
from msgm.requests import ForgetRequest
from tests.evaluation.attacks import Empirical, bench_of, fresh, subject_of


@pytest.fixture(scope="module")
def bench():
    return bench_of()


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
    assert found["false_positives"]["value"] <= 0.01


def test_below_a_hundred_others_no_false_positive_is_allowed():
    found = true_positives(np.array([3.0, 1.0, 0.5]), np.array([1.0, 0.0]))
    assert (found["value"], found["false_positives"]["value"]) == (1 / 3, 0)


def test_members_have_the_lower_loss():
    found = inference(np.array([0.1, 0.2]), np.array([0.3, 0.4]))
    assert found["auc"]["value"] == 1
    assert found["true_positives"]["value"] == 1
    assert found["mean_loss_members"] < found["mean_loss_others"]


def test_losses_that_are_no_numbers_are_counted_and_give_no_area():
    found = inference(np.array([0.1, np.nan]), np.array([np.inf]))
    assert (found["auc"], found["non_finite"]) == (None, 2)
    row = {"membership": {"forget": found, "retain": found}}
    assert [column.cell(row, {}) for column in Membership.columns] == ["diverged on 2", "diverged", "diverged on 2"]


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


def test_without_held_out_items_to_forget_it_is_not_tested(bench, capsys):
    settings = DATASETS.build({"name": "digits"})
    request = ForgetRequest(indices=bench.split.train.forget[:9].tolist())
    alone = Bench(bench.config, bench.dataset, settings.split(bench.dataset, request), bench.judge, bench.reality)
    found = Membership().measure(subject_of(alone))["membership"]
    assert list(found) == ["not_tested"]
    assert "names no held-out item" in found["not_tested"]
    assert "model: membership not tested: " in capsys.readouterr().out
    assert {column.cell({"membership": found}, {}) for column in Membership.columns} == {"not tested"}
