"""Settings of recommender experiments, from YAML and ``key.sub=value`` overrides."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from msgm.checks import at_least
from msgm.errors import UserError, known
from msgm.fields import OptionalSettings, Settings, lossless, structured
from msgm.folders import check_name, check_names
from msgm.plugins import load_files
from msgm.recommender.data.base import SOURCES
from msgm.recommender.data.splits import SPLITS
from msgm.recommender.keyed import keyed_requests
from msgm.recommender.methods import METHODS, Method
from msgm.recommender.metrics import METRICS, Metric
from msgm.recommender.models import MODELS
from msgm.recommender.requests import RecommenderRequest
from msgm.settings import INSTEAD, Source, dump_yaml, read_settings
from msgm.study.config import below, built_rows, chosen_metrics, resolved
from msgm.study.judging import CONTROLS

T = TypeVar("T")
E = TypeVar("E", bound="BaseConfig")
BY_IDS = ("users", "items", "interactions", "file")
DRAWN = ("random_users", "most_active", "least_active", "random_interactions", "tag", "spam", "stream")


@dataclass
class RequestSettings(RecommenderRequest):
    """What to forget: by ids, as in ``RecommenderRequest``, or in one of the ways that a comparison draws.

    Example:
        >>> RequestSettings(random_users=5).describe()
        'removal of 5 users drawn at random'

    Attributes:
        random_users: number of users, drawn at random.
        most_active: number of users, those with most training cells; ties are broken at random by the seed.
        least_active: number of users, those with fewest training cells, at least one each; ties likewise.
        random_interactions: share of the training cells, drawn at random; (0, 1).
        tag: all items with this tag.
        spam: number of false profiles that are planted in the training cells, promote an unpopular item, and are
            forgotten.
        stream: number of users, drawn at random; each is one request, answered one after the other.
        models: rows of the config's models to run it on; all when empty.
        methods: rows of the methods to run it with, besides the controls; all when empty.
    """

    random_users: int | None = None
    most_active: int | None = None
    least_active: int | None = None
    random_interactions: float | None = None
    tag: str | None = None
    spam: int | None = None
    stream: int | None = None
    models: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)

    def __post_init__(self, mask: Any, dataset: Any) -> None:
        super().__post_init__(mask, dataset)
        at_least(1, self, "request", "random_users", "most_active", "least_active", "spam", "stream")
        if self.random_interactions is not None and not 0 < self.random_interactions < 1:
            raise UserError(f"request.random_interactions must lie in (0, 1), got {self.random_interactions}.")

    def way(self) -> str:
        """Return the name of the one setting that selects what to forget.

        Raises:
            UserError: none, or several.
        """
        given = [name for name in BY_IDS + DRAWN if getattr(self, name) not in (None, [])]
        if len(given) != 1:
            found = " and ".join(f"request.{name}" for name in given) or "none"
            raise UserError(f"a request needs exactly one of {', '.join(BY_IDS + DRAWN)}; found {found}.")
        return given[0]

    def describe(self) -> str:
        """Return the request as half a sentence, for reports."""
        count = self.spam or self.stream or self.random_users or self.most_active or self.least_active
        many = "" if count == 1 else "s"
        texts = {
            "random_users": f"{count} user{many} drawn at random",
            "most_active": f"the {count} most active user{many}",
            "least_active": f"the {count} least active user{many}",
            "random_interactions": f"{self.random_interactions} of the interactions, drawn at random",
            "tag": f"all items tagged {self.tag}",
            "spam": f"{count} planted profile{many} promoting an item",
            "stream": f"{count} user{many} drawn at random, one request each",
        }
        text = texts.get(self.way())
        return super().describe() if text is None else f"{self.goal} of {text}"


@dataclass
class BaseConfig:
    """Settings that every experiment with recommenders has.

    Example:
        >>> BaseConfig(models={"small": {"name": "als", "factors": 8}}).models["small"]["factors"]
        8

    Attributes:
        name: of the experiment, and of its run folder below ``runs/``.
        seed: the first seed. Data and split have seeds of their own.
        seeds: number of seeds; models are fitted and unlearned with each.
        plugins: Python files to import first; they register data, models, methods and metrics.
        data: the data (``msgm.recommender.data``).
        split: how cells are held out (``msgm.recommender.data.splits``).
        models: settings of the models, by the row's name; the key ``name`` picks the model, by default the row's name.
            A row that is set to null is left out.
    """

    name: str = "recommender"
    seed: int = 0
    seeds: int = 2
    plugins: list[str] = field(default_factory=list)
    data: Settings = field(default_factory=lambda: {"name": "synthetic"})
    split: Settings = field(default_factory=lambda: {"name": "per-user"})
    models: dict[str, OptionalSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least(0, self, "", "seed")
        at_least(1, self, "", "seeds")
        self.plugins = load_files(self.plugins)
        self.data, self.split = SOURCES.resolve(self.data), SPLITS.resolve(self.split)
        check_name(self.name)
        self.models = resolved("models", self.models, MODELS.resolve)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, defaults included, as a plain tree."""
        return dict(lossless(asdict(self)))

    def stored(self, folder: Path) -> dict[str, Any]:
        """Return all settings as the run folder holds them."""
        return self.to_dict()

    def to_yaml(self, folder: Path) -> str:
        """Return all settings, defaults included, as YAML for the run folder."""
        return dump_yaml(self.stored(folder))


