"""Base of metrics: numbers of one model, compared with the original and with a band of retrained models.

Each retrained model is measured in the same way, left out of its own references; these values form the band. A file
that registers a subclass of ``Metric`` makes it known to comparisons and, if it needs logits alone, to the audit.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, ClassVar

from msgm.classifier.outputs import Outputs
from msgm.registry import Registry
from msgm.study.parts import UNIT, Number

if TYPE_CHECKING:
    from torch import nn

    from msgm.classifier.data import Split
    from msgm.classifier.methods.base import Method, Settings


@dataclass(frozen=True, eq=False)
class Live:
    """The models themselves; not available where only files of logits are given.

    Attributes:
        model: the one to measure.
        original: the model before unlearning.
        split: the data split of the request.
        settings: run context of the method.
        method: the unlearning method, for attacks that run it on shadow models; None skips these attacks.
    """

    model: "nn.Module"
    original: "nn.Module"
    split: "Split"
    settings: "Settings"
    method: "Method | None" = None


@dataclass(frozen=True, eq=False)
class Case:
    """One model to measure.

    Example:
        >>> len(case.retrains), case.scope
        (2, 'instances')

    Attributes:
        target: its outputs.
        original: the outputs of the model before unlearning.
        retrains: those of models retrained on the retain set; never the target's own.
        scope: ``instances`` or ``class``.
        live: the models, if at hand.
    """

    target: Outputs
    original: Outputs
    retrains: list[Outputs] = field(default_factory=list)
    scope: str = "instances"
    live: Live | None = None


@dataclass(frozen=True)
class Needed:
    """How many models a metric has to make for one method.

    Attributes:
        trained: models trained from random weights.
        unlearned: runs of the unlearning method.
    """

    trained: int
    unlearned: int

    def seconds(self, training: float, unlearning: float) -> float:
        """Return the total time in seconds, from the seconds of one training and of one run of the method."""
        return self.trained * training + self.unlearned * unlearning


class Metric(ABC):
    """A measurement. Subclasses are frozen dataclasses whose fields are their settings.

    Example:
        >>> found = METRICS.build({"name": "accuracy"}).measure(case)
        >>> 0 <= found["retain_accuracy"] <= 1
        True

    In their examples ``case`` is a ``Case`` of a model that was fine-tuned to forget 40 items, beside two retrained
    models.

    Attributes:
        numbers: its numbers by name; no two metrics share a name.
        live: whether it needs the models, not just their logits.
        costly: run only when asked for by name.
    """

    name: ClassVar[str]
    numbers: ClassVar[dict[str, Number]]
    live: ClassVar[bool] = False
    costly: ClassVar[bool] = False

    @abstractmethod
    def measure(self, case: Case) -> dict[str, float | None]:
        """Return every number of ``numbers``; None for one that does not exist here, never NaN."""

    def needed(self) -> Needed:
        """Return which models the metric makes for itself, for one method, one request and one seed."""
        return Needed(trained=0, unlearned=0)

    @classmethod
    def describe(cls) -> str:
        """Return the card as lines of text: what it measures, its numbers, the defaults of its settings."""
        defaults = ", ".join(f"{f.name} {getattr(cls(), f.name)}" for f in fields(cls)) or "no settings"  # type: ignore[arg-type]
        facts = {"needs": "the models" if cls.live else "logits", "costly": "yes" if cls.costly else "no"}
        numbers = {name: f"{number.text} ({number.section})" for name, number in cls.numbers.items()}
        title = (cls.__doc__ or "").split("\n")[0]
        return "\n".join([title, *(f"{key}: {v}" for key, v in (facts | numbers | {"defaults": defaults}).items())])


__all__ = ["METRICS", "UNIT", "Case", "Live", "Metric", "Needed", "Number"]
METRICS: Registry[Metric] = Registry("metrics")
