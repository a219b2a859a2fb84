"""Base of the metrics of a whole sample set: an extractor, real items to compare with, and the reported context.

Only finite samples count. With ``filtered``, samples that show forgotten content (judged a forgotten class, and no
junk) are left out too, so that the number measures the quality of the remaining samples. Every number depends on n, on
the extractor and on the reference, so all of them stand in the row, with the score that real validation items reach
against the same reference.
"""

import json
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

from msgm.config import Config
from msgm.data import Dataset
from msgm.devices import precise_device
from msgm.errors import UserError
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.extractors import (
    Extracted,
    Features,
    check_extractor,
    device_of,
    load_features,
    sample_features,
)
from msgm.evaluation.metrics.base import Metric, Report, Row
from msgm.evaluation.reference import Part, Reference
from msgm.fields import Settings
from msgm.splits import Split

TABLE = "Quality"
NOTHING = "too few samples"


@dataclass(frozen=True)
class SampleMetric(Metric):
    """A number of all samples, through an extractor.

    Attributes:
        extractor: its name and its own settings (``msgm.evaluation.extractors``).
        filtered: leave out samples that show forgotten content.
    """

    table = TABLE
    key: ClassVar[str]
    heading: ClassVar[str]
    definition: ClassVar[str]
    least: ClassVar[int] = 2

    extractor: Settings = field(default_factory=lambda: {"name": "judge"})
    filtered: bool = False

    @abstractmethod
    def scores(self, seen: Extracted, bench: Bench, features: Features) -> dict[str, Any]:
        """Return the numbers of at least ``least`` items, generated or real, as a JSON tree."""

    @abstractmethod
    def shown(self, scores: dict[str, Any]) -> str:
        """Return the numbers as short text."""

    def beside(self, bench: Bench) -> dict[str, Any]:
        """Return further entries of the row."""
        return {}

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        check_extractor(self.extractor, f"evaluation.options.{self.name}.extractor", dataset)

    def measure(self, subject: Subject) -> dict[str, Any]:
        bench = subject.bench
        features = load_features(bench, self.extractor)
        seen, left_out = seen_samples(subject, features, self.filtered)
        found = self.scores(seen, bench, features) if len(seen) >= self.least else {"value": None}
        sampling = bench.config.sampling
        facts = {
            "n": len(seen),
            "left_out": left_out,
            "extractor": {"name": features.name, "text": features.text},
            "sampler": sampling.describe(),
            "steps": sampling.steps,
            "weights": subject.weights,
        }
        return {self.key: found | facts | self.beside(bench) | {"control": self.control(bench)}}

    @classmethod
    def numbers(cls, row: Row, report: Report) -> dict[str, float | None]:
        return {cls.heading: row[cls.key]["value"]} if "value" in row[cls.key] else {}

    def control(self, bench: Bench) -> dict[str, Any] | None:
        """Return the scores of real validation items to retain, at most as many as samples; None if too few."""
        name = f"control/{self.name}/{json.dumps(self.settings(), sort_keys=True)}"
        if name not in bench.memory:
            real = Reference.of(bench.split, "validation", bench.config.evaluation.samples)
            features = load_features(bench, self.extractor)
            enough = len(real) >= self.least
            found = self.scores(real.extracted(bench, features), bench, features) if enough else None
            bench.memory[name] = found and found | {"part": real.part, "n": len(real)}
        control: dict[str, Any] | None = bench.memory[name]
        return control

    def protocol(self, bench: Bench) -> dict[str, str]:
        features, control = load_features(bench, self.extractor), self.control(bench)
        counted = "finite samples" + (" that show no forgotten content" if self.filtered else "")
        lines = [f"{self.definition}; of the {counted}, n beside each", f"through {features.text}"]
        if control is not None:
            lines.append(f"{control['n']} real validation items to retain score {self.shown(control)}")
        return {self.heading: "; ".join(lines)}


@dataclass(frozen=True)
class ComparedMetric(SampleMetric):
    """A number of all samples against real items to retain.

    Attributes:
        reference: part of the split that the real items are of.
        reference_n: how many of them, drawn at random once and for all; None takes all.
    """

    reference: Literal["test", "train"] = "test"
    reference_n: int | None = None

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        super().check(config, dataset, split)
        part: Part = self.reference
        at_most(self, "reference_n", self.reference_n, len(Reference.of(split, part)), f"{part} items to retain")
        if len(Reference.of(split, part, self.reference_n)) < self.least:
            raise UserError(f"{self.name} needs at least {self.least} {part} items to retain.")

    def real(self, bench: Bench) -> Reference:
        """Return the real items."""
        return Reference.of(bench.split, self.reference, self.reference_n)

    def beside(self, bench: Bench) -> dict[str, Any]:
        real = self.real(bench)
        return {"reference": {"part": real.part, "n": len(real), "digest": real.digest(bench)}}

    def protocol(self, bench: Bench) -> dict[str, str]:
        text = super().protocol(bench)[self.heading]
        return {self.heading: f"{text}; against {len(self.real(bench))} {self.reference} items to retain"}

    def placed(self, seen: Extracted, bench: Bench, features: Features) -> tuple[Tensor, Tensor]:
        """Return the features of ``seen`` and of the real items, in float64, where measuring computes in it."""
        real = self.real(bench).extracted(bench, features)
        device = precise_device(device_of(bench))
        return seen.features.to(device).double(), real.features.to(device).double()


def seen_samples(subject: Subject, features: Features, filtered: bool) -> tuple[Extracted, dict[str, int]]:
    """Return the features of the samples that count, and the numbers of excluded samples by reason."""
    seen, bench = sample_features(subject, features), subject.bench
    usable = subject.finite & seen.features.isfinite().all(1)
    left_out = {"non_finite": int((~usable).sum())}
    keep = usable
    if filtered:
        named = bench.judge.forgotten_share(bench.judge.votes(subject.items)) > 0.5
        keep = usable & ~(named & ~bench.junk(subject.items))
        left_out["forgotten"] = int((usable & ~keep).sum())
    probabilities = None if seen.probabilities is None else seen.probabilities[keep]
    return Extracted(seen.features[keep], probabilities), left_out


def at_most(metric: Metric, option: str, value: int | None, available: int, what: str) -> None:
    """Refuse an option below 1, or above what is there."""
    if value is not None and not 1 <= value <= available:
        raise UserError(
            f"evaluation.options.{metric.name}.{option} is {value}, but there are {available} {what}; it must lie in "
            f"1 .. {available}."
        )


def cell(key: str, show: Callable[[dict[str, Any]], str]) -> Callable[[Row, Report], str]:
    """Return a column's cell: the number, the extractor and n; they differ from row to row and from run to run."""

    def text(row: Row, _: Report) -> str:
        found = row[key]
        beside = f"({found['extractor']['name']}, n {found.get('compared', found['n'])})"
        return f"{NOTHING if found.get('value', 0) is None else show(found)} {beside}"

    return text
