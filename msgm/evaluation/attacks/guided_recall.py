"""Whether a classifier leads the model back: sampling with the score s_theta + g grad log P(forget | x_t).

What is asked of a text-to-image model by an adversarial prompt is asked here by guidance. It needs the weights and no
fine-tuning. The classifier is trained on real items, noised, and is the same one for every row. With g = 1 the base
model samples the forget set. A model that never saw the forget set is led somewhere too, as the classifier alone draws
its samples there, so that the retrained row says what a number means.
"""

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, ClassVar

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import Condition, ScoreModel
from msgm.diffusion.guidance import Guidance
from msgm.diffusion.guidance.posterior import Posterior
from msgm.diffusion.model import per_item
from msgm.errors import UserError
from msgm.evaluation.attacks.base import Attack, cell, half_of_base, ratio, sample_count, shares, shown
from msgm.evaluation.attacks.posterior import real_posterior
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.splits import Split

SECTION = "evaluation.options.guided-recall"


@dataclass
class Recall(Guidance):
    """Guidance towards the forget set, which no config names.

    Attributes:
        scale: g.
        posterior: P(forget | x_t).
    """

    scale: float
    posterior: Posterior

    name: ClassVar[str] = "recall"
    formula: ClassVar[str] = "eps_theta - g (1 - w) sigma grad l = eps_theta - g sigma grad log P(forget | x_t)"
    source: ClassVar[str] = "Dhariwal and Nichol, arXiv 2105.05233, eq. 14"
    deviations: ClassVar[str] = "none"

    def eps(self, model: ScoreModel, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        found = model.eps(x, t, condition)
        logit, pull = self.posterior.pull(model.process, x, t)
        return found - self.scale * per_item(torch.sigmoid(-logit), x) * pull


def _curve(found: dict[str, Any]) -> str:
    return " / ".join(ratio(point) for point in found["curve"])


@METRICS.register("guided-recall")
@dataclass(frozen=True)
class GuidedRecall(Attack):
    """Samples are guided towards the forget set by a classifier of real items.

    Example:
        >>> metric = GuidedRecall(scales=[0, 2], samples=4, steps=20)
        >>> found = metric.measure(subject)["guided_recall"]
        >>> [(point["scale"], point["unlearning_ratio"]["n"]) for point in found["curve"]]
        [(0, 4), (2, 4)]

    Attributes:
        scales: weights g of the guidance, rising; 0, the samples as they are, always is one of them.
        samples: samples of each, at most ``evaluation.samples``.
        steps: of the classifier's training, at most.
    """

    key = "guided_recall"
    on_weights = True
    columns = [  # noqa: RUF012
        Column("guidance to half the base's UR", "higher", half_of_base(key, "scale")),
        Column("UR % by guidance", "", cell(key, _curve)),
    ]

    scales: list[float] = field(default_factory=lambda: [0, 1, 2, 4, 8])
    samples: int = 500
    steps: int = 1000

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "samples", "steps")
        if min(self.scales, default=-1) < 0 or max(self.scales) == 0:
            raise UserError(f"{SECTION}.scales must name weights of at least 0, one above 0, got {list(self.scales)}.")

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        if not len(split.train.forget) or not len(split.train.retain):
            raise UserError(f"{SECTION}: its classifier needs training items to forget and to retain.")

    def attack(self, subject: Subject) -> dict[str, Any]:
        bench, model = subject.bench, subject.model
        count, posterior = sample_count(self.samples, bench), real_posterior(bench, self.steps, model.device)
        bare = shown(model, bench, count) if model.classes else shares(subject.samples[:count], bench)
        guided = [
            {"scale": scale, **shown(Recall(scale, posterior).wrap(model), bench, count)}
            for scale in sorted({*self.scales} - {0})
        ]
        return {"samples": count, "classifier_loss": posterior.loss, "curve": [{"scale": 0, **bare}, *guided]}

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        return {"UR % by guided recall": 100 * fmean(p["unlearning_ratio"]["value"] for p in found["curve"][1:])}

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        return dict.fromkeys(cls.followed(found), 100 / sum(p["unlearning_ratio"]["n"] for p in found["curve"][1:]))

    def protocol(self, bench: Bench) -> dict[str, str]:
        count, scales = sample_count(self.samples, bench), ", ".join(f"{g:g}" for g in sorted({0.0, *self.scales}))
        return {
            "guided recall": f"{count} samples each with the score s + g grad log P(forget | x_t), g = {scales}; the "
            "classifier is trained on the real training items, noised, once for all rows; half the base's UR is half "
            "of what its samples show without guidance"
        }
