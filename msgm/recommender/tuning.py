"""``msgm tune`` for recommenders: settings of methods, judged against models refitted to the retained cells.

Validation cells stand in the test cells' place, which nothing here reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import ClassVar, Literal

from scipy.sparse import csr_array

from msgm.errors import RunError, UserError
from msgm.fields import Tree
from msgm.ranges import searched
from msgm.recommender.config import BaseConfig, RecommenderConfig
from msgm.recommender.data.base import Interactions, Split, load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.methods import METHODS
from msgm.recommender.metrics import METRICS, Case
from msgm.recommender.models.base import Recommender
from msgm.recommender.originals import Originals, retrained
from msgm.recommender.scenario import make_scenario
from msgm.runs import Run
from msgm.seeding import derive_seed
from msgm.study.tuning import Searched, Tunable


@dataclass(frozen=True)
class Pair:
    """One model on one request: the original, its ``Case`` without a target, and the retrained models' numbers."""

    model: str
    request: str
    case: Case
    ndcg: float


def on_validation(config: BaseConfig) -> tuple[Interactions, Split]:
    """Return an experiment's data, and its split with the validation cells in the test cells' place.

    Raises:
        UserError: the split has no validation cell.
    """
    data = load_interactions(config.data)
    split = load_split(config.split, data)
    if not split.validation.nnz:
        raise UserError("split: there is no validation cell to tune on; set split.validation above 0.")
    return data, Split(split.train, csr_array(split.test.shape), split.validation, split.train_times)


class RecommenderTuning(Tunable):
    """Methods of a config over all its models and requests, at the first seed. A stream is answered at once.

    Args:
        config: the experiment.
        run: folder of the search.
    """

    domain = "recommender"
    why: ClassVar[str] = (
        "distance of scores from retrained models (relative L2) + share of their NDCG@10 that is lost, the less the "
        "better: a model that forgot scores as one that never saw the cells, and recommends no worse"
    )
    numbers: ClassVar[Mapping[str, Literal["lower", "higher"]]] = {
        "objective": "lower",
        "score_distance": "lower",
        "ndcg_lost": "lower",
        "ndcg": "higher",
    }
    budget = "the steps that the method's own settings say"

    def __init__(self, config: RecommenderConfig, run: Run) -> None:
        self.config, self.run = config, run
        if not config.requests or not any(config.models.values()):
            raise UserError("tune needs a model and a request; the config lacks one of them.")

    def settings(self) -> Tree:
        return self.config.stored(self.run.path)

    def rows(self) -> dict[str, Searched]:
        found = {}
        for name, settings in self.config.methods.items():
            space = {} if settings is None else searched(METHODS.build(settings), settings)
            if space and self._served(name):
                found[name] = Searched.of(space, settings)
        return found

    def _served(self, method: str) -> list[tuple[str, str]]:
        """Return the models and requests that a method runs on."""
        fitting = METHODS.entries[self.config.methods[method]["name"]].card.models
        return [
            (model, name)
            for name, request in self.config.requests.items()
            for model, settings in self.config.models.items()
            if settings is not None
            and (not fitting or settings["name"] in fitting)
            and (not request.models or model in request.models)
            and (not request.methods or method in request.methods)
        ]

    def prepare(self) -> None:
        print(f"{len(self.pairs)} models and requests, each with {self.config.retrains} refits", flush=True)

    @cached_property
    def data(self) -> tuple[Interactions, Split]:
        """The data, and its split with the validation cells in the test cells' place."""
        return on_validation(self.config)

    @cached_property
    def pairs(self) -> dict[tuple[str, str], Pair]:
        """All models on all requests that a row to tune runs on."""
        wanted = dict.fromkeys(pair for row in self.rows() for pair in self._served(row))
        return {(model, request): self._pair(model, request) for model, request in wanted}

    def _pair(self, model: str, request: str) -> Pair:
        data, split = self.data
        seed = self.config.seed
        scenario = make_scenario(self.config.requests[request], data, split, seed, request)
        original = Originals(self.config.models[model] or {}, scenario.split, [seed]).fitted[0].model
        models = retrained(original, scenario.together, seed, self.config.retrains)
        case = Case(original, original, models, scenario.together, scenario.split, scenario.data)
        return Pair(model, request, case, fmean(_ndcg(replace(case, target=each)) for each in models))

    def measure(self, row: str, values: Mapping[str, float]) -> dict[str, float]:
        method = METHODS.build(self.config.methods[row] | values)
        found = []
        for model, request in self._served(row):
            pair = self.pairs[model, request]
            seed = derive_seed(self.config.seed, "method")
            try:
                made = method.unlearn(pair.case.original, pair.case.deletion, seed).model
            except UserError:
                continue  # the method is not for this kind of request
            except (ArithmeticError, ValueError) as error:
                raise RunError(f"{model}, {request}: {type(error).__name__}: {error}") from error
            found.append(_numbers(pair, made))
        if not found:
            raise RunError("it is for none of the config's models and requests.")
        return {key: fmean(one[key] for one in found) for key in found[0]}

    def chosen(self, row: str, values: Mapping[str, float]) -> Tree:
        return {"methods": {row: self.config.methods[row] | dict(values)}}


def _ndcg(case: Case) -> float:
    found = METRICS.build({"name": "ranking"}).measure(case)["ndcg"]
    return 0.0 if found is None else found


def _numbers(pair: Pair, made: Recommender) -> dict[str, float]:
    case = replace(pair.case, target=made)
    distance = METRICS.build({"name": "distance"}).measure(case)["score_distance"] or 0.0
    ndcg = _ndcg(case)
    lost = max(0.0, 1 - ndcg / pair.ndcg) if pair.ndcg > 0 else 0.0
    return {"objective": distance + lost, "score_distance": distance, "ndcg_lost": lost, "ndcg": ndcg}
