"""Settings of classifier experiments, from YAML and ``key.sub=value`` overrides."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from msgm.checks import at_least
from msgm.classifier.data import Shares
from msgm.classifier.methods import METHODS, Method
from msgm.classifier.metrics import METRICS, Metric
from msgm.classifier.networks import CLASSIFIERS
from msgm.classifier.training import TrainingSettings
from msgm.data import DATASETS, Dataset
from msgm.errors import UserError
from msgm.fields import OptionalSettings, Settings, lossless, structured
from msgm.folders import check_name, check_names
from msgm.plugins import load_files
from msgm.requests import ForgetRequest
from msgm.seeding import derive_seed
from msgm.settings import INSTEAD, Source, dump_yaml, read_settings
from msgm.study.config import below, built_rows, chosen_metrics, resolved

T = TypeVar("T")
BEFORE = ("original", "source")
"""Files of the model before unlearning, which lie beside those of the requests and the methods."""
ELSEWHERE = {
    "validation": "shares.tuning",
    "test": "shares.test",
    "split_seed": "seed",
    "flip": "training.augment",
}
"""Settings of data sets that classifiers have in another place."""
GENERATORS = ("repeat", "attributes")
"""Settings of data sets that go by the split of generators, which classifiers do not have."""


@dataclass
class RequestSettings(ForgetRequest):
    """What to forget, as in ``ForgetRequest``, or a number of items at random.

    Example:
        >>> RequestSettings(random=20).selector()
        'random'

    Attributes:
        random: number of training items, drawn at random by the seed.
    """

    selectors: ClassVar[tuple[str, ...]] = (*ForgetRequest.selectors, "random")

    random: int | None = None

    def __post_init__(self, mask: Any, dataset: Any) -> None:
        super().__post_init__(mask, dataset)
        self.check_means(0)

    def chosen(self, dataset: Dataset, train: NDArray[np.int64], seed: int, name: str = "random") -> NDArray[np.bool_]:
        """Return the request's items as an (N,) mask; ``random`` draws from the positions ``train`` by ``seed``.

        Each request name has its own random stream. The name ``random`` keeps the stream that all requests shared in
        the first version, so that existing results stay reproducible.

        Raises:
            UserError: as ``ForgetRequest.select``, or more items at random than there are.
        """
        if self.selector() != "random":
            return dataset.forget_mask(self)
        count = self.random or 0
        if count >= len(train):
            raise UserError(f"request.random: {count} of {len(train)} training items leave none to retain.")
        mask = np.zeros(len(dataset), dtype=bool)
        stream = ("request",) if name == "random" else ("request", name)
        mask[np.random.default_rng(derive_seed(seed, *stream)).choice(train, count, replace=False)] = True
        return mask

    def describe(self) -> str:
        """Return the request as half a sentence, for reports."""
        if self.selector() != "random":
            return super().describe()
        return f"{self.goal} of {self.random} training items drawn at random ({self.target})"


@dataclass
class OriginalSettings:
    """A model that was trained elsewhere, to make forget in place of one that is trained here.

    Example:
        >>> config = load_config("classifier/digits", ["original.weights=mine.safetensors"])
        >>> config.original
        OriginalSettings(weights='mine.safetensors', trained_on=None)

    Attributes:
        weights: file of weights of the config's network (.safetensors, or what ``torch.save`` wrote of a state dict);
            None trains the original.
        trained_on: file with the items that it was trained on, one position or file name a line; all others are held
            out. None: the config's own training part.
    """

    weights: str | None = None
    trained_on: str | None = None

    def __post_init__(self) -> None:
        if self.trained_on is not None and self.weights is None:
            raise UserError("original.trained_on says what a model was trained on; name it in original.weights.")


@dataclass
class ClassifierConfig:
    """One experiment.

    Example:
        >>> config = load_config("classifier/digits", ["seeds=2"])
        >>> config.seeds, config.network["name"]
        (2, 'mlp')

    Attributes:
        name: of the experiment, and of its run folder below ``runs/``.
        seed: the first seed; a seed makes the models and all draws.
        split_seed: of the data split and of items drawn to be forgotten, the same for all seeds; None: the first seed.
        seeds: how many seeds a comparison takes.
        retrains: retrained models a request, in all, which make the band; of fewer than five, numbers have no verdicts.
        plugins: Python files to import first; they register data sets, networks, methods and metrics.
        data: the data set (``msgm.data``).
        shares: shares of the items that are held out.
        network: the network (``msgm.classifier.networks``).
        training: how the original and the retrained models are trained.
        original: a model that was trained elsewhere, in place of the original.
        requests: what to forget, by name.
        methods: settings of the methods, by the row's name; the key ``name`` picks the method, by default the row's
            name. All registered methods are rows; one that is set to null is left out.
        metrics: what to measure; None takes all but the costly ones.
        options: a metric's own settings, by its name.
        tuned: origin of the methods' values that ``msgm tune`` chose; shown in reports.
    """

    name: str = "classifier"
    seed: int = 0
    split_seed: int | None = None
    seeds: int = 3
    retrains: int = 5
    plugins: list[str] = field(default_factory=list)
    data: Settings = field(default_factory=lambda: {"name": "digits"})
    shares: Shares = field(default_factory=Shares)
    network: Settings = field(default_factory=lambda: {"name": "mlp"})
    training: TrainingSettings = field(default_factory=TrainingSettings)
    original: OriginalSettings = field(default_factory=OriginalSettings)
    requests: dict[str, RequestSettings] = field(default_factory=dict)
    methods: dict[str, OptionalSettings] = field(default_factory=dict)
    metrics: list[str] | None = None
    options: dict[str, Settings] = field(default_factory=dict)
    tuned: dict[str, Any] = field(default_factory=dict)

    elsewhere: ClassVar[Mapping[str, str]] = INSTEAD

    def __post_init__(self) -> None:
        at_least(0, self, "", "seed", "split_seed")
        at_least(1, self, "", "seeds", "retrains")
        self.plugins = load_files(self.plugins)
        self.data = _data(self.data)
        self.network = CLASSIFIERS.resolve(self.network)
        check_name(self.name)
        check_names(self.requests, "requests", BEFORE)
        others: dict[str, Any] = {name: {} for name in METHODS.entries if name not in self.methods}
        self.methods = resolved("methods", self.methods | others, METHODS.resolve, BEFORE)
        for name, request in self.requests.items():
            at_least(1, request, f"requests.{name}", "random")
            below(f"requests.{name}", request.selector)
            below(f"requests.{name}", request.refuse_handed)
        self.measures()

    def rows(self) -> dict[str, Method]:
        """Return the methods by row name, without those set to null."""
        return built_rows(METHODS, self.methods)

    def measures(self) -> list[Metric]:
        """Return the metrics to measure; errors as of ``chosen_metrics``."""
        return chosen_metrics(METRICS, self.metrics, self.options)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, defaults included, as a plain tree."""
        return dict(lossless(asdict(self)))

    def to_yaml(self) -> str:
        """Return all settings, defaults included, as YAML that ``load_config`` reads back."""
        return dump_yaml(self.to_dict())


def _data(given: dict[str, Any]) -> dict[str, Any]:
    """Return the data's settings with defaults, without those that only generative runs read."""
    for key, instead in ELSEWHERE.items():
        if key in given:
            raise UserError(f"data.{key} means nothing to a classifier; set {instead} instead.")
    for key in GENERATORS:
        if given.get(key):
            raise UserError(
                f"data.{key} is read by generators alone, whose split says what is trained on; leave it out."
            )
    return {key: value for key, value in DATASETS.resolve(given).items() if key not in ELSEWHERE}


def load_config(source: Source = None, overrides: list[str] | None = None) -> ClassifierConfig:
    """Read a YAML file (its key ``extends`` names another one to start from) and apply ``key.sub=value`` overrides.

    Example:
        >>> load_config("classifier/digits", ["methods.scrub.alpha=2"]).methods["scrub"]["alpha"]
        2.0

    Raises:
        UserError: a missing or malformed file, an unknown key, a wrong type, or a value out of range.
    """
    return structured(ClassifierConfig, read_settings(source, overrides or []), "")
