"""``msgm tune`` for the attributes of a recommender's users: settings of erasures, judged by fresh attackers.

Attackers are cross-validated on the users; validation cells stand in the test cells' place, which nothing here reads.
"""

from collections.abc import Mapping
from functools import cached_property
from statistics import fmean
from typing import Any, ClassVar, Literal

from msgm.errors import RunError, UserError
from msgm.fields import Tree
from msgm.ranges import Range, searched
from msgm.recommender.attributes import ERASURES
from msgm.recommender.attributes.obfuscation import Obfuscation
from msgm.recommender.data.base import Interactions, Split
from msgm.recommender.erasure.compare import asked_labels
from msgm.recommender.erasure.config import AttributeConfig
from msgm.recommender.erasure.erasures import OBFUSCATION, build_erasure
from msgm.recommender.metrics import Case
from msgm.recommender.models.base import Recommender
from msgm.recommender.originals import Original, Originals
from msgm.recommender.requests import Deletion
from msgm.recommender.tuning import on_validation
from msgm.runs import Run
from msgm.seeding import derive_seed
from msgm.study.tuning import Searched, Tunable


class AttributeTuning(Tunable):
    """Erasures of a config over all its models and attributes, at the first seed; ``combined`` is not tuned.

    Args:
        config: the experiment.
        run: folder of the search.
    """

    domain = "attributes"
    why: ClassVar[str] = (
        "leak (what the best attacker guesses above chance, as a share of all above chance) + share of NDCG@k that is "
        "lost, the less the better: an erasure must leave attackers guessing, and recommend no worse"
    )
    numbers: ClassVar[Mapping[str, Literal["lower", "higher"]]] = {
        "objective": "lower",
        "leak": "lower",
        "ndcg_lost": "lower",
        "ndcg": "higher",
    }
    budget = "the steps that the erasure's own settings say"

    def __init__(self, config: AttributeConfig, run: Run) -> None:
        self.config, self.run = config, run
        if not any(config.models.values()):
            raise UserError("models: the config names no model, so there is nothing to tune.")

    def settings(self) -> Tree:
        return self.config.stored(self.run.path)

    def rows(self) -> dict[str, Searched]:
        found = {}
        for name, settings in self.config.erasures.items():
            if settings is None or build_erasure(settings).several or not self._fitting(settings):
                continue
            space: dict[str, Range] = searched(_part(settings["name"]), settings)
            if space:
                found[name] = Searched.of(space, settings)
        return found

    def _fitting(self, settings: Mapping[str, Any]) -> list[str]:
        """Return the models that an erasure is for."""
        erasure = build_erasure(settings)
        return [name for name, own in self.config.models.items() if own is not None and erasure.is_for(own["name"])]

    def prepare(self) -> None:
        for name in self.originals:
            print(f"{name}: fitted", flush=True)

    @cached_property
    def data(self) -> tuple[Interactions, Split]:
        """The data, and its split with the validation cells in the test cells' place."""
        return on_validation(self.config)

    @cached_property
    def attributes(self) -> list[str]:
        """The attributes to take out."""
        return [labels.name for labels in asked_labels(self.config, self.data[0])]

    @cached_property
    def originals(self) -> dict[str, Original]:
        """The fitted models, by row."""
        return {
            name: Originals(settings, self.data[1], [self.config.seed]).fitted[0]
            for name, settings in self.config.models.items()
            if settings is not None
        }

    def measure(self, row: str, values: Mapping[str, float]) -> dict[str, float]:
        settings = self.config.erasures[row] | values
        erasure, found = build_erasure(settings), []
        for model in self._fitting(settings):
            for attribute in self.attributes:
                original, column = self.originals[model], {attribute: self.data[0].attributes[attribute]}
                try:
                    made = erasure.erase(original, column, derive_seed(self.config.seed, "erasure")).model
                except (ArithmeticError, ValueError) as error:
                    raise RunError(f"{model}, {attribute}: {type(error).__name__}: {error}") from error
                found.append(self._numbers(made, original.model, attribute))
        return {key: fmean(one[key] for one in found) for key in found[0]}

    def _numbers(self, made: Recommender, original: Recommender, attribute: str) -> dict[str, float]:
        data, split = self.data
        case, before = (Case(model, original, [], Deletion(), split, data) for model in (made, original))
        leaks = []
        for surface in self.config.surfaces:
            told = self.config.attackers(attribute, surface, self.config.seed).measure(case)
            leak, chance = told["attribute_leak"], told["attribute_chance"]
            if leak is not None and chance is not None:
                leaks.append(max(0.0, leak - chance) / (1 - chance))
        ndcg, then = (self.config.ranking().measure(each)["ndcg"] or 0.0 for each in (case, before))
        lost = max(0.0, 1 - ndcg / then) if then > 0 else 0.0
        leak = fmean(leaks) if leaks else 0.0
        return {"objective": leak + lost, "leak": leak, "ndcg_lost": lost, "ndcg": ndcg}

    def chosen(self, row: str, values: Mapping[str, float]) -> Tree:
        return {"erasures": {row: self.config.erasures[row] | dict(values)}}


def _part(name: str) -> Any:
    """Return the dataclass of an erasure's settings; None if there is nothing to search."""
    return Obfuscation if name == OBFUSCATION else ERASURES.entries.get(name)
