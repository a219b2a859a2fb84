r"""Selective synaptic dampening: shrink the weights that matter more to the forget set than to all training data.

With importances F(S) = mean over items of (d L_i / d theta)^2, L_i the denoising loss of an item, weights where
F(forget) > alpha F(all) are multiplied by min(lambda F(all) / F(forget), 1). All data contain the forget set, so
that F(all) >= its share * F(forget): an alpha of more than 1 / share selects nothing, whatever the model.
"""

from dataclasses import dataclass

from msgm.checks import at_least, positive
from msgm.curvature import dampen
from msgm.diffusion.model import ScoreModel
from msgm.objectives.base import Card
from msgm.objectives.edits.base import EDITS, Edit, EditSetup
from msgm.objectives.edits.importance import importances
from msgm.ranges import Range, ranges


@EDITS.register("dampen")
@dataclass
class Dampen(Edit):
    """Selective synaptic dampening (SSD).

    Example:
        >>> edit = msgm.objectives.edits.Dampen(alpha=1.5, items=8)
        >>> made = msgm.edit(base, "digits", edit, msgm.ForgetRequest(labels=[3, 7]), batch_size=8)
        edit: dampen on ...

    Attributes:
        alpha: how many times as important to the forget set a weight must be to be selected.
        dampening: lambda, the strength of shrinking; smaller shrinks more.
        items: items of each part that importances are read from.
        levels: times at which an item's loss is taken.
    """

    alpha: float = 2.0
    dampening: float = 1.0
    items: int = 256
    levels: int = 10

    data = "retain+forget"
    search = ranges(alpha=Range(1.0, 10.0, log=True), dampening=Range(0.05, 5.0, log=True))
    card = Card(
        formula="theta *= min(lambda F_all / F_f, 1) where F_f > alpha F_all; F = mean squared gradient by item",
        source="Foster et al., AAAI 2024: classifiers, alpha 10, lambda 1",
        deviations=(
            "the denoising loss, as a mean over dimensions and times, takes the place of the cross-entropy; gradients "
            "are squared item by item, where published code squares those of batch means; an alpha above 1 / share of "
            "the forget set selects no weight, so the default is 2"
        ),
    )

    def __post_init__(self) -> None:
        positive(self, "edit", "alpha", "dampening")
        at_least(1, self, "edit", "items", "levels")

    def change(self, model: ScoreModel, setup: EditSetup) -> None:
        forget = importances(model, setup, "forget", self.items, self.levels)
        retain, share = importances(model, setup, "retain", self.items, self.levels), setup.forget_share
        everything = {name: share * value + (1 - share) * retain[name] for name, value in forget.items()}
        self.facts["selected_share"] = dampen(model.network, forget, everything, self.alpha, self.dampening)
