import os

import numpy as np
import pytest

from msgm.recommender.attributes import ERASURES
from msgm.recommender.attributes.apply import erase_attributes
from msgm.recommender.attributes.labels import chosen, encode
from msgm.recommender.data import load_interactions
from msgm.recommender.metrics.attribute_attackers import attack, features
from msgm.recommender.models import MODELS

pytestmark = pytest.mark.skipif("MSGM_DATA" not in os.environ, reason="MSGM_DATA names no folder with ml-100k")


@pytest.fixture(scope="module")
def model_and_gender():
    data = load_interactions("ml-100k")
    return MODELS.build({"name": "als"}).fit(data.matrix), chosen(data.attributes, ["gender"])


@pytest.mark.parametrize("name", ["leace", "rate-distortion"])
def test_gender_is_hidden_from_linear_attackers_and_most_recommendations_stay(model_and_gender, name):
    model, attributes = model_and_gender
    (labels,) = encode(attributes)
    users = np.arange(len(labels.codes))
    erased = erase_attributes(model, attributes, ERASURES.build({"name": name})).model
    before, after = (attack(features(of, users, "embeddings"), labels, "logistic") for of in (model, erased))
    assert before.accuracy > 0.64
    assert after.accuracy < 0.55
    lists = [of.listed(users, 10) for of in (model, erased)]
    same = np.mean([len(set(one) & set(other)) for one, other in zip(*lists, strict=True)]) / 10
    assert 0.6 < same < 1
