"""KL, JS and activation distance, against scipy and loops."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from msgm.classifier.metrics import METRICS, Case
from msgm.classifier.metrics.distances import js, kl
from tests.classifier.metrics.worlds import posteriors


def draws(classes=100, count=200, concentration=0.1):
    rng = np.random.default_rng(0)
    return [rng.dirichlet(np.full(classes, concentration), count) + 1e-12 for _ in range(2)]


def test_the_divergences_of_posteriors_over_100_classes_are_those_of_scipy():
    p, q = (value / value.sum(1, keepdims=True) for value in draws())
    found = js(np.log(p), np.log(q))
    np.testing.assert_allclose(found, jensenshannon(p, q, axis=1) ** 2, rtol=1e-6)
    np.testing.assert_allclose(kl(np.log(p), np.log(q)), rel_entr(p, q).sum(1), rtol=1e-6)
    assert found.mean() > 0.4  # divided by the number of classes it would be below .01


def test_js_is_symmetric_and_bounded():
    p, q = (np.log(value) for value in draws())
    np.testing.assert_allclose(js(p, q), js(q, p), rtol=1e-12)
    apart = np.log(np.array([[1.0, 1e-300]])), np.log(np.array([[1e-300, 1.0]]))
    assert js(*apart)[0] == pytest.approx(np.log(2))
    assert js(p, p).max() < 1e-12


def test_distances_are_means_over_items_and_retrained_models():
    target, others = posteriors(0), [posteriors(1), posteriors(2)]
    found = METRICS.build({"name": "distances"}).measure(Case(target, target, others))

    def softmax(outputs, part):
        z = np.exp(outputs.logits[part])
        return z / z.sum(1, keepdims=True)

    def mean(part, distance):
        pairs = [(softmax(one, part), softmax(target, part)) for one in others]
        return np.mean([[distance(r, u) for r, u in zip(*pair, strict=True)] for pair in pairs])

    assert found["kl_forget"] == pytest.approx(mean("forget", lambda r, u: rel_entr(r, u).sum()))
    assert found["kl_test"] == pytest.approx(mean("test", lambda r, u: rel_entr(r, u).sum()))
    assert found["js_test"] == pytest.approx(mean("test", lambda r, u: jensenshannon(r, u) ** 2))
    assert found["activation_distance"] == pytest.approx(mean("forget", lambda r, u: np.linalg.norm(r - u)))


def test_without_retrained_models_there_is_no_distance():
    target = posteriors()
    assert set(METRICS.build({"name": "distances"}).measure(Case(target, target)).values()) == {None}