@dataclass
class RecommenderConfig(BaseConfig):
    """One comparison of methods. Its first seed also seeds the random requests.

    Example:
        >>> config = RecommenderConfig(models={"ease": {}}, requests={"five": RequestSettings(random_users=5)})
        >>> config.models["ease"]["name"], "retrain" in config.rows()
        ('ease', True)

    Attributes:
        retrains: models fitted anew to what each request leaves, with further seeds; two at least; fewer than
            five give numbers without verdicts.
        methods: settings of the methods, as of the models. All registered methods are rows; one that is set to null is
            left out. A method that is not for a model is left out there.
        requests: what to forget, by name.
        metrics: what to measure; None takes all but the costly ones.
        options: a metric's own settings, by its name.
        tuned: origin of the methods' values that ``msgm tune`` chose; shown in reports.
    """

    retrains: int = 5
    methods: dict[str, OptionalSettings] = field(default_factory=dict)
    requests: dict[str, RequestSettings] = field(default_factory=dict)
    metrics: list[str] | None = None
    options: dict[str, Settings] = field(default_factory=dict)
    tuned: dict[str, Any] = field(default_factory=dict)

    elsewhere: ClassVar[Mapping[str, str]] = INSTEAD

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(2, self, "", "retrains")
        others: dict[str, Any] = {name: {} for name in METHODS.entries if name not in self.methods}
        self.methods = resolved("methods", self.methods | others, METHODS.resolve)
        for name in CONTROLS:
            if self.methods[name] is None:
                raise UserError(f"methods.{name}: a comparison needs this row; it cannot be left out.")
        check_names(self.requests, "requests")
        for name, request in self.requests.items():
            self._check_request(f"requests.{name}", request)
        self.measures()

    def _check_request(self, place: str, request: RequestSettings) -> None:
        below(place, request.way)
        for name in request.models:
            known(name, list(self.models), f"{place}.models", "model")
        for name in request.methods:
            known(name, list(self.methods), f"{place}.methods", "method")

    def stored(self, folder: Path) -> dict[str, Any]:
        """Return all settings as the run folder holds them: keyed digests stand for the ids of requests."""
        return self.to_dict() | {"requests": keyed_requests(self.to_dict()["requests"], folder)}

    def rows(self) -> dict[str, Method]:
        """Return the methods by row name, without those set to null."""
        return built_rows(METHODS, self.methods)

    def measures(self) -> list[Metric]:
        """Return the metrics to measure; errors as of ``chosen_metrics``."""
        return chosen_metrics(METRICS, self.metrics, self.options)


def load_config(source: Source = None, overrides: list[str] | None = None) -> RecommenderConfig:
    """Read the settings of a comparison, as ``load_experiment``.

    Example:
        >>> load_config("recommender/synthetic", ["seeds=3"]).seeds
        3
    """
    return load_experiment(RecommenderConfig, source, overrides)


def load_experiment(cls: type[E], source: Source = None, overrides: list[str] | None = None) -> E:
    """Read a YAML file (its key ``extends`` names another one to start from) and apply ``key.sub=value`` overrides.

    Example:
        >>> load_experiment(BaseConfig, {"models": {"ease": {}}}).models["ease"]["name"]
        'ease'

    Raises:
        UserError: a missing or malformed file, an unknown key, a wrong type, or a value out of range.
    """
    return structured(cls, read_settings(source, overrides or []), "")
