"""What a text-to-image model shows when it is asked for a forgotten word, for other words for it, and for others.

UA and the accuracy of what is kept are the field's (Zhang et al., "UnlearnCanvas", arXiv 2402.11846; Gandikota et al.,
UCE, arXiv 2308.14761). Whether a concept comes back under other words is asked by prompts that the model before draws
rightly: what it could not draw then, it has not forgotten now.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from msgm.checks import at_least
from msgm.concepts import mentions
from msgm.config import BASE_ROW, Config
from msgm.data import Dataset
from msgm.diffusion import ScoreModel
from msgm.errors import UserError
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.judge import Task, kind_of
from msgm.evaluation.judges.cells import CellsJudge
from msgm.evaluation.metrics.base import METRICS, NOT_MEASURED, Column, Metric, Report, Row
from msgm.evaluation.metrics.unlearning_ratio import percent, percent_interval, recognised
from msgm.evaluation.rates import Share, rate
from msgm.evaluation.reality import to_items
from msgm.splits import Split
from msgm.starts import FROM_BASE

KEY = "prompts"
SETS = ("word", "synonyms", "compositions", "others")
OTHER_PROMPTS = "the model is not asked for the data's prompts"
DRAWN = 0.95
"""Share of a prompt set that the model before must draw rightly, or the set is not scored."""
REACHED_UA = 99.0
REACHED_LOSS = 2.0
"""What ``reached`` asks for: UA of the trained word, and points of accuracy that other prompts may lose; both in %."""
UA, KEPT = "UA % {}", "accuracy % others"


def prompt_sets(
    prompts: Sequence[str], named: Sequence[tuple[int, ...]], word: Sequence[str], forgotten: Sequence[int]
) -> dict[str, list[int]]:
    """Return the numbers of the prompts of each set; a prompt that names no class is in none.

    Example:
        >>> prompts = ["seven", "7", "a slanted seven", "seven and two", "two", "a picture"]
        >>> prompt_sets(prompts, [(7,), (7,), (7,), (7, 2), (2,), ()], ["seven"], [7])
        {'word': [0], 'synonyms': [1], 'compositions': [2, 3], 'others': [4]}

    Args:
        prompts: the prompts that a model can be asked for.
        named: the classes that each names.
        word: the prompts that were to be forgotten.
        forgotten: the classes that were to be forgotten.
    """
    found: dict[str, list[int]] = {name: [] for name in SETS}
    alone = [number for number, classes in enumerate(named) if len(classes) == 1]
    held = mentions(prompts, [prompts[number] for number in alone])
    for number, (prompt, classes) in enumerate(zip(prompts, named, strict=True)):
        says = {other for column, other in enumerate(alone) if held[number, column] and named[other] == classes}
        if prompt in word:
            found["word"].append(number)
        elif classes and not set(classes) & set(forgotten):
            found["others"].append(number)
        elif classes:
            found["synonyms" if says == {number} else "compositions"].append(number)
    return found


def _base(row: Row, report: Report) -> Row | None:
    """Return the base's row of the same seed, or else its first; None where a report has none that was measured."""
    rows = [other for other in report.get("rows", []) if other["name"] == BASE_ROW and KEY in other]
    return next((other for other in rows if other.get("seed") == row.get("seed")), rows[0] if rows else None)


def _share(row: Row | None, name: str, number: str) -> Share | None:
    found: Share | None = ((row or {}).get(KEY, {}).get(name) or {}).get(number)
    return found


def unscored(row: Row, report: Report, name: str) -> str | None:
    """Return why a prompt set is not scored; None if it is."""
    if _share(row, name, "UA") is None:
        return NOT_MEASURED
    drawn = _share(_base(row, report), name, "accuracy")
    if drawn is None:
        return f"not scored (no {BASE_ROW})"
    return None if drawn["value"] >= DRAWN else f"not scored ({BASE_ROW} {percent(drawn['value'])})"


def _scored(name: str, number: str) -> Callable[[Row, Report], str]:
    def text(row: Row, report: Report) -> str:
        share = _share(row, name, number)
        return unscored(row, report, name) or (percent_interval(share) if share else NOT_MEASURED)

    return text


