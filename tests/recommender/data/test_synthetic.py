import time

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_predict

from msgm.errors import UserError
from msgm.recommender.data import load_interactions

ML_1M = {"users": 6040, "items": 3706, "interactions": 1_000_209}


def made(**settings):
    return load_interactions({"name": "synthetic"} | settings)


@pytest.fixture(scope="module")
def data():
    return made()


def attack(data, attribute):
    """Return the balanced accuracy of a logistic attacker on the rows, cross-validated over users."""
    rows, truth = data.matrix.toarray(), data.attributes[attribute]
    guess = cross_val_predict(LogisticRegression(C=0.01, class_weight="balanced", max_iter=300), rows, truth, cv=3)
    return balanced_accuracy_score(truth, guess)


def test_sizes_are_those_of_the_settings(data):
    assert data.shape == (1000, 600)
    assert data.matrix.nnz == pytest.approx(40_000, rel=0.01)
    assert np.diff(data.matrix.indptr).min() >= 10
    assert np.diff(data.matrix.indptr).max() <= 300
    assert data.matrix.has_sorted_indices
    assert len(np.unique(data.matrix.indices[: data.matrix.indptr[1]])) == data.matrix.indptr[1]
    assert set(data.matrix.data) == {1}


def test_the_seed_alone_makes_the_data(data):
    again, other = made(), made(seed=1)
    assert again.digest() == data.digest() != other.digest()
    assert np.array_equal(again.times, data.times)
    assert np.array_equal(again.attributes["gender"], data.attributes["gender"])


def test_activity_and_popularity_have_heavy_tails(data):
    for counts in (np.diff(data.matrix.indptr), np.bincount(data.matrix.indices, minlength=600)):
        counts = np.sort(counts)[::-1]
        assert counts[: len(counts) // 10].sum() > 0.2 * counts.sum()
        assert counts[0] > 5 * np.median(counts)
    flat = made(popularity=0.1, activity=50.0)
    counts = np.sort(np.bincount(flat.matrix.indices, minlength=600))[::-1]
    assert counts[0] < 3 * np.median(counts)


def test_the_law_of_activity_is_a_power_law():
    # 1 - F(x) = (1 + x / s)^-activity, s such that the mean x = s / (activity - 1) is what interactions ask for.
    extra = np.diff(made(users=6040, items=3706, interactions=500_000).matrix.indptr) - 10
    scale = 500_000 / 6040 - 10
    for at in (50, 100, 300, 600):
        assert (extra > at).mean() == pytest.approx((1 + at / scale) ** -2.0, rel=0.2)


def test_users_keep_to_the_clusters_of_their_taste(data):
    tags = np.array(list(data.tags.values())).astype(float)
    assert (tags.sum(0) == 1).all()
    shares = data.matrix @ tags.T
    shares /= shares.sum(1, keepdims=True)
    everyone = tags @ np.bincount(data.matrix.indices, minlength=600) / data.matrix.nnz
    assert shares.max(1).mean() > 1.5 * everyone.max()


def test_attributes_go_with_taste_as_far_as_asked_for(data):
    assert sorted(set(data.attributes["gender"])) == ["F", "M"]
    assert sorted(set(data.attributes["age"])) == ["middle", "old", "young"]
    assert attack(data, "gender") > 0.65
    assert attack(data, "age") > 0.45
    none = made(correlation=0.0)
    assert abs(attack(none, "gender") - 1 / 2) < 0.07
    assert abs(attack(none, "age") - 1 / 3) < 0.07


def test_times_make_sessions(data):
    assert data.times.shape == (data.matrix.nnz,)
    gaps = np.concatenate(
        [np.diff(np.sort(data.times[a:b])) for a, b in zip(data.matrix.indptr, data.matrix.indptr[1:], strict=False)]
    )
    assert gaps.min() >= 0
    assert 0.1 < (gaps > 3600).mean() < 0.2
    assert np.median(gaps) < 300
    # The order of time is not that of item numbers.
    first = data.times[: data.matrix.indptr[1]]
    assert not np.array_equal(np.argsort(first), np.arange(len(first)))


def test_ratings_go_from_one_to_five_and_with_taste():
    data = made(feedback="explicit")
    assert data.explicit
    assert np.unique(data.matrix.data).tolist() == [1, 2, 3, 4, 5]
    assert 3 < data.matrix.data.mean() < 4
    # The user's favourite cluster is rated above the rest.
    cluster = np.argmax(np.array(list(data.tags.values())), axis=0)[data.matrix.indices]
    rows = np.repeat(np.arange(1000), np.diff(data.matrix.indptr))
    shares = np.zeros((1000, len(data.tags)))
    np.add.at(shares, (rows, cluster), 1)
    favourite = cluster == shares.argmax(1)[rows]
    assert data.matrix.data[favourite].mean() > data.matrix.data[~favourite].mean() + 0.2


def test_the_size_of_ml_1m_takes_seconds():
    start = time.process_time()
    data = made(**ML_1M)
    assert time.process_time() - start < 10
    assert data.shape == (6040, 3706)
    assert data.matrix.nnz == pytest.approx(1_000_209, rel=0.001)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"users": 1}, "data.users must be at least 2, got 1"),
        ({"clusters": 5}, "data.clusters must be at least 6, got 5"),
        ({"correlation": 1.0}, r"data.correlation must lie in \[0, 1\), got 1.0"),
        ({"activity": 1.0}, "data.activity must be above 1, got 1.0"),
        ({"popularity": 0.0}, "data.popularity must be a positive number, got 0.0"),
        ({"interactions": 9999}, "between least x users = 10000 and items / 2 x users = 300000, got 9999"),
        ({"interactions": 300_001}, "items / 2 x users = 300000, got 300001"),
    ],
)
def test_settings_out_of_range_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        made(**settings)
