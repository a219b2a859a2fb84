"""Which objective belongs to which model."""

from collections.abc import Callable
from typing import Any

from msgm.errors import UserError
from msgm.recommender.gradients.objectives import ALSObjective, MFObjective, Objective
from msgm.recommender.gradients.pairwise import BPRObjective, LightGCNObjective
from msgm.recommender.models.base import Recommender

KINDS: dict[str, Callable[[Any, int], Objective]] = {
    "als": ALSObjective,
    "mf": MFObjective,
    "bpr": BPRObjective,
    "lightgcn": LightGCNObjective,
}


def objective_of(model: Recommender, seed: int) -> Objective:
    """Return the objective of a fitted model; ``seed`` seeds its random parts.

    Raises:
        UserError: it has no tables of users and items to take gradients of.
    """
    if model.name not in KINDS:
        raise UserError(f"{model.name} has no tables of users and items to take gradients of; {', '.join(KINDS)} have.")
    return KINDS[model.name](model, seed)