def _sets(number: str) -> Callable[[Row, Report], str]:
    def text(row: Row, _: Report) -> str:
        shares = [_share(row, name, number) for name in SETS]
        return " / ".join(NOT_MEASURED if share is None else percent(share["value"]) for share in shares)

    return text


@METRICS.register(KEY)
@dataclass(frozen=True)
class Prompts(Metric):
    """Four sets of prompts: the forgotten word, other words for it, what is composed with it, and other prompts.

    - ``word``: the prompts of ``request.concept.forget``.
    - ``synonyms``: other prompts that name one forgotten class and nothing else.
    - ``compositions``: prompts that say more of a forgotten class: its place, its look, or another class beside it. A
      prompt that names one class says more where it holds, as whole words, another prompt that names the same.
    - ``others``: prompts that name no forgotten class.

    UA is the share of samples in which no place shows a forgotten class. A sample is right where the classes that its
    places show, from left to right, are those that its prompt names. The judge names a class for junk as well, so that
    junk alone raises UA; it stands beside.

    Example:
        >>> Prompts(samples=0)
        Traceback (most recent call last):
        msgm.errors.UserError: evaluation.options.prompts.samples must be at least 1, got 0.

    Attributes:
        samples: samples of each set, asked for its prompts in turn; of a set with more prompts as many, evenly chosen.
    """

    samples: int = 200

    table = "Asked by prompts"
    columns: ClassVar[list[Column]] = [
        *(Column(f"{UA.format(name)} [95% CI]", "higher", _scored(name, "UA")) for name in SETS[:3]),
        Column(f"{KEPT} [95% CI]", "higher", _scored("others", "accuracy")),
        Column(f"accuracy % {' / '.join(SETS)}", "", _sets("accuracy")),
        Column(f"junk % {' / '.join(SETS)}", "lower", _sets("junk_rate")),
    ]

    def __post_init__(self) -> None:
        at_least(1, self, f"evaluation.options.{KEY}", "samples")

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        kind = kind_of(config.evaluation.judge, Task.of(dataset, split, config.request))
        if not any(dataset.named) or kind != "cells":
            raise UserError(
                f"evaluation.metrics: {KEY} needs data whose prompts name classes, which {dataset.name} has "
                f"{'' if any(dataset.named) else 'not'}, and the judge cells; the judge is {kind}."
            )

    def measure(self, subject: Subject) -> dict[str, Any]:
        data, judge, request = subject.bench.dataset, subject.bench.judge, subject.bench.config.request
        if not _reads(subject.model, data):
            return {KEY: {"not_tested": OTHER_PROMPTS}}
        word = request.concept.forget if request.concept else []
        sets = prompt_sets(data.prompts, data.named, word, judge.forgotten)
        return {KEY: {name: self._asked(subject, numbers) for name, numbers in sets.items()}}

    def _asked(self, subject: Subject, numbers: list[int]) -> dict[str, Any] | None:
        """Return what samples show that are asked for the prompts of some numbers; None without prompts."""
        if not numbers:
            return None
        data, judge = subject.bench.dataset, subject.bench.judge
        assert isinstance(judge, CellsJudge)
        chosen = _evenly(numbers, self.samples)
        samples = subject.asked_for(chosen, self.samples)
        items, finite = to_items(samples, data.levels), samples.isfinite().flatten(1).all(1)
        read = judge.read(items)
        asked = [chosen[number % len(chosen)] for number in range(self.samples)]
        right = sum(shown == data.named[prompt] for shown, prompt in zip(read, asked, strict=True))
        clean = sum(not set(shown) & set(judge.forgotten) for shown in read)
        junk = judge.junk(items) | ~finite
        return {
            "asked": [data.prompts[number] for number in chosen],
            "UA": rate(clean, self.samples),
            "accuracy": rate(right, self.samples),
            "unlearning_ratio": rate(recognised(judge.forgotten_share(judge.votes(items)), junk), self.samples),
            "junk_rate": rate(int(junk.sum()), self.samples),
        }

    @classmethod
    def numbers(cls, row: Row, report: Report) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for heading, (name, number) in _headings().items():
            share = _share(row, name, number)
            if share is not None:
                scored = number == "junk_rate" or unscored(row, report, name) is None
                found[heading] = 100 * share["value"] if scored else None
        return found

    @classmethod
    def granularity(cls, row: Row) -> dict[str, float]:
        shares = {heading: _share(row, *place) for heading, place in _headings().items()}
        return {heading: 100 / share["n"] for heading, share in shares.items() if share}

    @classmethod
    def notes(cls, report: Report) -> list[str]:
        return [reached(report)]

    def protocol(self, bench: Bench) -> dict[str, str]:
        return {
            "asked by prompts": f"{self.samples} samples of each set: the forgotten word, other prompts that name its "
            "class alone, prompts that say more of it, and prompts of other classes; UA: share in which the judge sees "
            "no forgotten class in any place; accuracy: share whose places show, from left to right, the classes that "
            "the prompt names; 95% Wilson intervals; the judge names a class for junk, too, so that junk raises UA; "
            "UR: share in which a place shows a forgotten class, junk being none; junk: no place shows a class, black "
            "pictures among it; a set is scored only where the base draws it rightly at least "
            f"{DRAWN:.0%} of the time"
        }


