"""Retrained models and the cache: what makes one what it is, and what a run takes over instead of training.

A run that takes a model over gets the checkpoints, and goes on from the last one, at which nothing is left to train. So
its folder is complete by itself: model, chain and digests are written there as after training, under its own key.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from accelerate import Accelerator

from msgm.cache import Cache, Model, name_of
from msgm.cache_keys import FACTS, asked, code, is_known, origin
from msgm.chain import Chain, ranges
from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import PROCESSES
from msgm.diffusion.networks import NETWORKS
from msgm.objectives import OBJECTIVES
from msgm.runs import Manifest, Run
from msgm.splits import Split

PARTS = ("metrics.jsonl", "course", "samples", "checkpoints")
"""What training leaves in a run folder beside the model; the checkpoints come last, for they end the training."""


@dataclass(frozen=True)
class Shared:
    """A retrained model that is in the cache, or will be.

    Attributes:
        cache: where it is shared.
        name: of its entry.
        model: what it is.
        run: the run that needs it.
    """

    cache: Cache
    name: str
    model: Model
    run: Run

    def take(self) -> dict[str, Any]:
        """Take the model over if the cache has it, unless this run has begun to train.

        Returns:
            What to record of it: the facts of its training, and under ``cached`` where it came from; nothing where this
            run trains.
        """
        if self.run.checkpoints.exists():
            return taken_before(self.run.stored_manifest())
        entry = self.cache.take(self.name, self.run.path, PARTS)
        if entry is None:
            return {}
        seconds = entry.model.facts["seconds"]
        print(f"{self.run.path.name}: taken from the cache, where it was trained in {seconds:.0f} s", flush=True)
        return entry.model.facts | {"cached": origin(entry)}

    def keep(self, manifest: dict[str, Any]) -> None:
        """Put the trained model into the cache, with the facts in its ``manifest``."""
        model = replace(self.model, facts={name: manifest[name] for name in FACTS})
        self.cache.keep(self.name, model, self.run.path, PARTS)


def taken_before(manifest: Manifest) -> dict[str, Any]:
    """Return what an unfinished run has recorded of the model that it took over, if it took one."""
    return {name: manifest.get(name) for name in (*FACTS, "cached")} if "cached" in manifest else {}


def is_shared(config: Config) -> bool:
    """Return whether comparisons share the model: it is retrained without the request, by code that the key covers."""
    objective = OBJECTIVES.entries[config.objective["name"]]
    others = NETWORKS.entries[config.network["name"]], PROCESSES.entries[config.process["name"]]
    return objective.data == "retain" and all(map(is_known, (objective, *others)))


def shared(
    cache: Cache, config: Config, dataset: Dataset, split: Split, chain: Chain, accelerator: Accelerator, run: Run
) -> Shared:
    """Return the model that ``run`` retrains with ``accelerator``, as the cache knows it; see ``parts_of``."""
    request = config.request.describe()
    what = f"{config.objective['name']} on {dataset.name}, {config.training.steps} steps, seed {config.seed}"
    model = Model(what, request, dataset.digest(), len(dataset), np.sort(split.train.retain), {})
    where = accelerator.device.type, accelerator.num_processes
    return Shared(cache, name_of(parts_of(config, dataset, split, chain, *where)), model, run)


def parts_of(
    config: Config, dataset: Dataset, split: Split, chain: Chain, device: str, processes: int
) -> dict[str, Any]:
    """Return all that makes a retrained model what it is; how it is sampled and measured is no part of it.

    Args:
        config: the experiment.
        dataset: its data.
        split: its parts: a base model that was trained elsewhere, on some of the items, leaves others to retain.
        chain: the requests before this one, those of a base model that was trained elsewhere among them.
        device: the kind of device, such as ``cpu``.
        processes: how many train together.
    """
    settings = config.to_dict()
    return {
        "data": [dataset.digest(), settings["data"]],
        "items": {kind: ranges(np.sort(getattr(split.train, kind))) for kind in ("retain", "forget", "gone")},
        "request": settings["request"],
        "chain": asked(chain),
        "settings": {name: settings[name] for name in ("process", "network", "objective", "training")},
        "seed": config.seed,
        "device": [device, processes],
        "code": code(config.plugins),
    }
