r"""Pruning and re-initialising the weights that matter most to the forget set beside the retain set.

Weights are ranked, over all layers, by r = (F(forget) + tiny) / (F(retain) + tiny), with F the mean squared gradient by
item; the highest share of them is set to 0 (``prune``) or drawn anew as an untrained network's are (``reinit``). The
same share chosen at random is the baseline that the ranking has to beat: ``choose: random``.
"""

import copy
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from msgm.checks import at_least
from msgm.curvature import Weights, flatten, learnt, unflatten, weights_of
from msgm.diffusion.model import ScoreModel
from msgm.errors import UserError
from msgm.objectives.base import Card
from msgm.objectives.edits.base import EDITS, Edit, EditSetup
from msgm.objectives.edits.importance import importances
from msgm.objectives.gradient_moments import fisher_ratio
from msgm.ranges import Range, ranges


@dataclass
class Replacing(Edit):
    """Gives a share of the weights other values; a subclass says which values.

    Attributes:
        share: of all weights that are replaced.
        choose: ``ratio`` takes those that matter most to the forget set beside the retain set, ``random`` any.
        items: items of each part that importances are read from.
        levels: times at which an item's loss is taken.
    """

    share: float = 0.01
    choose: Literal["ratio", "random"] = "ratio"
    items: int = 256
    levels: int = 10

    data = "retain+forget"
    search = ranges(share=Range(1e-4, 0.2, log=True))

    def __post_init__(self) -> None:
        at_least(1, self, "edit", "items", "levels")
        if not 0 < self.share <= 1:
            raise UserError(f"edit.share must lie in (0, 1], got {self.share}.")

    @abstractmethod
    def values(self, model: ScoreModel, setup: EditSetup) -> Weights:
        """Return the values that replaced weights get; a weight without any stays as it is."""

    def change(self, model: ScoreModel, setup: EditSetup) -> None:
        weights, values = learnt(model.network), self.values(model, setup)
        ranks = self._ranks(model, setup)
        free = {name: value for name, value in weights.items() if name in values}
        chosen = unflatten(highest(flatten({name: ranks[name] for name in free}), self.share), free)
        for name, value in free.items():
            value.copy_(torch.where(chosen[name], values[name].to(value), value))

    def _ranks(self, model: ScoreModel, setup: EditSetup) -> Weights:
        if self.choose == "random":
            draws, weights = setup.generator("ranks"), learnt(model.network)
            return {name: torch.rand(value.shape, generator=draws).to(value.device) for name, value in weights.items()}
        forget, retain = (importances(model, setup, part, self.items, self.levels) for part in ("forget", "retain"))
        return fisher_ratio(forget, retain)


@EDITS.register("prune")
@dataclass
class Prune(Replacing):
    """Pruning by the ratio of importances.

    Example:
        >>> edit = msgm.objectives.edits.Prune(share=0.02, items=8)
        >>> made = msgm.edit(base, "digits", edit, msgm.ForgetRequest(labels=[3, 7]), batch_size=8)
        edit: prune on ...
    """

    card = Card(
        formula="theta_i = 0 for the share of highest (F_f + 1e-15) / (F_r + 1e-15), F the mean squared gradient",
        source=(
            "the ratio: SFR-on, arXiv 2409.19732, and its released mask; pruning diffusion models to forget: "
            "ConceptPrune, arXiv 2405.19237"
        ),
        deviations=(
            "a share of all weights, where ConceptPrune ranks |W| |x| in the second layers of feed-forward blocks; "
            "gradients are squared item by item"
        ),
    )

    def values(self, model: ScoreModel, setup: EditSetup) -> Weights:
        return {name: torch.zeros_like(value) for name, value in weights_of(model.network).items()}


@EDITS.register("reinit")
@dataclass
class Reinit(Replacing):
    """Re-initialisation by the ratio of importances.

    Example:
        >>> edit = msgm.objectives.edits.Reinit(share=0.02, items=8)
        >>> made = msgm.edit(base, "digits", edit, msgm.ForgetRequest(labels=[3, 7]), batch_size=8)
        edit: reinit on ...
    """

    card = Card(
        formula="theta_i redrawn for the share of highest (F_f + 1e-15) / (F_r + 1e-15), F the mean squared gradient",
        source="after Scissorhands, arXiv 2401.06187, whose fine-tuning follows; the ratio: SFR-on, arXiv 2409.19732",
        deviations=(
            "each layer's own initialisation, where Scissorhands draws a truncated normal of width .02; its ranking "
            "|gradient * weight| on the forget set alone is left out; its fine-tuning takes place where the row has an "
            "objective beside the edit"
        ),
    )

    def values(self, model: ScoreModel, setup: EditSetup) -> Weights:
        return fresh_values(model.network, setup.generator("values"))


def highest(values: Tensor, share: float) -> Tensor:
    """Return a mask of the share of ``values`` (d,) that is highest, of one at least."""
    chosen = values.topk(max(1, round(share * len(values)))).indices
    return torch.zeros_like(values, dtype=torch.bool).index_fill(0, chosen, True)


def fresh_values(network: nn.Module, draws: torch.Generator) -> Weights:
    """Return weights as an untrained network's layers draw them; those of layers that cannot are missing."""
    copied = copy.deepcopy(network).cpu()
    found: Weights = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=draws)))
        for place, layer in copied.named_modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
                own = layer.named_parameters(recurse=False)
                found |= {f"{place}.{name}" if place else name: value.detach() for name, value in own}
    return found
