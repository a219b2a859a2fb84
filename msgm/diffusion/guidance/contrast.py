r"""Guidance away from a second score, that of the forget set: with a constant weight, or with the posterior's.

With p_b the model's density, p_f the forget set's and w = P(forget | x_t), the score of what is to remain is

    s_r = s_b - w / (1 - w) (s_f - s_b),

so that the weight depends on x_t. A constant weight k in its place samples p_b^(1 + k) / p_f^k, another distribution,
which runs away from the forget set where k is large.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.devices import precise
from msgm.diffusion.conditions import Condition
from msgm.diffusion.guidance.base import GUIDANCE, Guidance, Preparation, frozen
from msgm.diffusion.model import ScoreModel, per_item
from msgm.errors import UserError
from msgm.ranges import Range, ranges

COPY = "forget/"
"""Before the names of a tuned copy's weights."""


@dataclass
class Contrast(Guidance):
    """Base of guidance away from the score of the forget set.

    Attributes:
        scale: factor of the difference of the scores; at 0 nothing changes, to the bit.
        label: of a conditional model, the class whose score is that of the forget set.
        steps: else how many steps a copy of the model is tuned on the forget set for it.
    """

    scale: float = 0.25
    label: int | None = None
    steps: int = 200

    search: ClassVar[Mapping[str, Range]] = ranges(scale=Range(0.05, 1.0))

    def __post_init__(self) -> None:
        at_least(0, self, "guidance", "scale")
        at_least(1, self, "guidance", "steps")
        self.forget: ScoreModel | None = None

    @property
    def tunes(self) -> bool:
        return self.label is None

    def check(self, classes: int) -> None:
        if self.label is not None and not 0 <= self.label < classes:
            known = f"one of 0 to {classes - 1}" if classes else "none, as the network is unconditional"
            raise UserError(f"guidance.label must name a class of the network, {known}; got {self.label}.")

    def prepare(self, setup: Preparation) -> None:
        """Tune the copy, where no label says what to forget."""
        if self.label is None:
            self.forget = frozen(setup.tune_on_forget(self.steps))

    def state(self) -> dict[str, Tensor]:
        weights = {} if self.forget is None else self.forget.network.state_dict()
        return {f"{COPY}{name}": tensor for name, tensor in weights.items()}

    def recall(self, state: Mapping[str, Tensor], model: ScoreModel) -> None:
        if self.label is None:
            self.forget = frozen(model)
            weights = {name.removeprefix(COPY): tensor for name, tensor in state.items() if name.startswith(COPY)}
            self.forget.network.load_state_dict(weights)

    def to(self, device: torch.device | str) -> None:
        if self.forget is not None:
            self.forget.to(device)

    def forget_eps(self, model: ScoreModel, x: Tensor, t: Tensor) -> Tensor:
        """Return eps of the forget set."""
        if self.label is not None:
            return model.eps(x, t, model.asked(self.label, len(x)))
        if self.forget is None:
            raise RuntimeError(f"{self.name}: call prepare first, or name a label")
        return self.forget.eps(x, t)


