"""Batteries that check a part of one's own: an objective, an edit, guidance, a sampler, a classifier method, a
recommender, a domain.

msgm's tests run the same batteries over every part that it registers. A part that breaks a rule is refused with a
``Refused``, an ``AssertionError`` whose one sentence says what is wrong, so that a test of a plugin is one line:

    def test_my_objective():
        msgm.testing.check_objective(MyObjective)
"""

from msgm.testing.domains import check_domain
from msgm.testing.edits import check_edit
from msgm.testing.guidance import check_guidance
from msgm.testing.methods import check_method
from msgm.testing.objectives import check_objective
from msgm.testing.recommenders import check_recommender
from msgm.testing.rules import Refused
from msgm.testing.samplers import check_sampler

__all__ = [
    "Refused",
    "check_domain",
    "check_edit",
    "check_guidance",
    "check_method",
    "check_objective",
    "check_recommender",
    "check_sampler",
]
