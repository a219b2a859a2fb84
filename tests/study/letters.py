"""A domain in one file: models that guess the next letter, and are asked to forget an author.

It says what its data, models, methods and metrics are, and what its report is to show. Seeds, the band of retrained
models, kept cells, cards, pages, tuning and processes come from the frame. A config of it reads

    domain: letters
    plugins: [letters.py]
    requests: {ada: {author: ada}}
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import numpy as np

from msgm import domains
from msgm.errors import known
from msgm.fields import Settings, structured
from msgm.folders import place
from msgm.plugins import load_files
from msgm.ranges import Range, ranges, searched
from msgm.registry import Registry
from msgm.seeding import derive_seed
from msgm.settings import Source, read_settings
from msgm.study.card import Words
from msgm.study.engine import Domain, Place, picked
from msgm.study.judging import Numbers, Report, Row
from msgm.study.ladder import Ladder, is_inside, near_mean, rules_of
from msgm.study.parts import UNIT, Number
from msgm.study.records import RecordCell
from msgm.study.rows import judged_report, left_out_at, row_numbers
from msgm.study.tuning import Searched, Tunable
from msgm.study.views import Views
from msgm.tuned import tuning_protocol

AUTHORS, LETTERS, LENGTH = ("ada", "bede", "cato"), 12, 40
Model = np.ndarray
"""(LETTERS, LETTERS) how often each letter followed each other one."""


# The data: texts of each author, of which the model learns some and never sees the others.


@dataclass(frozen=True, eq=False)
class Data:
    """Texts, each (LENGTH,) letters.

    Attributes:
        seen: (authors, texts, LENGTH) those to learn.
        unseen: likewise, those held out.
    """

    seen: np.ndarray
    unseen: np.ndarray

    @classmethod
    def make(cls, texts: int) -> "Data":
        """Draw the texts of all authors, each with habits of his own."""
        generator = np.random.default_rng(7)
        habits = generator.dirichlet(np.full(LETTERS, 0.3), (len(AUTHORS), LETTERS))
        drawn = np.zeros((len(AUTHORS), 2 * texts, LENGTH), int)
        for author, text in np.ndindex(drawn.shape[:2]):
            for k in range(1, LENGTH):
                drawn[author, text, k] = generator.choice(LETTERS, p=habits[author, drawn[author, text, k - 1]])
        return cls(drawn[:, :texts], drawn[:, texts:])


def counts(texts: np.ndarray) -> np.ndarray:
    """Return (..., LETTERS, LETTERS) how often each letter follows each other one in (..., LENGTH) texts."""
    return np.eye(LETTERS)[texts[..., :-1]].swapaxes(-1, -2) @ np.eye(LETTERS)[texts[..., 1:]]


def fitted(texts: np.ndarray, seed: int) -> Model:
    """Fit a model to (authors, texts, LENGTH), each text with a random weight: so that models differ by seed."""
    weights = np.random.default_rng(seed).exponential(size=texts.shape[:2])
    return np.einsum("at,atij->ij", weights, counts(texts))


def nll(model: Model, texts: np.ndarray) -> np.ndarray:
    """Return the negative log-likelihood of (..., LENGTH) texts, in nats a letter."""
    smooth = model + 0.5
    return -(counts(texts) * np.log(smooth / smooth.sum(1, keepdims=True))).sum((-1, -2)) / (LENGTH - 1)


# Methods and what is measured.


@dataclass(frozen=True)
class Asked:
    """What a method is given: the model, the texts to forget and to retain, and a seed."""

    model: Model
    forget: np.ndarray
    retain: np.ndarray
    seed: int


class Method:
    """A way to forget; ``search`` says what ``msgm tune`` may vary."""

    name: ClassVar[str]


METHODS: Registry[Method] = Registry("methods")
RETRAIN = {"name": "retrain"}


@METHODS.register("do-nothing")
@dataclass(frozen=True)
class DoNothing(Method):
    """The model as it was."""

    def forget(self, asked: Asked) -> Model:
        return asked.model


@METHODS.register("retrain")
@dataclass(frozen=True)
class Retrain(Method):
    """A model fitted without the author."""

    def forget(self, asked: Asked) -> Model:
        return fitted(asked.retain, asked.seed)


@METHODS.register("finetune")
@dataclass(frozen=True)
class Finetune(Method):
    """The model, fitted once more to what is retained."""

    def forget(self, asked: Asked) -> Model:
        return asked.model + fitted(asked.retain, asked.seed)


@METHODS.register("subtract")
@dataclass(frozen=True)
class Subtract(Method):
    """Takes a share of the author's counts out of the model."""

    share: float = 0.5
    search: ClassVar[Mapping[str, Range]] = ranges(share=Range(0.0, 2.0))

    def forget(self, asked: Asked) -> Model:
        return np.maximum(asked.model - self.share * counts(asked.forget).sum((0, 1)), 0)


