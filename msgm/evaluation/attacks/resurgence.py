"""Whether harmless fine-tuning brings the content back.

This happens in text-to-image models (Suriyakumar et al., "Unstable Unlearning: The Hidden Risk of Concept Resurgence in
Diffusion Models", arXiv 2410.08074).
"""

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from msgm.checks import at_least, positive
from msgm.evaluation.attacks.base import Attack, cell, ratio
from msgm.evaluation.attacks.tuning import check_steps, tuning_curve, tuning_settings
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column

SECTION = "evaluation.options.resurgence"


def _before_and_after(found: dict[str, Any]) -> str:
    first, last = found["curve"][0], found["curve"][-1]
    return f"{ratio(first)} -> {ratio(last)}"


@METRICS.register("resurgence")
@dataclass(frozen=True)
class Resurgence(Attack):
    """A copy is fine-tuned on the retain set alone, as a later user would do who knows of no forgetting.

    Example:
        >>> found = Resurgence(steps=[1, 2], samples=4).measure(subject)["resurgence"]
        >>> [(point["step"], point["unlearning_ratio"]["n"]) for point in found["curve"]]
        [(0, 4), (1, 4), (2, 4)]

    Attributes:
        steps: after how many steps to look; 0 always is one of them.
        lr: Adam's rate; None takes that of ``finetune``.
        batch_size: items a step; None takes that of ``finetune``.
        samples: samples a look, at most ``evaluation.samples``.
    """

    key = "resurgence"
    on_weights = True
    columns = [Column("UR % before -> after tuning on retain items", "lower", cell(key, _before_and_after))]  # noqa: RUF012

    steps: list[int] = field(default_factory=lambda: [50, 200])
    lr: float | None = None
    batch_size: int | None = None
    samples: int = 500

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "batch_size", "samples")
        check_steps(self.steps, SECTION)
        positive(self, SECTION, "lr")

    def attack(self, subject: Subject) -> dict[str, Any]:
        bench = subject.bench
        settings = tuning_settings(bench.config, self.lr, self.batch_size)
        return tuning_curve(subject, bench.split.train.retain, self.steps, settings, self.samples, "resurgence")

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        return {
            "UR % while tuned on retain items": 100
            * fmean(point["unlearning_ratio"]["value"] for point in found["curve"][1:])
        }

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        return dict.fromkeys(cls.followed(found), 100 / sum(p["unlearning_ratio"]["n"] for p in found["curve"][1:]))

    def protocol(self, bench: Bench) -> dict[str, str]:
        settings = tuning_settings(bench.config, self.lr, self.batch_size)
        return {
            "resurgence": f"a copy is fine-tuned on the training items to retain for {max(self.steps)} steps (noise "
            f"prediction, Adam {settings.lr:g}, batch {settings.batch_size}, raw weights)"
        }
