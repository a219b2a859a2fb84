"""Unlearning ratio and junk rate over the steps of the run: how early the content disappears, and at what cost."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from msgm.checks import at_least
from msgm.evaluation.attacks.base import Attack, sample_count, shown, with_weights
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.reading import read_tensors
from msgm.runs import Run
from msgm.splits import Split
from msgm.training.checkpoints import checkpoints, raw_and_averaged


@METRICS.register("course")
@dataclass(frozen=True)
class Course(Attack):
    """Samples of the weights that the run kept: data of a plot, of which the table shows nothing.

    They are its checkpoints and, with ``training.keep_every``, the files in ``course/``.

    Example:
        >>> found = Course(samples=4).measure(subject)["course"]
        >>> [(point["step"], point["unlearning_ratio"]["n"]) for point in found["curve"]]
        [(6, 4)]

    Attributes:
        samples: samples of each, at most ``evaluation.samples``.
    """

    key = "course"
    table = "Overview"
    columns: ClassVar[list[Column]] = []

    samples: int = 300

    def __post_init__(self) -> None:
        at_least(1, self, "evaluation.options.course", "samples")

    def obstacle(self, split: Split, run: Run | None) -> str | None:
        found = _kept(run) if run is not None else {}
        return None if found else "the run kept no weights of its course: neither checkpoints nor course/"

    def attack(self, subject: Subject) -> dict[str, Any]:
        assert subject.run is not None
        count = sample_count(self.samples, subject.bench)
        points = [
            {"step": step, "weights": kind, **shown(with_weights(subject.model, tensors), subject.bench, count)}
            for step, kind, tensors in _course(subject)
        ]
        return {"samples": count, "curve": points}

    def protocol(self, bench: Bench) -> dict[str, str]:
        count = sample_count(self.samples, bench)
        return {"course": f"{count} samples of every weights kept along the run (checkpoints, training.keep_every)"}


def _kept(run: Run) -> dict[int, Path]:
    """Return the path of the run's weights by step: a file in ``course/``, else a checkpoint's folder."""
    found = [*checkpoints(run.checkpoints), *sorted(run.course.glob("step-*.safetensors"))]
    return {int(path.stem.removeprefix("step-")): path for path in found}


def _course(subject: Subject) -> Iterator[tuple[int, str, dict[str, Tensor]]]:
    """Yield step, kind and tensors of every weights kept, in order; of checkpoints those of the model folder's kind."""
    assert subject.run is not None
    kind = "raw" if subject.weights == "raw" else "ema"
    for step, path in sorted(_kept(subject.run).items()):
        if path.is_dir():
            raw, averaged = raw_and_averaged(path)
            yield step, kind, raw if kind == "raw" else averaged
        else:
            yield step, kind, read_tensors(path)