class Likelihood:
    """How well the model guesses letters."""

    numbers: ClassVar = {
        "retain_nll": Number("of held-out texts of the other authors, nats a letter", "utility", "lower"),
        "forget_nll": Number("of the texts to forget, nats a letter", "forgetting"),
        "membership_auc": Number(
            "attack by likelihood: texts to forget against others of their author", "privacy", bounds=UNIT
        ),
    }

    def measure(self, model: Model, data: Data, author: int) -> Numbers:
        others = np.arange(len(AUTHORS)) != author
        seen, unseen = nll(model, data.seen[author]), nll(model, data.unseen[author])
        above = (seen[:, None] < unseen).mean() + (seen[:, None] == unseen).mean() / 2
        return {
            "retain_nll": float(nll(model, data.unseen[others]).mean()),
            "forget_nll": float(seen.mean()),
            "membership_auc": float(above),
        }


# What cards and pages say.

WORDS = Words(
    ladder=Ladder(
        keys=("request",),
        sides=((r"_nll$", "below"), (r"_auc$", "above")),
        repeated=r"^$",
        size="n",
        retraining="retrain_seconds",
        effect=("forget_nll",),
        rules=rules_of(
            "texts",
            "The likelihood of the author's texts lies inside the band of at least 5 retrained models, and that of "
            "other authors' is at most .2 worse than the retrained models' mean",
            "No method here is exact.",
        ),
        behaviour=lambda report, row: [
            is_inside(row, "forget_nll"),
            near_mean(row, "retain_nll", "at most .2 above", lambda value, mean: value <= mean + 0.2),
        ],
        attacks=lambda report, row: {"likelihood": ["membership_auc"]},
    ),
    metrics={"likelihood": Likelihood},
    things="texts",
    body="the model's table",
    where="Nothing was purged: the texts are where they were.",
    supplying="as by fitting the model to the author's texts again",
    alike=("forget_nll", "retain_nll"),
    tested=lambda report, row: {"C1": "the likelihood of the author's texts", "C2": "an attack by likelihood"},
)


class LetterViews(Views):
    """Rows are methods."""

    kind: ClassVar = "letter models"
    words: ClassVar = WORDS
    columns: ClassVar = {"retain_nll": ("NLL retain", 1), "forget_nll": ("NLL forget", 1), "membership_auc": ("AUC", 1)}
    axes: ClassVar = (("retain_nll", "NLL of other authors"), ("forget_nll", "NLL of the author to forget"))
    choosing: ClassVar = "Look for a row inside the band: further down it knows the author, further right it lost more."


# The experiment and its cells.


@dataclass
class Config:
    """Settings of a comparison of letter models."""

    name: str = "letters"
    domain: str = "letters"
    plugins: list[str] = field(default_factory=list)
    seed: int = 0
    seeds: int = 3
    retrains: int = 5
    texts: int = 10
    requests: dict[str, dict[str, str]] = field(default_factory=lambda: {"ada": {"author": "ada"}})
    tuned: dict[str, Any] = field(default_factory=dict)
    methods: dict[str, Settings] = field(default_factory=lambda: {name: {"name": name} for name in METHODS.entries})

    def __post_init__(self) -> None:
        self.plugins = load_files(self.plugins)
        self.methods = {name: METHODS.resolve({"name": name} | tree) for name, tree in self.methods.items()}
        for request, asked in self.requests.items():
            known(asked.get("author", ""), list(AUTHORS), f"requests.{request}.author", "author")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def author(self, request: str) -> int:
        return AUTHORS.index(self.requests[request]["author"])

    def asked(self, request: str, data: Data, seed: int) -> Asked:
        """Fit the original of a seed, and return what a method is given."""
        author = [self.author(request)]
        return Asked(
            fitted(data.seen, seed), data.seen[author], np.delete(data.seen, author, 0), derive_seed(seed, "method")
        )


@dataclass(frozen=True, eq=False)
class World:
    """The experiment, its folder, its data, and the rows and requests to run."""

    config: Config
    folder: Path
    data: Data
    methods: Sequence[str]
    requests: Sequence[str]

    @cached_property
    def seeds(self) -> list[int]:
        return [self.config.seed + k for k in range(self.config.seeds)]

    def cells(self, request: str) -> dict[tuple[str, int], RecordCell]:
        """Return the cells of a request: each method at each seed, and each retrained model, by name and number."""
        named = [(name, seed, self.config.methods[name]) for seed in self.seeds for name in self.methods]
        band = [("retrained", k, RETRAIN) for k in range(self.config.retrains)]
        return {(name, number): self._cell(request, name, number, tree) for name, number, tree in [*band, *named]}

    def _cell(self, request: str, name: str, number: int, method: Mapping[str, Any]) -> RecordCell:
        where = place(self.folder, "records", request, name, str(number), ending=".json")
        facts = {"texts": self.config.texts, "request": self.config.requests[request], "method": method, "n": number}
        seed = derive_seed(self.config.seed, name) + number if name == "retrained" else number
        return RecordCell(f"{request}: {name} {number}", where, facts, partial(self.measured, request, method, seed))

    def measured(self, request: str, method: Mapping[str, Any], seed: int) -> Row:
        """Make the model of a cell and measure it."""
        asked, began = self.config.asked(request, self.data, seed), time.perf_counter()
        model = METHODS.build(method).forget(asked)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "numbers": Likelihood().measure(model, self.data, self.config.author(request))}


