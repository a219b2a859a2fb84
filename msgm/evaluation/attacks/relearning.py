"""How fast forgotten content is relearnt.

A model that lost the content should need about as many steps as one that never saw it (the retrained row); a model that
only hides it relearns it within a few steps. The row ``random-network`` gives the steps needed from random weights.
"""

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from msgm.checks import at_least, positive
from msgm.config import Config
from msgm.data import Dataset
from msgm.evaluation.attacks.base import Attack, enough, half_of_base
from msgm.evaluation.attacks.tuning import check_steps, tuning_curve, tuning_settings
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.seeding import generator
from msgm.splits import Split

SECTION = "evaluation.options.relearning"


@METRICS.register("relearning")
@dataclass(frozen=True)
class Relearning(Attack):
    """A copy is fine-tuned on a few forget items, with ``benign`` among items to retain.

    Unlike "relearn time" of classifiers (loss on the forget set), what counts is what samples show.

    Example:
        >>> found = Relearning(items=8, steps=[1, 2], samples=4).measure(subject)["relearning"]
        >>> [(point["step"], point["unlearning_ratio"]["n"]) for point in found["curve"]]
        [(0, 4), (1, 4), (2, 4)]

    Attributes:
        items: training items to forget that are learnt again; the same ones for every row.
        benign: training items to retain that are learnt among them, the same ones for every row: compound relearning, a
            harmless fine-tuning that a few items to forget have slipped into.
        steps: after how many steps to look; 0 always is one of them.
        lr: Adam's rate; None takes that of ``finetune``.
        batch_size: items a step; None takes that of ``finetune``.
        rank: of a low-rank adapter of all layers (LoRA, arXiv 2106.09685), which is trained in the place of the
            weights, as by an attacker with little memory; needs peft. None trains all weights.
        samples: samples a look, at most ``evaluation.samples``.
    """

    key = "relearning"
    on_weights = True
    columns = [  # noqa: RUF012
        Column("relearning steps to half the base's UR", "higher", half_of_base(key, "step")),
    ]

    items: int = 64
    benign: int = 0
    steps: list[int] = field(default_factory=lambda: [2, 5, 10, 20, 40, 80, 160])
    lr: float | None = None
    batch_size: int | None = None
    rank: int | None = None
    samples: int = 500

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "items", "batch_size", "rank", "samples")
        at_least(0, self, SECTION, "benign")
        check_steps(self.steps, SECTION)
        positive(self, SECTION, "lr")

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        distinct = dataset.distinct(split.train.forget), dataset.distinct(split.train.retain)
        enough(self.name, "items", self.items, len(distinct[0]), "training items to forget")
        enough(self.name, "benign", self.benign, len(distinct[1]), "training items to retain")
        tuning_settings(config, self.lr, self.batch_size, self.rank)

    def attack(self, subject: Subject) -> dict[str, Any]:
        bench = subject.bench
        settings = tuning_settings(bench.config, self.lr, self.batch_size, self.rank)
        chosen = self._chosen(bench)
        return tuning_curve(subject, chosen, self.steps, settings, self.samples, "relearning")

    def _chosen(self, bench: Bench) -> NDArray[np.int64]:
        train, draws = bench.split.train, generator(bench.config.seed, "relearning-items")
        counts = ((train.forget, self.items), (train.retain, self.benign))
        parts = [(bench.dataset.distinct(part), count) for part, count in counts]
        drawn = [part[torch.randperm(len(part), generator=draws)[:count].numpy()] for part, count in parts]
        return np.concatenate(drawn)

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        return {
            "UR % while relearning": 100 * fmean(point["unlearning_ratio"]["value"] for point in found["curve"][1:])
        }

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        return dict.fromkeys(cls.followed(found), 100 / sum(p["unlearning_ratio"]["n"] for p in found["curve"][1:]))

    def protocol(self, bench: Bench) -> dict[str, str]:
        settings = tuning_settings(bench.config, self.lr, self.batch_size, self.rank)
        among = f" among {self.benign} to retain" if self.benign else ""
        weights = "raw weights" if self.rank is None else f"a low-rank adapter of rank {self.rank} alone"
        return {
            "relearning": f"a copy is fine-tuned on {self.items} training items to forget{among} (noise prediction, "
            f"Adam {settings.lr:g}, batch {settings.batch_size}, {weights}); first of the steps "
            f"{', '.join(map(str, sorted({0, *self.steps})))} after which its UR is at least half of the base's"
        }
