"""Whether averaged weights hide content that the raw weights still show, or the other way round."""

from dataclasses import dataclass
from typing import Any

from msgm.checks import at_least
from msgm.evaluation.attacks.base import Attack, cell, ratio, sample_count, shown, with_weights
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.runs import Run
from msgm.splits import Split
from msgm.training.checkpoints import checkpoints, raw_and_averaged


@METRICS.register("weights")
@dataclass(frozen=True)
class Weights(Attack):
    """Raw and averaged weights of the run's newest checkpoint.

    Example:
        >>> found = Weights(samples=4).measure(subject)["weights_attack"]
        >>> found["checkpoint"], found["raw"]["unlearning_ratio"]["n"], found["averaged"]["unlearning_ratio"]["n"]
        ('step-00000006', 4, 4)

    Attributes:
        samples: samples of each, at most ``evaluation.samples``.
    """

    key = "weights_attack"
    on_weights = True
    columns = [  # noqa: RUF012
        Column(
            "UR % raw / averaged weights", "lower", cell(key, lambda f: f"{ratio(f['raw'])} / {ratio(f['averaged'])}")
        )
    ]

    samples: int = 500

    def __post_init__(self) -> None:
        at_least(1, self, "evaluation.options.weights", "samples")

    def obstacle(self, split: Split, run: Run | None) -> str | None:
        found = checkpoints(run.checkpoints) if run is not None else []
        if found and (found[-1] / "ema.safetensors").is_file():
            return None
        where = f"the run {run.path.name}" if run is not None else "a model that no run of msgm made"
        return f"raw against averaged weights needs a checkpoint with both, and {where} has none with EMA weights"

    def attack(self, subject: Subject) -> dict[str, Any]:
        assert subject.run is not None
        newest = checkpoints(subject.run.checkpoints)[-1]
        count = sample_count(self.samples, subject.bench)
        found = {
            name: shown(with_weights(subject.model, tensors), subject.bench, count)
            for name, tensors in zip(("raw", "averaged"), raw_and_averaged(newest), strict=True)
        }
        return {"checkpoint": newest.name, "samples": count, **found}

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        return {
            f"UR % of {kind} weights": 100 * found[kind]["unlearning_ratio"]["value"] for kind in ("raw", "averaged")
        }

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        return dict.fromkeys(cls.followed(found), 100 / found["raw"]["unlearning_ratio"]["n"])

    def protocol(self, bench: Bench) -> dict[str, str]:
        count = sample_count(self.samples, bench)
        return {"raw and averaged weights": f"of the run's newest checkpoint, {count} samples each"}
