"""Whether some noise still leads to forgotten content: gradient ascent on x_T for a classifier's confidence.

Weights that give forgotten content from noise that is rarely drawn have not lost it. The gradient goes through the
whole walk, so the walk is a short deterministic one (DDIM). The classifier is trained on real items, noised, and is not
the judge that says what a sample shows: what fools the classifier alone is no success.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msgm.checks import at_least, positive
from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import Condition, SamplingSettings, ScoreModel
from msgm.diffusion.guidance.posterior import LOWEST, Posterior
from msgm.diffusion.model import per_item
from msgm.diffusion.samplers import Noise, ratio_grid, sigma_space
from msgm.errors import UserError
from msgm.evaluation.asking import classes_of, in_turn
from msgm.evaluation.attacks.base import Attack, cell, ratio, shares
from msgm.evaluation.attacks.posterior import real_posterior
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.splits import Split

SECTION = "evaluation.options.noise-search"


@METRICS.register("noise-search")
@dataclass(frozen=True)
class NoiseSearch(Attack):
    """Noise is turned, step by step, towards noise whose sample a classifier takes for something to forget.

    Example:
        >>> found = NoiseSearch(items=3, ascents=2, steps=2, training=20).measure(subject)["noise_search"]
        >>> found["before"]["unlearning_ratio"]["n"], found["after"]["unlearning_ratio"]["n"]
        (3, 3)

    Attributes:
        items: how many noises are searched from.
        ascents: steps of each search.
        turn: angle in radians by which a step turns the noise, whose length stays: of another length it is no noise.
        steps: of the walk from noise to sample.
        training: steps of the classifier's training, at most.
    """

    key = "noise_search"
    on_weights = True
    columns = [  # noqa: RUF012
        Column(
            "UR % before -> after noise search", "", cell(key, lambda f: f"{ratio(f['before'])} -> {ratio(f['after'])}")
        )
    ]

    items: int = 50
    ascents: int = 15
    turn: float = 0.1
    steps: int = 10
    training: int = 1000

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "items", "ascents", "steps", "training")
        positive(self, SECTION, "turn")

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        if not len(split.train.forget) or not len(split.train.retain):
            raise UserError(f"{SECTION}: its classifier needs training items to forget and to retain.")

    def attack(self, subject: Subject) -> dict[str, Any]:
        bench, model = subject.bench, subject.model
        posterior = real_posterior(bench, self.training, model.device)
        asked = in_turn(model, classes_of(bench.dataset, bench.split.train.forget), self.items)
        pairs = []
        was_training = model.network.training
        model.network.eval()
        try:
            for start in range(0, self.items, bench.config.sampling.batch_size):
                numbers = range(start, min(self.items, start + bench.config.sampling.batch_size))
                z = Noise(bench.config.seed, numbers, model.shape, model.device, "noise-search")()
                condition = None if asked is None else asked[list(numbers)].to(model.device)
                pairs.append(self._searched(model, posterior, z, condition))
        finally:
            model.network.train(was_training)
        before, after = (torch.cat(part).cpu() for part in zip(*pairs, strict=True))
        return {"items": self.items, "before": shares(before, bench), "after": shares(after, bench)}

    def _searched(
        self, model: ScoreModel, posterior: Posterior, z: Tensor, condition: Condition | None
    ) -> tuple[Tensor, Tensor]:
        """Return the samples of the noises z (B, *shape) as they are drawn, and of those that are found."""
        length = z.flatten(1).norm(dim=1)
        level = torch.full((len(z),), LOWEST, device=z.device)
        with torch.no_grad():
            before = walked(model, z, self.steps, condition)
        for _ in range(self.ascents):
            with torch.enable_grad():
                z.requires_grad_(True)
                logit = posterior.logit(walked(model, z, self.steps, condition), level)
                (slope,) = torch.autograd.grad(logit.sum(), z)
            z = _turned(z.detach(), slope, length, self.turn)
        with torch.no_grad():
            return before, walked(model, z, self.steps, condition)

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        return {"UR % after noise search": 100 * found["after"]["unlearning_ratio"]["value"]}

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        return dict.fromkeys(cls.followed(found), 100 / found["items"])

    def protocol(self, bench: Bench) -> dict[str, str]:
        return {
            "noise search": f"{self.items} noises, each turned {self.ascents} times by {self.turn:g} rad along the "
            f"gradient of a classifier's logit of its sample (DDIM, {self.steps} steps); the classifier is trained on "
            "the real training items, noised, and the judge is another"
        }


def walked(model: ScoreModel, z: Tensor, steps: int, condition: Condition | None) -> Tensor:
    """Return the DDIM samples of noises z (B, *shape) of variance 1, differentiable in z."""
    eps = sigma_space(model, condition)
    ratios = [*ratio_grid(model.process, steps, SamplingSettings("ddim", steps).spacing), 0.0]
    y = ratios[0] * z
    for high, low in itertools.pairwise(ratios):
        y = y + (low - high) * eps(y, high)
    return y


def _turned(z: Tensor, slope: Tensor, length: Tensor, turn: float) -> Tensor:
    """Return z (B, *shape) turned by an angle along the part of ``slope`` that is orthogonal to it, at its length."""
    unit = z / per_item(length, z)
    along = (slope * unit).flatten(1).sum(1)
    across = slope - per_item(along, z) * unit
    across = across / per_item(across.flatten(1).norm(dim=1).clamp_min(1e-12), z)
    turned = torch.cos(torch.tensor(turn)) * unit + torch.sin(torch.tensor(turn)) * across
    return turned * per_item(length / turned.flatten(1).norm(dim=1), z)
