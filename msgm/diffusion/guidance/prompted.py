r"""Guidance of models that are asked for something: a negative prompt, and safe latent diffusion.

With eps(c) the prediction for what is asked for, eps(0) the null condition's and eps(S) that of the concept, samples of
scale s follow

    negative prompt:  eps(S) + s (eps(c) - eps(S)),
    safe latent:      eps(0) + s (eps(c) - eps(0) - gamma),

with gamma as below. Both are views that change one of the two predictions alone, eps(S) standing in the place of eps(0)
and eps(c) - gamma in that of eps(c). Classifier-free guidance of scale s, the setting ``sampling.guidance``, is laid
over the view, and so is applied once.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from msgm.diffusion.conditions import Condition
from msgm.diffusion.guidance.base import GUIDANCE, Guidance, Preparation
from msgm.diffusion.model import ScoreModel, per_item
from msgm.errors import UserError

Strength = Literal["weak", "medium", "strong", "max"]
STRENGTHS: dict[Strength, tuple[float, int, float, float, float]] = {
    "weak": (200.0, 15, 0.0, 0.0, 0.0),
    "medium": (1000.0, 10, 0.01, 0.3, 0.4),
    "strong": (2000.0, 7, 0.025, 0.5, 0.7),
    "max": (5000.0, 0, 1.0, 0.5, 0.7),
}
"""Scale, steps of warm-up, threshold, scale of the momentum and its decay, of the released strengths."""


@dataclass
class OfConcept(Guidance):
    """Base of guidance away from a concept.

    Attributes:
        concept: number of a class, or a prompt of a model that reads prompts; None takes the one that the request
            forgets.
    """

    concept: int | str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.concept, str) and not self.concept.strip():
            raise UserError("guidance.concept must name a class or a prompt, got an empty text.")
        self.found: int | None = None

    def check(self, classes: int) -> None:
        number = isinstance(self.concept, int) and not 0 <= self.concept < classes
        if number or (self.concept is None and not classes):
            known = f"one of 0 to {classes - 1}" if classes else "none, as the network is unconditional"
            raise UserError(f"guidance.concept must name a class of the network, {known}; got {self.concept}.")

    def prepare(self, setup: Preparation) -> None:
        """Take the class that the request forgets, where none is named.

        Raises:
            UserError: it forgets several, or none.
        """
        if self.concept is None:
            if len(setup.forgotten) != 1:
                raise UserError(
                    f"guidance.concept: the request forgets {len(setup.forgotten)} classes or prompts, and "
                    f"{self.name} leads away from one; name it, as a prompt that joins them for one."
                )
            self.found = setup.forgotten[0]

    def state(self) -> dict[str, Tensor]:
        return {} if self.found is None else {"concept": torch.tensor(self.found)}

    def recall(self, state: Mapping[str, Tensor], model: ScoreModel) -> None:
        if self.concept is None:
            self.found = int(state["concept"])

    def concept_eps(self, model: ScoreModel, x: Tensor, t: Tensor) -> Tensor:
        """Return eps of the concept."""
        concept = self.found if self.concept is None else self.concept
        if concept is None:
            raise RuntimeError(f"{self.name}: call prepare first, or name a concept")
        return model.eps(x, t, model.asked(concept, len(x)))


@GUIDANCE.register("negative-prompt")
@dataclass
class NegativePrompt(OfConcept):
    """Negative prompt: classifier-free guidance starts from the concept in place of the null condition.

    Without classifier-free guidance it changes nothing of what is asked for. What is asked for nothing shows the
    concept.

    Example:
        >>> model = msgm.ScoreModel.new("unet", "vp", channels=[8], classes=10)
        >>> view = NegativePrompt(concept=3).wrap(model)
        >>> view.sample(2, steps=3, condition=7, guidance=3.0).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        concept: number of a class, or a prompt of a model that reads prompts; None takes the one that the request
            forgets.
    """

    formula = "eps(S) + s (eps(c) - eps(S)), s of sampling.guidance and S the concept"
    source = "negative prompts, as diffusers' negative_prompt; Ho and Salimans, arXiv 2207.12598, eq. 6"
    deviations = "none"

    def eps(self, model: ScoreModel, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        null = nothing_asked(condition, x)
        if not bool(null.any()):
            return model.eps(x, t, condition)
        concept = self.concept_eps(model, x, t)
        return concept if bool(null.all()) else torch.where(per_item(null, x), concept, model.eps(x, t, condition))


@GUIDANCE.register("safe-latent")
@dataclass
class SafeLatent(OfConcept):
    """Safe latent diffusion (SLD): away from the concept, where a prediction comes near to it.

    Example:
        >>> model = msgm.ScoreModel.new("unet", "vp", channels=[8], classes=10)
        >>> view = SafeLatent(concept=3, strength="strong").wrap(model)
        >>> view.sample(2, steps=20, condition=7, guidance=3.0).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        concept: number of a class, or a prompt of a model that reads prompts; None takes the one that the request
            forgets.
        strength: one of the four released sets of constants.
    """

    strength: Strength = "medium"

    no_density = "its momentum depends on the walk so far, so that no one flow gives its samples"
    by_levels = True
    formula = (
        "eps(c) - gamma after the warm-up; gamma = mu (eps(S) - eps(0)) + m nu, mu = min(scale |eps(c) - eps(S)|, 1) "
        "where eps(c) - eps(S) < threshold and else 0, nu <- b nu + (1 - b) gamma"
    )
    source = "Schramowski et al., arXiv 2211.05105, eq. 3 to 8, and the four strengths of its code"
    deviations = (
        "none; as in the code mu is found number by number, and a difference far below 0 passes the threshold too; "
        "the warm-up counts levels of the sampler, and the strengths were made for walks of 50"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strength not in STRENGTHS:
            raise UserError(f"guidance.strength must be one of {', '.join(STRENGTHS)}, got {self.strength!r}.")
        self.momentum: Tensor | None = None
        self.level: float | None = None
        self.levels = 0

    def walk(self) -> "SafeLatent":
        fresh = copy.copy(self)
        fresh.momentum, fresh.level, fresh.levels = None, None, 0
        return fresh

    def eps(self, model: ScoreModel, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        null = nothing_asked(condition, x)
        asked = model.eps(x, t, condition)
        if bool(null.all()):
            return asked
        scale, warm_up, threshold, weight, decay = STRENGTHS[self.strength]
        concept, nothing = self.concept_eps(model, x, t), model.eps(x, t)
        away = asked - concept
        mu = torch.where(away < threshold, (scale * away.abs()).clamp_max(1), 0.0)
        if self.momentum is None or self.momentum.shape != x.shape:
            self.momentum = torch.zeros_like(asked)
        gamma = mu * (concept - nothing) + weight * self.momentum
        if self.level is not None and float(t[0]) != self.level:
            self.levels += 1
        self.level = float(t[0])
        self.momentum = decay * self.momentum + (1 - decay) * gamma
        return asked if self.levels < warm_up else torch.where(per_item(null, x), asked, asked - gamma)


def nothing_asked(condition: Condition | None, x: Tensor) -> Tensor:
    """Return which items of ``x`` are asked for nothing, (B,) bool."""
    if condition is None:
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    return condition.null.to(x.device)
