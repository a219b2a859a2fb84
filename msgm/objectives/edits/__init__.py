"""Edits: changes of a model's weights without training steps of its own, one idea a file."""

from msgm.objectives.edits.base import EDITS, Edit, EditSetup
from msgm.objectives.edits.dampen import Dampen
from msgm.objectives.edits.influence import Influence
from msgm.objectives.edits.mace import MACE
from msgm.objectives.edits.prune import Prune, Reinit
from msgm.objectives.edits.rece import RECE
from msgm.objectives.edits.refit_head import RefitHead
from msgm.objectives.edits.task_vector import TaskVector
from msgm.objectives.edits.uce import UCE

__all__ = [
    "EDITS",
    "MACE",
    "RECE",
    "UCE",
    "Dampen",
    "Edit",
    "EditSetup",
    "Influence",
    "Prune",
    "RefitHead",
    "Reinit",
    "TaskVector",
]
