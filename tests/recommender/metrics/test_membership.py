"""Membership inference: attackers find what a model remembers, and a refit gives them nothing."""

from dataclasses import replace

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.data.splits import PerUser
from msgm.recommender.metrics import METRICS
from tests.recommender.metrics.worlds import SOURCE, given, trained_case

MEMBERSHIP = METRICS.build({"name": "membership"})


@pytest.mark.parametrize("kind", ["cells", "users"])
def test_the_attacker_by_scores_finds_what_is_remembered(kind):
    case = trained_case("ease", kind, retrains=1, regularisation=50.0)
    before, after = MEMBERSHIP.measure(case), MEMBERSHIP.measure(replace(case, target=case.retrains[0]))
    assert before["membership_scores_auc"] > 0.7
    assert after["membership_scores_auc"] == pytest.approx(0.5, abs=0.05)
    assert before["membership_scores_share"] > after["membership_scores_share"] + 0.2
    assert before["membership_embeddings_auc"] is None


def test_the_attacker_by_factors_finds_what_is_remembered():
    case = trained_case("ease", "cells", retrains=0)
    rng = np.random.default_rng(0)
    users, items = case.split.train.shape
    remembered = case.split.train.toarray()
    left = case.deletion.without(case.split.train).toarray()
    numbers = {}
    for name, known in (("before", remembered), ("after", left)):
        # A user's factors are his row of cells, an item's its unit vector, and noise.
        model = case.target.__class__().fit(case.split.train)
        model.user_factors = known + rng.normal(0, 0.2, (users, items))
        model.item_factors = np.eye(items) + rng.normal(0, 0.01, (items, items))
        numbers[name] = MEMBERSHIP.measure(replace(case, target=model))
    assert numbers["before"]["membership_embeddings_auc"] > 0.8
    assert numbers["after"]["membership_embeddings_auc"] == pytest.approx(0.5, abs=0.06)
    assert numbers["before"]["membership_embeddings_share"] > numbers["after"]["membership_embeddings_share"] + 0.3


def test_users_who_are_gone_need_fold_in_for_the_attack_by_factors():
    case = trained_case("als", "users", retrains=0, factors=8, sweeps=3)
    assert MEMBERSHIP.measure(case)["membership_embeddings_auc"] is not None
    blind = given(np.random.default_rng(0).normal(size=case.split.train.shape), case.split.train.toarray())
    assert set(MEMBERSHIP.measure(replace(case, target=blind)).values()) == {None}


def test_non_members_are_validation_cells_of_retained_users():
    case = trained_case("ease", "users", retrains=0)
    lesson = MEMBERSHIP._lesson(case)
    assert not np.isin(lesson.cells.users, case.deletion.users).any()
    for part, chosen in ((case.split.train, lesson.forgotten), (case.split.validation, ~lesson.forgotten)):
        cells = lesson.cells.at(chosen)
        assert (part.toarray()[cells.users, cells.items] > 0).all()
    assert lesson.weights[lesson.forgotten].sum() == pytest.approx(lesson.weights[~lesson.forgotten].sum())


def test_without_validation_cells_there_is_no_number():
    case = trained_case("ease", "cells", retrains=0)
    split = PerUser(validation=0.0).split(SOURCE.load())
    assert set(MEMBERSHIP.measure(replace(case, split=replace(case.split, validation=split.validation))).values()) == {
        None
    }


def test_the_same_seed_gives_the_same_numbers():
    case = trained_case("ease", "users", retrains=0)
    small = METRICS.build({"name": "membership", "cells": 300})
    assert small.measure(case) == small.measure(case)
    assert small.measure(case) != METRICS.build({"name": "membership", "cells": 300, "seed": 1}).measure(case)


def test_too_few_cells_are_refused():
    with pytest.raises(UserError, match=r"options.membership.cells must be at least 20, got 5"):
        METRICS.build({"name": "membership", "cells": 5})
