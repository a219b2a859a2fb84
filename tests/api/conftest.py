"""A tiny comparison that the tests of this folder share."""

import pytest

import msgm
from tests.conftest import TINY

FAST = [
    *TINY,
    "evaluation={samples: 8, nll_items: 4, metrics: [ur, nll], likelihood: {steps: 2}, judge: {epochs: 1, width: 8}}",
    "sampling.steps=2",
]


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("api") / "compared"
    return msgm.compare({}, out, only=["do-nothing", "unseen", "obtuse"], overrides=FAST, device="cpu")
