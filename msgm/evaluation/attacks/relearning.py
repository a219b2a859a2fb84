"""How fast forgotten content is relearnt.

A model that lost the content should need about as many steps as one that never saw it (the retrained row); a model that
only hides it relearns it within a few steps. The row ``random-network`` gives the steps needed from random weights.
"""

import math
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from msgm.checks import at_least, positive
from msgm.config import BASE_ROW, Config
from msgm.data import Dataset
from msgm.evaluation.attacks.base import Attack, enough
from msgm.evaluation.attacks.tuning import check_steps, tuning_curve, tuning_settings
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column, Report, Row, measured
from msgm.seeding import generator
from msgm.splits import Split

SECTION = "evaluation.options.relearning"


def steps_to_half(row: Row, report: Report) -> int | None:
    """Return the first listed step at which a row's unlearning ratio is half of the base model's; None if none is.

    None also if the base model's ratio is 0.
    """
    half = (base_ratio(report) or math.inf) / 2
    curve = row["relearning"]["curve"]
    return next((point["step"] for point in curve if point["unlearning_ratio"]["value"] >= half), None)


def base_ratio(report: Report) -> float | None:
    """Return the base row's unlearning ratio at step 0 of its own curve; None when no base row was relearnt."""
    for row in report["rows"]:
        if row["name"] == BASE_ROW and measured(row, "relearning"):
            return float(row["relearning"]["curve"][0]["unlearning_ratio"]["value"])
    return None


def _steps(row: Row, report: Report) -> str:
    base = base_ratio(report)
    if not base:
        return "no base row" if base is None else "the base shows none"
    found = steps_to_half(row, report)
    return f"> {row['relearning']['curve'][-1]['step']}" if found is None else str(found)


@METRICS.register("relearning")
@dataclass(frozen=True)
class Relearning(Attack):
    """A copy is fine-tuned on a few forget items.

    Unlike "relearn time" of classifiers (loss on the forget set), what counts is what samples show.

    Example:
        >>> found = Relearning(items=8, steps=[1, 2], samples=4).measure(subject)["relearning"]
        >>> [(point["step"], point["unlearning_ratio"]["n"]) for point in found["curve"]]
        [(0, 4), (1, 4), (2, 4)]

    Attributes:
        items: training items to forget that are learnt again; the same ones for every row.
        steps: after how many steps to look; 0 always is one of them.
        lr: Adam's rate; None takes that of ``finetune``.
        batch_size: items a step; None takes that of ``finetune``.
        samples: samples a look, at most ``evaluation.samples``.
    """

    key = "relearning"
    on_weights = True
    columns = [  # noqa: RUF012
        Column("relearning steps to half the base's UR", "higher", _steps),
    ]

    items: int = 64
    steps: list[int] = field(default_factory=lambda: [2, 5, 10, 20, 40, 80, 160])
    lr: float | None = None
    batch_size: int | None = None
    samples: int = 500

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "items", "batch_size", "samples")
        check_steps(self.steps, SECTION)
        positive(self, SECTION, "lr")

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        enough(self.name, "items", self.items, len(dataset.distinct(split.train.forget)), "training items to forget")

    def attack(self, subject: Subject) -> dict[str, Any]:
        bench = subject.bench
        settings = tuning_settings(bench.config, self.lr, self.batch_size)
        chosen = self._chosen(bench)
        return tuning_curve(subject, chosen, self.steps, settings, self.samples, "relearning")

    def _chosen(self, bench: Bench) -> NDArray[np.int64]:
        forget = bench.dataset.distinct(bench.split.train.forget)
        draws = generator(bench.config.seed, "relearning-items")
        return forget[torch.randperm(len(forget), generator=draws)[: self.items].numpy()]

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        return {
            "UR % while relearning": 100 * fmean(point["unlearning_ratio"]["value"] for point in found["curve"][1:])
        }

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        return dict.fromkeys(cls.followed(found), 100 / sum(p["unlearning_ratio"]["n"] for p in found["curve"][1:]))

    def protocol(self, bench: Bench) -> dict[str, str]:
        settings = tuning_settings(bench.config, self.lr, self.batch_size)
        return {
            "relearning": f"a copy is fine-tuned on {self.items} training items to forget (noise prediction, Adam "
            f"{settings.lr:g}, batch {settings.batch_size}, raw weights); first of the steps "
            f"{', '.join(map(str, sorted({0, *self.steps})))} after which its UR is at least half of the base's"
        }
