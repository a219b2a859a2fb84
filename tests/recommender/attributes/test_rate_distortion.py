import numpy as np
import pytest
import torch

from msgm.errors import UserError
from msgm.recommender.attributes import ERASURES
from msgm.recommender.attributes.rate_distortion import RateDistortion, coding_rate, rate_gaps
from msgm.recommender.metrics.attribute_attackers import attack
from tests.recommender.attributes.planted import labelled, table


def test_coding_rate_is_its_definition():
    rows = np.random.default_rng(0).normal(size=(20, 4))
    values = np.linalg.svd(rows, compute_uv=False)
    expected = 0.5 * np.log(1 + 4 / (20 * 0.3**2) * values**2).sum()
    assert float(coding_rate(torch.from_numpy(rows).float(), 0.3)) == pytest.approx(expected, rel=1e-5)


def groups_of(codes):
    return [torch.from_numpy(np.flatnonzero(codes == code)) for code in np.unique(codes)]


def test_gaps_are_zero_for_equal_classes_and_tell_means_from_covariances():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 4))).float()
    doubled, groups = torch.cat([rows, rows]), groups_of(np.repeat([0, 1], 200))
    assert rate_gaps(doubled, groups, 0.5).abs().max() < 1e-4
    moved = torch.cat([rows, rows + torch.tensor([2.0, 0, 0, 0])])
    means, covariances = rate_gaps(moved, groups, 0.5)
    assert means > 0.1 > 1e-3 > covariances.abs()
    centred = rows - rows.mean(0)
    means, covariances = rate_gaps(torch.cat([centred, 2 * centred]), groups, 0.5)
    assert covariances > 0.1 > 1e-3 > means.abs()


def test_users_of_no_class_do_not_count():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 3))).float()
    groups = groups_of(np.arange(30) % 2)
    more = torch.cat([rows, 100 * rows])
    assert torch.allclose(rate_gaps(rows, groups, 0.5), rate_gaps(more, groups, 0.5))


def test_attackers_find_less_and_users_without_a_value_pass_through_too():
    rows, texts, context = table(users=300, gap=1.5)
    labels = labelled(texts)
    texts = texts.copy()
    after = RateDistortion(weight=0.1).erase(rows, {"gender": texts}, context)
    assert attack(rows, labels, "logistic").accuracy > 0.7
    assert attack(after, labels, "logistic").leak < 0.62
    texts[:20] = ""
    assert (RateDistortion(steps=5).erase(rows, {"gender": texts}, context)[:20] != rows[:20]).any()


def test_nothing_to_hide_changes_little():
    rows, texts, context = table(gap=0.0)
    after = RateDistortion().erase(rows, {"gender": texts}, context)
    assert np.abs(after - rows).mean() < 0.1 * np.abs(rows).mean()


def test_before_the_first_step_the_plugin_is_the_identity_and_the_map_is_one_of_raw_rows():
    rows, texts, context = table(users=60)
    rows = 50 + 10 * rows
    plugin = RateDistortion(steps=1, learning_rate=1e-12).plugin(rows, {"gender": texts}, context)
    assert np.allclose(plugin(rows), rows, rtol=1e-5)


def test_the_seed_alone_decides():
    rows, texts, context = table(users=100)
    one, same = (RateDistortion(steps=5).erase(rows, {"gender": texts}, context) for _ in range(2))
    other = RateDistortion(steps=5).erase(rows, {"gender": texts}, type(context)(context.items, seed=9))
    assert (one == same).all()
    assert (one != other).any()


def test_bad_settings_are_refused():
    with pytest.raises(UserError, match="erasure.precision must be a positive number, got 0"):
        ERASURES.build({"name": "rate-distortion", "precision": 0})