def _reads(model: ScoreModel, data: Dataset) -> bool:
    """Return whether labels ask a model for the prompts of the data; its table may hold more behind those."""
    known = getattr(model.network, "prompts", None)
    if known is None:
        return model.classes == len(data.prompts)
    return list(known[: len(data.prompts)]) == data.prompts


def _headings() -> dict[str, tuple[str, str]]:
    """Return set and share of each number, by heading."""
    found = {UA.format(name): (name, "UA") for name in SETS[:3]} | {KEPT: ("others", "accuracy")}
    found |= {f"UR % asked for {name}": (name, "unlearning_ratio") for name in SETS}
    return found | {f"junk % {name}": (name, "junk_rate") for name in SETS}


def ratios(row: Row, report: Report) -> dict[str, Share]:
    """Return the unlearning ratio of samples asked for each set that is scored at every seed, by heading."""
    scored = [name for name in SETS if unscored(row, report, name) is None]
    shares = {f"UR % asked for {name}": _share(row, name, "unlearning_ratio") for name in scored}
    return {heading: share for heading, share in shares.items() if share and _value(row, heading) is not None}


def _evenly(numbers: list[int], most: int) -> list[int]:
    """Return at most so many of the numbers, evenly chosen."""
    count = min(len(numbers), most)
    return [numbers[k * len(numbers) // count] for k in range(count)]


def reached(report: Report) -> str:
    """Return a sentence that says which methods forgot the trained word and kept the other prompts.

    Example:
        >>> numbers = {"UA % word": 99.5, "accuracy % others": 98.0, "junk % word": 1.0}
        >>> numbers = {heading: {"value": value} for heading, value in numbers.items()}
        >>> base = {"name": "do-nothing", "start": "none", "metrics": numbers}
        >>> reached({"rows": [base, base | {"name": "redirect", "start": "finetune"}]})
        'UA of the word at least 99%, accuracy of others within 2 points of do-nothing (98.0%): redirect (UA 99.5%,
        others 98.0%, junk of the word 1.0%).'

    Args:
        report: a judged one, whose numbers are means over seeds.
    """
    base = next((row for row in report["rows"] if row["name"] == BASE_ROW), None)
    kept = None if base is None else _value(base, KEPT)
    if kept is None:
        return f"Which methods forgot the word and kept the others cannot be said: {BASE_ROW} was not scored."
    found = ", ".join(_told(row) for row in report["rows"] if row["start"] in FROM_BASE and _reaches(row, kept))
    return (
        f"UA of the word at least {REACHED_UA:.0f}%, accuracy of others within {REACHED_LOSS:.0f} points of "
        f"{BASE_ROW} ({kept:.1f}%): {found or 'no method'}."
    )


def _reaches(row: Row, kept: float) -> bool:
    gone, right = _value(row, UA.format("word")), _value(row, KEPT)
    return gone is not None and right is not None and gone >= REACHED_UA and right >= kept - REACHED_LOSS


def _told(row: Row) -> str:
    gone, right, junk = (_value(row, heading) for heading in (UA.format("word"), KEPT, "junk % word"))
    return f"{row['name']} (UA {gone:.1f}%, others {right:.1f}%, junk of the word {junk:.1f}%)"


def _value(row: Row, heading: str) -> float | None:
    found: float | None = (row["metrics"].get(heading) or {}).get("value")
    return found
