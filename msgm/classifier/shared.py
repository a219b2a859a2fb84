"""Retrained classifiers in the cache (``msgm.cache``): the facts that identify one, and reading and writing it.

Only the weights are shared. A run that takes them over writes them as after training, with a chain and digests under
its own key, so that its folder is complete by itself.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from msgm.cache import Cache, Cached, Model, name_of
from msgm.cache_keys import FACTS, asked, code, is_known
from msgm.chain import ranges
from msgm.classifier.data import Split
from msgm.classifier.networks import CLASSIFIERS
from msgm.classifier.store import WEIGHTS
from msgm.reading import read_tensors
from msgm.runs import environment

if TYPE_CHECKING:
    from msgm.classifier.experiment import Experiment


@dataclass(frozen=True)
class Shared:
    """The cache entry of a retrained model, whether it exists yet or not.

    Attributes:
        cache: the cache.
        name: of its entry.
        model: the facts that identify it.
    """

    cache: Cache
    name: str
    model: Model

    def take(self, folder: Path, fresh: nn.Module) -> Cached | None:
        """Copy the cached weights to ``folder`` and load them into ``fresh``; return the entry, or None if none."""
        entry = self.cache.take(self.name, folder, [WEIGHTS])
        if entry is not None:
            fresh.load_state_dict(read_tensors(folder / WEIGHTS, fresh.state_dict()))
            fresh.eval()
        return entry

    def keep(self, folder: Path, seconds: float) -> None:
        """Put the model that was trained in ``seconds`` and lies in ``folder`` into the cache."""
        known = environment() | {"device": self.model.facts["device"], "seconds": seconds}
        model = replace(self.model, facts={name: known[name] for name in FACTS})
        self.cache.keep(self.name, model, folder, [WEIGHTS])


def shared(experiment: "Experiment", split: Split, request: str, number: int) -> Shared | None:
    """Return the cache entry of retrained model ``number`` of a request; None if such a model is not shared.

    Only models of code that the key covers are shared: a network's class in a notebook may change under its name.
    """
    config, cache = experiment.config, experiment.cache
    if cache is None or not all(is_known(CLASSIFIERS.entries[each["name"]]) for each in _networks(config.network)):
        return None
    dataset, text = experiment.dataset, config.requests[request].describe()
    what = f"{config.network['name']} on {dataset.name}, {config.training.epochs} epochs, seed {experiment.seed}"
    facts = {"device": str(experiment.device)}
    seen = np.sort(split.retain.indices)
    model = Model(f"{what}, model {number}", text, dataset.digest(), len(dataset), seen, facts)
    return Shared(cache, name_of(parts_of(experiment, split, request, number)), model)


def parts_of(experiment: "Experiment", split: Split, request: str, number: int) -> dict[str, Any]:
    """Return all facts that determine the weights of a retrained model; how it is measured is not among them.

    Args:
        experiment: at the seed of the retrained models, with the chain of the requests before.
        split: what the request makes of the data.
        request: its name.
        number: of the model, from 1.
    """
    config = experiment.config
    items = {"retain": split.retain, "forget": split.forget} | ({} if split.gone is None else {"gone": split.gone})
    functions = [each["function"].rpartition(":")[0] for each in _networks(config.network) if "function" in each]
    return {
        "kind": "classifier",
        "data": [experiment.dataset.digest(), config.data],
        "items": {part: ranges(np.sort(examples.indices)) for part, examples in items.items()},
        "request": asdict(config.requests[request]),
        "chain": asked(experiment.chain),
        "split": experiment.split_facts,
        "settings": {"network": config.network, "training": asdict(config.training)},
        "seed": [experiment.seed, number],
        "device": experiment.device.type,
        "code": code([*config.plugins, *functions]),
    }


def _networks(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the settings of a network, and of those that it is built around."""
    yield settings
    if "network" in settings:
        yield from _networks(settings["network"])
