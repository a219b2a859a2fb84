"""Checks of settings' ranges: what passes, and the sentence on what does not."""

import math
from types import SimpleNamespace

import pytest

from msgm.checks import at_least, at_most_one, below_one, positive
from msgm.errors import UserError


@pytest.mark.parametrize(
    ("check", "passes", "refused"),
    [
        (lambda *given: at_least(1, *given), [None, 1, 2.5, [1, None, 3]], [0, 0.5, math.nan, math.inf, [2, math.inf]]),
        (positive, [None, 1e-9, 3], [0, -1, math.nan, math.inf]),
        (below_one, [0, 0.99], [-0.1, 1, math.nan]),
        (at_most_one, [None, 0, 1], [-0.1, 1.1, math.nan]),
    ],
)
def test_a_range_is_kept(check, passes, refused):
    for value in passes:
        check(SimpleNamespace(key=value), "section", "key")
    for value in refused:
        with pytest.raises(UserError, match=r"^section\.key must .*, got .*\.$"):
            check(SimpleNamespace(key=value), "section", "key")
