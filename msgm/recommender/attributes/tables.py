"""Reading a factor model's user and item embeddings, and replacing the user table."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError

if TYPE_CHECKING:
    # Models import this package: it must not import them.
    from msgm.recommender.models.base import Recommender


def factors(model: "Recommender") -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the (U, d) user and (I, d) item embeddings that the model scores by.

    Raises:
        UserError: the model has none.
    """
    if not hasattr(model, "user_factors") or not hasattr(model, "item_factors"):
        raise UserError(f"{model.name} has no user embeddings; expected a factor model such as als.")
    return model.user_factors, model.item_factors


def exchange_users(model: "Recommender", table: NDArray[Any]) -> None:
    """Replace the (U, d) user table of ``model``; arrays shared with copies of the model are not modified."""
    of: Any = model
    if not isinstance(getattr(type(model), "user_factors", None), property):
        of.user_factors = table
        return
    # user_factors is then a view of what is trained.
    import torch

    of.tables = of.tables | {"users": torch.from_numpy(np.array(table))}