@GUIDANCE.register("negative")
@dataclass
class Negative(Contrast):
    """Negative guidance: away from the score of the forget set, with a constant weight.

    Example:
        >>> model = msgm.ScoreModel.new("unet", "vp", channels=[8], classes=10)
        >>> Negative(scale=0.25, label=3).wrap(model).sample(2, steps=3).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        scale: k of eps_b - k (eps_f - eps_b).
        label: of a conditional model, the class whose score is eps_f.
        steps: else how many steps a copy of the model is tuned on the forget set for eps_f.
    """

    formula = "eps_b - k (eps_f - eps_b)"
    source = "negative prompts; Gandikota et al., arXiv 2303.07345, eq. 6, at sampling time"
    deviations = (
        "its distribution is p_b^(1 + k) / p_f^k and not that of what is to remain; for k of 1 and more it runs away "
        "to where neither has mass, so that the default is .25"
    )

    def eps(self, model: ScoreModel, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        found = model.eps(x, t, condition)
        if self.scale == 0:
            return found
        return found - self.scale * (self.forget_eps(model, x, t) - found)


class Seen(NamedTuple):
    """Where a walk was at its last evaluation: rho, y, and both eps there."""

    ratio: float
    y: Tensor
    base: Tensor
    forget: Tensor


@GUIDANCE.register("dng")
@dataclass
class DNG(Contrast):
    """Dynamic negative guidance: the weight is the posterior of the forget set, estimated along each sample's own path.

    From one level to the next the path is likelier under one of the scores, which moves the posterior w; ``ancestral``
    walks the very steps whose likelihoods are compared, so sample with it.

    Example:
        >>> model = msgm.ScoreModel.new("unet", "vp", channels=[8], classes=10)
        >>> DNG(label=3, prior=0.1).wrap(model).sample(2, "ancestral", steps=3).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        scale: g of eps_b - g w / (1 - w) (eps_f - eps_b); 1 is exact.
        label: of a conditional model, the class whose score is eps_f.
        steps: else how many steps a copy of the model is tuned on the forget set for eps_f.
        prior: w at the start of every path: the share of the forget set; None takes that of the data, or .2.
        temperature: T, factor of the difference of the squared distances |y' - mu|^2 to both means.
        offset: added to that difference before it is divided by 2 var.
        most: largest w.
    """

    scale: float = 1.0
    prior: float | None = None
    temperature: float = 1.0
    offset: float = 0.0
    most: float = 0.99

    no_density = "its weight depends on the walk so far, so that no one flow gives its samples"
    by_levels = True
    formula = (
        "eps_b - g w / (1 - w) (eps_f - eps_b); w <- clip(w exp((T (|y' - mu_b|^2 - |y' - mu_f|^2) + offset) / "
        "2 var)), mu and var those of an ancestral step from the last level to y'"
    )
    source = "Koulischer et al., arXiv 2410.14398, and its code"
    deviations = (
        "means and variance are those of the same ancestral step on any grid (the release divides by the posterior's "
        "variance while its sampler adds noise of variance beta); w is kept above 1e-6, as there"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior is not None and not 0 <= self.prior < 1:
            raise UserError(f"guidance.prior must lie in [0, 1), got {self.prior}.")
        at_least(0, self, "guidance", "temperature")
        if not math.isfinite(self.offset):
            raise UserError(f"guidance.offset must be finite, got {self.offset}.")
        if not 0 < self.most < 1:
            raise UserError(f"guidance.most must lie strictly between 0 and 1, got {self.most}.")
        self.share = 0.2
        self.seen: Seen | None = None
        self.odds: Tensor | None = None

    def prepare(self, setup: Preparation) -> None:
        """Tune the copy, and read the share of the forget set."""
        super().prepare(setup)
        self.share = setup.forget_share or self.share

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "share": torch.tensor(self.share, dtype=torch.float64)}

    def recall(self, state: Mapping[str, Tensor], model: ScoreModel) -> None:
        super().recall(state, model)
        self.share = float(state["share"])

    def walk(self) -> "DNG":
        fresh = copy.copy(self)
        fresh.seen = fresh.odds = None
        return fresh

    def eps(self, model: ScoreModel, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        found = model.eps(x, t, condition)
        prior = self.share if self.prior is None else self.prior
        if self.scale == 0 or prior == 0:
            return found
        forget = self.forget_eps(model, x, t)
        time = precise(t)
        ratio = model.process.ratio(time)
        if bool((ratio != ratio[0]).any()):
            raise UserError(f"{self.name}: a path is followed level by level; take a sampler with a grid, ancestral.")
        y = precise(x) / per_item(model.process.signal(time), x)
        weight = self._posterior(float(ratio[0]), y, prior)
        self.seen = Seen(float(ratio[0]), y, precise(found), precise(forget))
        factor = self.scale * weight / (1 - weight)
        return found - per_item(factor, x).to(found) * (forget - found)

    def _posterior(self, ratio: float, y: Tensor, prior: float) -> Tensor:
        """Return w at ``y``, (B,) float64, from where the walk was before."""
        now = self.odds
        if now is None or len(now) != len(y):
            now, self.seen = torch.full((len(y),), prior, dtype=y.dtype, device=y.device), None
        if self.seen is not None and ratio < self.seen.ratio:
            drop = self.seen.ratio**2 - ratio**2
            variance = ratio**2 * drop / self.seen.ratio**2
            base, forget = (
                (y - self.seen.y + drop / self.seen.ratio * eps).flatten(1).square().sum(1)
                for eps in (self.seen.base, self.seen.forget)
            )
            moved = (self.temperature * (base - forget) + self.offset) / (2 * variance)
            now = (now.log() + moved).clamp_max(0).exp()
        self.odds = now.clamp(1e-6, self.most)
        return self.odds
