"""Base of the comparisons of a model with the retrained models of its comparison, one by one.

A number of a model is its mean over the retrained models other than itself. Each of these is compared with the others,
too, so that their numbers are the band: what two models have between them that were both retrained without the request.
A model outside the band on either side is told from a retrained one.

A pair of the K retrained models counts for both of them, so that their means differ less than those of further models.
The band is therefore wider than that of other numbers, by (K - 1) / (K - 2) or 4/3 of five (``msgm.study.band``), and a
further retrained model lies inside as often as is stated.

The retrained models are trained before anything is measured, and drawn from by seeds of their own.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any, ClassVar

from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import ScoreModel
from msgm.errors import UserError
from msgm.evaluation.attacks.base import Attack, cell
from msgm.evaluation.bench import Bench, Retrained, Subject
from msgm.evaluation.metrics.base import Column, Metric
from msgm.runs import Run
from msgm.splits import Split

TITLE = "Like the retrained models?"
NO_VALUE = "no value"

Compared = dict[str, dict[str, Any]]
"""Numbers of one pair of models by heading: each a tree whose ``value`` is the number, None where there is none."""


class BesideRetrained(Attack):
    """Compares a model with each retrained model other than itself. Subclasses write ``compared``.

    Attributes:
        others: how many retrained models it needs beside the model.
    """

    table = TITLE
    beside_retrained = True
    of_pairs = True
    others: ClassVar[int] = 1

    @abstractmethod
    def compared(self, subject: Subject, other: Subject) -> Compared:
        """Return the numbers of a model beside one retrained model."""

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        check_retrained(self, config, self.others)

    def obstacle(self, split: Split, run: Run | None) -> str | None:
        return None if len(split.train.forget) else "nothing was asked to be forgotten"

    def attack(self, subject: Subject) -> dict[str, Any]:
        others = others_of(subject)
        if len(others) < self.others:
            return {"not_tested": too_few(len(others), self.others)}
        pairs = {other.name: self.compared(subject, other) for other in others}
        headings = next(iter(pairs.values()))
        return {"compared": {h: summary({name: pair[h] for name, pair in pairs.items()}) for h in headings}}

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        return {heading: tree["value"] for heading, tree in found["compared"].items()}


def summary(models: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return mean, least and greatest value over retrained models; None where one of them has no value."""
    values = [tree["value"] for tree in models.values()]
    known = [value for value in values if value is not None]
    whole = len(known) == len(values)
    return {
        "value": fmean(known) if whole else None,
        "least": min(known) if whole else None,
        "greatest": max(known) if whole else None,
        "by_model": dict(models),
    }


def columns_of(key: str, headings: Mapping[str, str]) -> list[Column]:
    """Return a column for each heading, whose numbers are shown by a format, as mean (least to greatest)."""
    return [Column(heading, "", cell(key, _shown(heading, form))) for heading, form in headings.items()]


def _shown(heading: str, form: str) -> Callable[[dict[str, Any]], str]:
    def text(found: dict[str, Any]) -> str:
        tree = found["compared"][heading]
        if tree["value"] is None:
            return NO_VALUE
        value, least, greatest = (format(tree[key], form) for key in ("value", "least", "greatest"))
        return f"{value} ({least} to {greatest})"

    return text


def check_retrained(metric: Metric, config: Config, others: int) -> None:
    """Raise a UserError when the comparison has too few retrained models to compare each of them with ``others``."""
    if config.retrains <= others:
        raise UserError(
            f"retrains must be at least {others + 1} for the metric {metric.name}, which compares each model with "
            f"{others} retrained {'model' if others == 1 else 'models'} or more, got {config.retrains}."
        )


def others_of(subject: Subject) -> list[Subject]:
    """Return the retrained models of the comparison other than the model itself, each at its own seed.

    They are loaded once a bench, and keep their samples.
    """
    own = None if subject.run is None else subject.run.model.resolve()
    others = [other for other in subject.bench.retrained if other.model.resolve() != own]
    return [_loaded(other, subject) for other in others]


def _loaded(other: Retrained, subject: Subject) -> Subject:
    bench, key = subject.bench, f"retrained/{other.model}"
    if key not in bench.memory:
        model = ScoreModel.load(other.model).to(subject.model.device)
        bench.memory[key] = Subject(other.name, model, bench.at(other.seed))
    found: Subject = bench.memory[key]
    return found


def too_few(count: int, needed: int) -> str:
    """Return why a model is not compared: there are too few retrained models beside it."""
    return f"{count} other retrained models stand beside it, and it takes {needed}: 'retrains' of a comparison"


def beside(bench: Bench) -> str:
    """Return a sentence on what a number is the mean over, for the protocol."""
    return (
        f"mean (least to greatest) over the {len(bench.retrained)} retrained models other than the model itself; what "
        "these have among each other is the band"
    )
