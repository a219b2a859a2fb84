"""How much every weight matters to a part of the data: the mean over items of the squared gradient of their loss."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from msgm.diffusion.conditions import Condition
from msgm.diffusion.model import ScoreModel
from msgm.objectives.edits.base import EditSetup
from msgm.objectives.gradient_moments import moments


def importances(
    model: ScoreModel, setup: EditSetup, part: Literal["retain", "forget"], items: int, levels: int
) -> Mapping[str, Tensor]:
    """Return the importances of the weights to ``items`` items of a part, by name; see ``msgm.objectives.moments``."""
    drawn = setup.items(part, items)
    condition = None if drawn.labels is None else Condition(drawn.labels)
    return moments(model, drawn.items, levels, seed=setup.seed, condition=condition).square
