"""What a class-conditional model gives when it is asked for forgotten classes, for others, and for nothing.

UA and IRA are the field's (Zhang et al., "UnlearnCanvas", arXiv 2402.11846; Fan et al., SalUn, arXiv 2310.12508). CRA,
the accuracy in a second domain (styles beside objects, say), needs conditions of two domains; classes are one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from msgm.config import Config
from msgm.data import Dataset
from msgm.errors import UserError
from msgm.evaluation.asking import classes_of, forgotten, known_classes
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, NOT_MEASURED, Column, Metric, Report, Row
from msgm.evaluation.metrics.unlearning_ratio import percent, percent_interval, sample_numbers
from msgm.evaluation.rates import Share, rate, total
from msgm.evaluation.reality import to_items
from msgm.splits import Split

KEY = "conditions"
NOT_TESTED = "not tested"
UNCONDITIONAL = "the model is unconditional"
VIEWS = ("forgotten", "others", "none")
"""What samples are asked for: a class to forget of which no item is retained, a retained one, no class."""
NUMBERS = {
    "UA %": ("forgotten", "UA"),
    "IRA %": ("others", "accuracy"),
    "UR % asked for forgotten": ("forgotten", "unlearning_ratio"),
    "UR % asked for others": ("others", "unlearning_ratio"),
    "junk % asked for forgotten": ("forgotten", "junk_rate"),
    "junk % asked for others": ("others", "junk_rate"),
}
"""View and share of each number, by heading."""


def share_of(row: Row, view: str, name: str) -> Share | None:
    """Return a share of a view, by its key in the row; None where it was not measured."""
    found: Share | None = (row.get(KEY, {}).get(view) or {}).get(name)
    return found


def ratios(row: Row) -> dict[str, Share]:
    """Return the unlearning ratio of samples asked for a forgotten class and for another one, by heading."""
    shares = {f"UR % asked for {view}": share_of(row, view, "unlearning_ratio") for view in VIEWS[:2]}
    return {heading: share for heading, share in shares.items() if share is not None}


def _cell(view: str, name: str) -> Callable[[Row, Report], str]:
    def text(row: Row, _: Report) -> str:
        share = share_of(row, view, name)
        return NOT_TESTED if share is None else percent_interval(share)

    return text


def _views(name: str) -> Callable[[Row, Report], str]:
    def text(row: Row, _: Report) -> str:
        shares = [share_of(row, view, name) for view in VIEWS]
        values = [NOT_MEASURED if share is None else percent(share["value"]) for share in shares]
        return " / ".join(values) if any(shares) else NOT_TESTED

    return text


@METRICS.register(KEY)
@dataclass(frozen=True)
class Conditions(Metric):
    """The three views of a class-conditional model: a forgotten class asked for, another one, none.

    It is measured for every class-conditional network, whether ``evaluation.metrics`` names it or not.

    Example:
        >>> model = msgm.ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8], classes=10)
        >>> found = Conditions().measure(Subject("asked", model, subject.bench))["conditions"]
        >>> found["forgotten"]["asked"], found["forgotten"]["n"], found["others"]["n"], found["none"]["n"]
        (['3', '7'], 4, 16, 20)
        >>> found["forgotten"]["UA"]["value"] == 1 - found["forgotten"]["accuracy"]["value"]
        True
    """

    table = "Asked for a class"
    columns: ClassVar[list[Column]] = [
        Column("UA % [95% CI]", "higher", _cell("forgotten", "UA")),
        Column("IRA % [95% CI]", "higher", _cell("others", "accuracy")),
        Column("UR % asked for forgotten / others / none", "lower", _views("unlearning_ratio")),
        Column("junk % asked for forgotten / others / none", "lower", _views("junk_rate")),
    ]

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        if dataset.labels is None:
            raise UserError(f"evaluation.metrics: conditions asks for classes, and {dataset.name} has none.")

    def measure(self, subject: Subject) -> dict[str, Any]:
        model, bench = subject.model, subject.bench
        if not model.classes or bench.dataset.labels is None:
            return {KEY: {"not_tested": UNCONDITIONAL}}
        labels = torch.arange(len(subject.asked)) % len(known_classes(model, bench.dataset))
        train = bench.split.train
        classes = {
            "forgotten": forgotten(bench.dataset, bench.split, train.forget),
            "others": classes_of(bench.dataset, train.retain),
        }
        found = {view: _view(subject, labels, _among(labels, chosen)) for view, chosen in classes.items()}
        found["none"] = None
        if getattr(model.network, "has_null", True):
            found["none"] = _shares(subject.items, subject.finite, bench)
        return {KEY: found}

    @classmethod
    def numbers(cls, row: Row, report: Report) -> dict[str, float | None]:
        return {heading: 100 * share["value"] for heading, share in _shares_of(row).items()}

    @classmethod
    def granularity(cls, row: Row) -> dict[str, float]:
        return {heading: 100 / share["n"] for heading, share in _shares_of(row).items()}

    def protocol(self, bench: Bench) -> dict[str, str]:
        return {
            "asked for a class": f"{bench.config.evaluation.samples} samples, asked for the classes of the data in "
            "turn; a class is forgotten where the request named it and no training item to retain has it, and classes "
            "of earlier requests alone are left out; UA: share of those asked for a forgotten class in which the "
            "judge does not see it, 1 - accuracy; IRA: accuracy of those asked for another class; the judge names a "
            "class for junk, too, so that junk raises UA; UR and junk of these samples, and of those asked for no "
            "class, as UR and junk rate"
        }


def _shares_of(row: Row) -> dict[str, Share]:
    found = {heading: share_of(row, *place) for heading, place in NUMBERS.items()}
    return {heading: share for heading, share in found.items() if share is not None}


def _among(labels: Tensor, chosen: list[int]) -> Tensor:
    return torch.isin(labels, torch.tensor(chosen, dtype=torch.long))


def _view(subject: Subject, labels: Tensor, chosen: Tensor) -> dict[str, Any] | None:
    """Return the numbers of the asked samples that are chosen; None if none is."""
    if not chosen.any():
        return None
    bench, samples, asked = subject.bench, subject.asked[chosen], labels[chosen]
    items = to_items(samples, bench.dataset.levels)
    classes = bench.dataset.classes or [str(k) for k in range(subject.model.classes)]
    names = [classes[k] for k in asked.unique().tolist()]
    found = _shares(items, samples.isfinite().flatten(1).all(1), bench)
    right = _accuracy(items, asked, bench)
    return {"asked": names, "accuracy": right, "UA": right and _less(right)} | found


def _shares(items: Tensor, finite: Tensor, bench: Bench) -> dict[str, Any]:
    numbers = sample_numbers(items, finite, bench)
    low, high = numbers["intervals"]["junk_rate"]
    junk = {"value": numbers["junk_rate"], "low": low, "high": high, "n": len(items)}
    return {"n": len(items), "unlearning_ratio": numbers["unlearning_ratio"], "junk_rate": junk}


def _less(share: Share) -> Share:
    """Return what is left of the whole."""
    low, high = 1 - share["high"], 1 - share["low"]
    return {"value": 1 - share["value"], "low": low, "high": high, "n": share["n"]}


def _accuracy(items: Tensor, asked: Tensor, bench: Bench) -> Share | None:
    """Return the share of items that show what was asked for; None where the judge's classes are not the data's."""
    if not bench.config.request.by_class:
        return None
    votes = bench.judge.votes(items)
    return rate(total(votes.gather(1, asked[:, None])), len(items))
