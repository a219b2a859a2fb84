r"""Anchors: what holds a model near the one that training starts from, as the setting ``anchor`` names them.

With theta* the starting weights, a penalty is added once a step, whatever the number of accumulated parts or processes:

- fisher (EWC, Selective Amnesia): weight * sum_i F_i (theta_i - theta*_i)^2, F the mean squared gradient of the loss at
  retain items, or at replays of the starting model where the objective has these;
- identity (L2-SP): weight * sum_i (theta_i - theta*_i)^2;
- checkpoints (VDU): weight * sum_i (theta_i - mu_i)^2 / (2 s_i^2), mu and s the mean and the standard deviation of the
  weights of several models, s at least ``floor``.

Where losses are sums over an item's D dimensions, as in Selective Amnesia's code, they are D times those here, and F,
of gradients that are also summed over T times, is (T D)^2 times that here. Divided by D, the loss has the penalty's
weight lambda (T D)^2 / D = lambda T^2 D: Selective Amnesia's lambda of 10 with 1,000 times is 1e7 D beside its two
losses of weight 1, and half of that where alpha .5 halves both.

The fourth, base, holds the function and not the weights: the retain term's target is weight * eps_b + (1 - weight) *
eps, with eps_b the starting model's prediction. Its gradient is that of both losses so mixed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from msgm.checks import at_least, positive
from msgm.diffusion.model import ScoreModel
from msgm.errors import UserError
from msgm.objectives.setup import Setup
from msgm.ranges import Range, ranges
from msgm.runs import find_model

USED = {"fisher": ("items", "levels"), "checkpoints": ("models", "floor")}
"""Settings beside the weight, by the kind that they have an effect on."""

WEIGHTS = {"fisher": 1000.0, "identity": 0.01, "checkpoints": 1e-6, "base": 1.0}
"""Weights that are taken where none is given."""


@dataclass
class Anchor:
    """Holds a model near the one that training starts from.

    Example:
        >>> objective = msgm.EraseDiff(anchor=msgm.objectives.Anchor(by="identity", weight=0.1))
        >>> request = msgm.ForgetRequest(labels=[3, 7])
        >>> made = msgm.fit(base, "digits", objective, request, steps=2, batch_size=8)
        fit: erasediff, 2 steps on ...

    Attributes:
        by: ``fisher`` (EWC, arXiv 1612.00796), ``identity`` (L2-SP, arXiv 1802.01483), ``checkpoints`` (VDU, arXiv
            2510.04058) or ``base`` (distillation); see the module.
        weight: of the penalty, or the base's share of the retain target; None takes 1000, .01, 1e-6 and 1. The
            module says what the weight of a loss that is a sum over dimensions, and not a mean, comes to here.
        items: items that F is taken from, all when there are no more.
        levels: times of each item; its gradients are averaged over them and then squared, as Selective Amnesia does.
        models: of ``checkpoints``: folders of models of the same network, two at least.
        floor: of ``checkpoints``: least standard deviation. Dead weights have none, and would be held for ever.
    """

    by: Literal["fisher", "identity", "checkpoints", "base"] = "fisher"
    weight: float | None = None
    items: int = 256
    levels: int = 10
    models: list[str] = field(default_factory=list)
    floor: float = 1e-3

    search: ClassVar[Mapping[str, Range]] = ranges(weight=Range(1e-3, 1e5, log=True))

    def __post_init__(self) -> None:
        at_least(1, self, "objective.anchor", "items", "levels")
        positive(self, "objective.anchor", "floor")
        if not 0 <= self.factor < float("inf"):
            raise UserError(f"objective.anchor.weight must be a number of at least 0, got {self.weight}.")
        if self.by == "base" and self.factor > 1:
            raise UserError(f"objective.anchor.weight of base is a share, in [0, 1], got {self.weight}.")
        if (len(self.models) < 2) == (self.by == "checkpoints"):
            raise UserError(
                f"objective.anchor.models: checkpoints needs two model folders at least, and others none; {self.by} "
                f"has {len(self.models)}."
            )

    @property
    def factor(self) -> float:
        """The weight, where None is given that of the kind."""
        return WEIGHTS[self.by] if self.weight is None else self.weight

    @property
    def reads_retain(self) -> bool:
        """Whether it is prepared from retain items, or from replays in their place."""
        return self.by == "fisher"

    @property
    def unsearched(self) -> tuple[str, ...]:
        """Settings that are not searched: the share of ``base``."""
        return ("weight",) if self.by == "base" else ()

    def effective(self) -> dict[str, Any]:
        """Return the settings that have an effect, by name."""
        used = {name: getattr(self, name) for name in USED.get(self.by, ())}
        return {"by": self.by, "weight": self.factor} | used

    def prepared(self, setup: Setup) -> "Held":
        """Return the anchor of one run."""
        if self.by == "base":
            return Held(share=self.factor, base=setup.base())
        weights = {name: p.detach() for name, p in setup.base().network.named_parameters()}
        if self.by == "identity":
            return Held(weights, {name: torch.full_like(p, self.factor) for name, p in weights.items()})
        if self.by == "fisher":
            square = setup.moments("retain", self.items, self.levels).square
            stiffness = {name: self.factor * square[name].to(p.device) for name, p in weights.items() if name in square}
            return Held({name: weights[name] for name in stiffness}, stiffness)
        return self._spread([ScoreModel.load(folder) for folder in map(find_model, self.models)], weights)

    def _spread(self, models: Sequence[ScoreModel], like: Mapping[str, Tensor]) -> "Held":
        states = [dict(model.network.named_parameters()) for model in models]
        for folder, state in zip(self.models, states, strict=True):
            if {k: p.shape for k, p in state.items()} != {k: p.shape for k, p in like.items()}:
                raise UserError(
                    f"objective.anchor.models: {folder} holds another network than the one that is trained."
                )
        stacked = {name: torch.stack([state[name].detach() for state in states]).to(p) for name, p in like.items()}
        stiffness = {k: self.factor / (2 * s.std(0).clamp_min(self.floor) ** 2) for k, s in stacked.items()}
        return Held({name: s.mean(0) for name, s in stacked.items()}, stiffness)


@dataclass(frozen=True)
class Held:
    """An anchor of one run.

    Example:
        >>> held = msgm.objectives.Held({"w": torch.zeros(2)}, {"w": torch.tensor([1.0, 10.0])})
        >>> held.penalty({"w": torch.ones(2)})
        {'anchor': tensor(11.)}

    Attributes:
        centre: the weights to stay near, by name.
        stiffness: what their squared distances are multiplied by, likewise.
        share: share of the base's prediction in the retain target.
        base: the base, where the share is above 0.
    """

    centre: Mapping[str, Tensor] = field(default_factory=dict)
    stiffness: Mapping[str, Tensor] = field(default_factory=dict)
    share: float = 0.0
    base: ScoreModel | None = None

    def penalty(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the penalty of weights, by name; those that have no centre are free."""
        held = [
            (self.stiffness[name] * (weight - self.centre[name]).square()).sum()
            for name, weight in weights.items()
            if name in self.centre
        ]
        return {"anchor": torch.stack(held).sum()} if held else {}