class Letters(Domain[Config, World]):
    """Comparisons of ways to make letter models forget an author."""

    name: ClassVar = "letters"
    kind: ClassVar = "letters"
    options: ClassVar = ("only", "requests", "device")
    views: ClassVar = LetterViews()
    fixed: ClassVar = ("seed", "texts")

    def load(self, source: Source, overrides: Sequence[str] = ()) -> Config:
        return structured(Config, read_settings(source, overrides), "")

    def prepare(self, config: Config, place: Place, chosen: Mapping[str, Sequence[str] | None]) -> World:
        methods = picked(config.methods, chosen.get("only"), "--only", "method")
        requests = picked(config.requests, chosen.get("requests"), "--requests", "request")
        return World(config, place.run.path, Data.make(config.texts), list(methods), list(requests))

    def cells(self, world: World) -> Iterator[RecordCell]:
        for request in world.requests:
            yield from world.cells(request).values()

    def report(self, world: World) -> Report:
        whole, rows, missing = replace(world, methods=list(world.config.methods)), [], []
        for request in world.config.requests:
            found = {key: cell.record() for key, cell in whole.cells(request).items()}
            band = [record for (name, _), record in found.items() if name == "retrained" and record]
            for name in world.config.methods:
                records = {seed: record for seed in world.seeds if (record := found[name, seed])}
                missing += left_out_at(records, method=name, request=request)
                measured = {seed: record for seed, record in records.items() if "reason" not in record}
                rows += [_row(world.config, request, name, measured, band)] if measured and band else []
        report = {
            "kind": self.kind,
            "title": world.config.name,
            "data": {"name": "letters", "digest": str(world.config.texts)},
            "seeds": world.seeds,
            "requests": {name: _asked(world.config, asked) for name, asked in world.config.requests.items()},
            "protocol": {"texts": f"{world.config.texts} of each author to learn, and as many held out"}
            | tuning_protocol(world.config.tuned),
            "rows": rows,
            "left_out": missing,
        }
        return judged_report(report, world.config.retrains, WORDS.ladder)

    def tunable(self, config: Config, run: Any, source: Any, device: str) -> Tunable:
        return LetterTuning(config)


def _asked(config: Config, asked: Mapping[str, str]) -> Row:
    return {"text": f"the author {asked['author']}", "goal": "removal", "target": "observed", "n": config.texts}


def _row(config: Config, request: str, name: str, records: Mapping[int, Row], band: Sequence[Row]) -> Row:
    settings = config.methods[name]
    return {
        "method": name,
        "request": request,
        "seconds": fmean(record["seconds"] for record in records.values()),
        "retrain_seconds": fmean(record["seconds"] for record in band),
        "preparation_seconds": 0.0,
        "storage_bytes": 0,
        "settings": {key: value for key, value in settings.items() if key != "name"},
        "card": METHODS.entries[settings["name"]].__doc__,
        **row_numbers(
            {seed: record["numbers"] for seed, record in records.items()},
            [record["numbers"] for record in band],
            Likelihood.numbers,
        ),
    }


class LetterTuning(Tunable):
    """Settings of methods. The texts to forget alone are read, and none that is held out."""

    domain: ClassVar = "letters"
    why: ClassVar = "how far the likelihood of the texts to forget is from a retrained model's, the less the better"
    numbers: ClassVar = {"objective": "lower"}
    budget = "one run of the method"

    def __init__(self, config: Config) -> None:
        self.config, self.data = config, Data.make(config.texts)
        self.request = next(iter(config.requests))

    def settings(self) -> Row:
        return self.config.to_dict()

    def rows(self) -> dict[str, Searched]:
        found = {name: (searched(METHODS.build(tree), tree), tree) for name, tree in self.config.methods.items()}
        return {name: Searched.of(space, tree) for name, (space, tree) in found.items() if space}

    def prepare(self) -> None:
        """Nothing: a model takes no time."""

    def measure(self, row: str, values: Mapping[str, float]) -> dict[str, float]:
        asked = self.config.asked(self.request, self.data, self.config.seed)
        made, right = (METHODS.build(tree).forget(asked) for tree in (self.config.methods[row] | values, RETRAIN))
        return {"objective": abs(nll(made, asked.forget).mean() - nll(right, asked.forget).mean())}

    def chosen(self, row: str, values: Mapping[str, float]) -> Row:
        return {"methods": {row: dict(values)}}


domains.register(Letters())
