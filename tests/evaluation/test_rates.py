import pytest
from scipy.stats import binomtest

from msgm.evaluation import wilson
from msgm.evaluation.rates import rate


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 10), (10, 10), (1, 3), (37, 200), (2000, 2000), (3, 2000)])
def test_the_interval_is_scipys(hits, n):
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_narrower_level_gives_a_narrower_interval():
    low, high = wilson(20, 100)
    inner_low, inner_high = wilson(20, 100, z=1.0)
    assert low < inner_low < 0.2 < inner_high < high


def test_no_observation_gives_no_interval():
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)


def test_a_rate_carries_its_interval_and_n():
    assert rate(1, 4) == pytest.approx({"value": 0.25, "low": 0.04558726, "high": 0.69935835, "n": 4}, abs=1e-6)
