"""Erasing attributes from a fitted recommender: a copy with a new user table, or a removable plug-in."""

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError
from msgm.recommender.attributes.base import Context, Erasure, PluginErasure
from msgm.recommender.attributes.tables import exchange_users, factors

if TYPE_CHECKING:
    from msgm.recommender.models.base import Recommender


@dataclass(frozen=True)
class Erased:
    """Result of erasing attributes from a model.

    Attributes:
        model: a new model; the given one is unchanged.
        seconds: of the erasure.
        dropped: number of users left out, by attribute, because their value is unknown or they were forgotten.
    """

    model: "Recommender"
    seconds: float
    dropped: dict[str, int]


def erase_attributes(
    model: "Recommender", attributes: Mapping[str, NDArray[np.str_]], erasure: Erasure, seed: int = 0
) -> Erased:
    """Return a copy of ``model`` whose user embeddings are erased; item embeddings and biases are the same.

    The copy is meant for serving. Forgetting with it may recompute user embeddings and so bring the attribute back:
    forget first, or use ``plug``.

    Args:
        model: a fitted factor model: ALS, MF, BPR, LightGCN.
        attributes: name to (U,) text; empty where the value is not known.
        erasure: one of ``ERASURES``.
        seed: of every draw.

    Raises:
        UserError: the model has no user embeddings, or what ``Erasure.erase`` refuses.
    """
    users, context = _context(model, attributes, seed)
    start = time.perf_counter()
    table = erasure.erase(users, attributes, context)
    seconds = time.perf_counter() - start
    changed = copy.deepcopy(model)
    exchange_users(changed, table)
    return Erased(changed, seconds, _dropped(attributes, context))


def plug(model: "Recommender", attributes: Mapping[str, NDArray[np.str_]], erasure: Erasure, seed: int = 0) -> Erased:
    """Return a ``Plugged`` model: a copy of ``model`` with a plug-in on its user table, reversible by ``unplug``.

    Arguments and errors as ``erase_attributes``; the erasure must learn a map.
    """
    from msgm.recommender.models.plugged import Plugged

    if not isinstance(erasure, PluginErasure):
        raise UserError(f"{erasure.name} moves the users it has seen and is no plug-in; use leace or rate-distortion.")
    users, context = _context(model, attributes, seed)
    start = time.perf_counter()
    plugin = erasure.plugin(users, attributes, context)
    seconds = time.perf_counter() - start
    return Erased(Plugged.around(copy.deepcopy(model), plugin), seconds, _dropped(attributes, context))


def _context(
    model: "Recommender", attributes: Mapping[str, NDArray[np.str_]], seed: int
) -> tuple[NDArray[Any], Context]:
    users, items = factors(model)
    for name, values in attributes.items():
        if len(values) != len(users):
            raise UserError(f"attribute {name!r} has {len(values)} users; the model {len(users)}.")
    return users, Context(items, seed, model.gone_users)


def _dropped(attributes: Mapping[str, NDArray[np.str_]], context: Context) -> dict[str, int]:
    return {name: int(((values == "") | context.gone).sum()) for name, values in attributes.items()}
