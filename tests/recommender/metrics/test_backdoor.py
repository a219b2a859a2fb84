"""Repair of planted profiles: exposure by hand, and a real attack on EASE that forgetting undoes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array, vstack

from msgm.recommender.data.base import IdMap, Interactions
from msgm.recommender.data.splits import PerUser
from msgm.recommender.methods import METHODS
from msgm.recommender.metrics import METRICS, Case
from msgm.recommender.models import MODELS
from msgm.recommender.requests import Deletion
from tests.recommender.metrics.worlds import SOURCE, given, split_of, tiny_case, trained_case

BACKDOOR = METRICS.build({"name": "backdoor"})


def attacked():
    """EASE on synthetic data with 40 planted users who have the rarest item and the twenty most popular ones."""
    data = SOURCE.load()
    counts = np.bincount(data.matrix.indices, minlength=data.shape[1])
    target, popular = int(np.argmin(counts)), np.argsort(-counts)[:20]
    profiles = np.zeros((40, data.shape[1]), dtype=np.float32)
    profiles[:, popular] = profiles[:, target] = 1
    split = PerUser().split(data)
    parts = {"train": csr_array(vstack([split.train, csr_array(profiles)], format="csr")), "train_times": None}
    for name in ("validation", "test"):
        parts[name] = csr_array(
            vstack([getattr(split, name), csr_array(profiles.shape, dtype=np.float32)], format="csr")
        )
    tags = {"promoted": np.arange(data.shape[1]) == target}
    users = IdMap(map(str, range(len(profiles) + data.shape[0])), "user")
    planted = Interactions(parts["train"], users, data.items, tags=tags)
    split = replace(split, **parts)
    model = MODELS.build({"name": "ease", "regularisation": 50.0}).fit(split.train)
    deletion = Deletion(users=np.arange(data.shape[0], data.shape[0] + 40))
    retrains = [METHODS.build({"name": "retrain"}).unlearn(model, deletion, seed).model for seed in (1, 2)]
    return Case(model, model, retrains, deletion, split, planted)


def test_forgetting_the_profiles_undoes_their_promotion():
    case = attacked()
    before = BACKDOOR.measure(case)
    assert before["promoted_repair"] == 0
    after = METHODS.build({"name": "native"}).unlearn(case.target, case.deletion, 0).model
    found = BACKDOOR.measure(replace(case, target=after))
    assert found["promoted_exposure"] < before["promoted_exposure"] - 0.05
    assert found["promoted_repair"] == pytest.approx(1)


def test_exposure_is_the_share_of_users_who_could_be_shown_it():
    # User 3 was planted; user 2 has the promoted item 4 already; of 0 and 1 only user 0 is shown it.
    train = [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 1], [1, 1, 0, 0, 1]]
    scores = [[0, 0, 1, 0, 9], [0, 0, 9, 0, 1], [0, 0, 9, 0, 1], [0, 0, 0, 0, 9]]
    model = given(scores, train)
    tags = {"promoted": np.arange(5) == 4}
    case = tiny_case(model, split_of(train, np.zeros((4, 5))), Deletion(users=np.array([3])), tags=tags)
    found = METRICS.build({"name": "backdoor", "k": 1}).measure(case)
    assert found == {"promoted_exposure": 0.5, "promoted_repair": None}


def test_requests_without_a_promoted_item_have_no_number():
    case = trained_case("item-knn", "cells", retrains=0)
    assert set(BACKDOOR.measure(case).values()) == {None}
    tags = {"promoted": np.zeros(case.split.train.shape[1], dtype=bool)}
    assert set(BACKDOOR.measure(replace(case, data=replace(case.data, tags=tags))).values()) == {None}
