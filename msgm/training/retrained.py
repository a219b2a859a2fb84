"""Retrained generators in the cache: the facts that identify one, and reusing one instead of training.

A run that reuses a model copies its checkpoints and resumes from the last one, where no steps are left. So its folder
is complete by itself: model, chain and digests are written there as after training, under its own key.
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
    """The cache entry of a retrained model, whether it exists yet or not.

    Attributes:
        cache: the cache.
        name: of its entry.
        model: the facts that identify it.
        run: the run that needs it.
    """

    cache: Cache
    name: str
    model: Model
    run: Run

    def take(self) -> dict[str, Any]:
        """Reuse the model from the cache if it is there, unless this run has begun to train.

        Returns:
            Manifest entries: the facts of its training, and its origin under ``cached``; empty if this run trains.
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
    """Return the record of an unfinished run on the cached model that it reuses, if it does."""
    return {name: manifest.get(name) for name in (*FACTS, "cached")} if "cached" in manifest else {}


def is_shared(config: Config) -> bool:
    """Return whether comparisons share the model: it is retrained without the request, by code that the key covers."""
    objective = OBJECTIVES.entries[config.objective["name"]]
    others = NETWORKS.entries[config.network["name"]], PROCESSES.entries[config.process["name"]]
    return objective.data == "retain" and all(map(is_known, (objective, *others)))


def shared(
    cache: Cache, config: Config, dataset: Dataset, split: Split, chain: Chain, accelerator: Accelerator, run: Run
) -> Shared:
    """Return the cache entry of the model that ``run`` retrains with ``accelerator``; see ``parts_of``."""
    request = config.request.describe()
    what = f"{config.objective['name']} on {dataset.name}, {config.training.steps} steps, seed {config.seed}"
    model = Model(what, request, dataset.digest(), len(dataset), np.sort(split.train.retain), {})
    where = accelerator.device.type, accelerator.num_processes
    return Shared(cache, name_of(parts_of(config, dataset, split, chain, *where)), model, run)


def parts_of(
    config: Config, dataset: Dataset, split: Split, chain: Chain, device: str, processes: int
) -> dict[str, Any]:
    """Return all facts that determine the weights of a retrained model; sampling and measuring are not among them.

    Args:
        config: the experiment.
        dataset: its data.
        split: its parts; they differ for a base model that was trained elsewhere, on only some of the items.
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
