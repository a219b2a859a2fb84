"""Completeness: .5 after fitting anew, by construction; above it for a model that remembers; None where unknown."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msgm.recommender.data.base import load_interactions
from msgm.recommender.methods import METHODS
from msgm.recommender.metrics import METRICS
from msgm.recommender.metrics.probes import guest_scorer, probe_of
from msgm.recommender.requests import Deletion
from msgm.strata import auc as area
from tests.recommender.metrics.worlds import deletion_of, given, split_of, tiny_case, trained_case

COMPLETENESS = METRICS.build({"name": "completeness"})
REAL = pytest.mark.skipif(
    not (Path(os.environ.get("MSGM_DATA", "")) / "ml-100k" / "u.data").is_file(),
    reason="needs ml-100k below the folder that MSGM_DATA names",
)


def auc(case):
    return COMPLETENESS.measure(case)["completeness_auc"]


def exact(case):
    """The case of the model that forgot in its own way."""
    return replace(case, target=METHODS.build({"name": "native"}).unlearn(case.target, case.deletion, 0).model)


@pytest.mark.parametrize("kind", ["cells", "users", "items"])
@pytest.mark.parametrize(
    ("name", "margin", "settings"), [("ease", 0.2, {"regularisation": 50.0}), ("item-knn", 0.03, {"neighbours": 30})]
)
def test_forgetting_is_told_from_remembering(name, margin, settings, kind):
    case = trained_case(name, kind, retrains=1, **settings)
    after = auc(replace(case, target=case.retrains[0]))
    assert after == pytest.approx(0.5, abs=0.04)
    assert auc(exact(case)) == pytest.approx(after, abs=1e-6)
    assert auc(case) > after + margin


@REAL
@pytest.mark.parametrize("kind", ["cells", "users", "items"])
def test_on_movielens_retrained_and_exact_models_are_at_half(kind):
    data = load_interactions("ml-100k")
    case = trained_case("item-knn", kind, retrains=1, data=data)
    assert 0.48 <= auc(replace(case, target=case.retrains[0])) <= 0.52
    assert 0.48 <= auc(exact(case)) <= 0.52
    assert auc(case) > auc(exact(case)) + 0.015


@REAL
@pytest.mark.parametrize("kind", ["cells", "users", "items"])
def test_ease_on_movielens(kind):
    case = trained_case("ease", kind, retrains=1, data=load_interactions("ml-100k"))
    assert 0.48 <= auc(replace(case, target=case.retrains[0])) <= 0.52
    assert 0.48 <= auc(exact(case)) <= 0.52
    assert auc(case) > 0.65


def test_users_who_forget_much_do_not_push_it_off_half():
    """Cells of easy users score high, known or not: an unweighed AUC is far from a half where they forget more."""
    rng = np.random.default_rng(0)
    users, items = 3000, 40
    easy = np.arange(users) < users // 2
    scores = rng.normal(size=(users, items))
    train, test = np.zeros((2, users, items), dtype=bool)
    gone = np.zeros((users, items), dtype=bool)
    for user in range(users):
        chosen = rng.choice(items, 7, replace=False)
        forgotten = 5 if easy[user] else 1
        gone[user, chosen[:forgotten]] = test[user, chosen[forgotten:6]] = train[user, chosen[6]] = True
        scores[user, chosen] += 3.0 * easy[user]
    train |= gone
    case = tiny_case(given(scores, train), split_of(train, test), Deletion(cells=np.argwhere(gone)))
    assert auc(case) == pytest.approx(0.5, abs=0.03)
    assert area(scores[gone], scores[test]) > 0.7


def test_a_factor_model_without_fold_in_cannot_be_asked_about_users_who_are_gone():
    case = trained_case("ease", "users", retrains=0)
    users, items = case.split.train.shape
    model = given(np.random.default_rng(0).normal(size=(users, items)), case.split.train.toarray())
    assert auc(replace(case, target=model)) is None
    assert auc(replace(case, target=model, deletion=deletion_of("cells", case.split.train))) is not None


def test_a_model_with_fold_in_is_asked_by_it():
    case = trained_case("ease", "users", retrains=0)
    users, items = case.split.train.shape
    model = given(np.zeros((users, items)), case.split.train.toarray())
    model.__class__ = type("Folding", (type(model),), {"score_rows": lambda self, rows: rows.toarray() - 0.5})
    probe = probe_of(replace(case, target=model), 0)
    scores = guest_scorer(model, probe)(np.array([users + 1]))
    np.testing.assert_array_equal(scores[0], probe.profiles.toarray()[1] - 0.5)


def test_the_half_that_is_asked_for_is_withheld_from_the_profile():
    case = trained_case("ease", "users", retrains=0)
    probe, users = probe_of(case, 0), case.split.train.shape[0]
    dense = probe.profiles.toarray()
    assert (dense[probe.cells.users - users, probe.cells.items] == 0).all()
    first = case.split.train[[case.deletion.users[0]]].toarray()[0]
    np.testing.assert_array_equal(dense[0] + dense[1], first)
    assert len(probe.times) == probe.profiles.nnz
    assert not np.isin(probe.cells.users, case.deletion.users).any()


def test_models_are_left_as_they_were():
    case = trained_case("ease", "users", retrains=0)
    model = case.target
    before = [part.tobytes() for part in (model.inverse, model.seen.data, model.seen.indices, model.gone_users)]
    auc(case)
    assert before == [p.tobytes() for p in (model.inverse, model.seen.data, model.seen.indices, model.gone_users)]


def test_ratings_are_judged_by_their_error():
    rng = np.random.default_rng(0)
    train, test = np.zeros((2, 50, 40))
    for user in range(50):
        chosen = rng.permutation(40)[:20]
        train[user, chosen[:12]], test[user, chosen[12:]] = rng.integers(1, 6, 12), rng.integers(1, 6, 8)
    gone = np.argwhere((train > 0) & (rng.random(train.shape) < 0.3))
    knows = given(np.where(train > 0, train, 3.0) + rng.normal(0, 0.1, train.shape), train > 0)
    guesses = given(3 + rng.normal(0, 0.1, train.shape), train > 0)
    for model, low, high in ((knows, 0.8, 1.0), (guesses, 0.45, 0.55)):
        model.__class__ = type("Rated", (type(model),), {"explicit": True})
        case = tiny_case(model, split_of(train, test), Deletion(cells=gone))
        assert low < auc(case) < high


def test_without_comparable_cells_there_is_no_number():
    case = tiny_case(given([[1, 2, 3]]), split_of([[1, 1, 0]], [[0, 0, 0]]), Deletion(cells=np.array([[0, 1]])))
    assert auc(case) is None
