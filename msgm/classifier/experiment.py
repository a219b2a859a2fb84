"""One seed of an experiment: its data split, its original model, its retrained models, and where they are kept.

A model that is on disk and was made with the same settings is read, not made again: beside each lies ``made.json``, the
settings that it depends on.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from msgm import __version__
from msgm.cache import Cache
from msgm.cache_keys import origin
from msgm.chain import Chain, Entry, gone_before
from msgm.classifier import networks
from msgm.classifier.config import ClassifierConfig
from msgm.classifier.data import Examples, Split, held_out, split_by
from msgm.classifier.foreign import parts_around, trained_on
from msgm.classifier.methods import METHODS, Settings
from msgm.classifier.shared import shared
from msgm.classifier.store import NETWORK, filled, load_classifier, save_classifier
from msgm.classifier.training import check_outputs, fit
from msgm.data import Dataset
from msgm.digests import file_digest, folder_key, positions_digest, unkeyed_digest
from msgm.evaluation.vision.weights import read_state
from msgm.folders import write_json
from msgm.reading import read_json
from msgm.seeding import derive_seed
from msgm.shapes import Seconds
from msgm.study.config import below
from msgm.study.records import Record
from msgm.traces import seal

Facts = dict[str, Any]
MADE = "made.json"


class Made(TypedDict):
    """Contents of ``made.json``; ``cached`` is the cache entry of a model that was not trained here."""

    made: Facts
    seconds: Seconds
    cached: NotRequired[dict[str, str]]


@dataclass(frozen=True, eq=False)
class Experiment:
    """An experiment at one seed.

    Attributes:
        config: the experiment.
        dataset: its data.
        seed: of the original and all draws.
        device: where to compute.
        folder: the run folder, whose key is used for digests of items; None for an experiment that writes nothing.
        chain: earlier forget requests of the given model.
        first: the experiment's first seed, which makes the data split where the config gives it no seed of its own; by
            default ``seed``.
        cache: of retrained models; None trains them all.
    """

    config: ClassifierConfig
    dataset: Dataset
    seed: int
    device: torch.device
    folder: Path | None = None
    chain: Chain = field(default_factory=Chain)
    first: int | None = None
    cache: Cache | None = None

    @property
    def split_seed(self) -> int:
        """The seed of the data split and of drawn requests, the same for all seeds of an experiment."""
        given = (self.config.split_seed, self.first, self.seed)
        return next(seed for seed in given if seed is not None)

    @cached_property
    def parts(self) -> dict[str, NDArray[np.int64]]:
        """Positions of train, tuning, nonmembers and test."""
        given = self.config.original.trained_on
        if given is None:
            return held_out(self.dataset, self.config.shares, self.split_seed)
        return parts_around(trained_on(Path(given), self.dataset), self.config.shares, self.split_seed)

    def split(self, request: str) -> Split:
        """Return the split that a request of the config makes.

        Raises:
            UserError: the request selects nothing, everything, or leaves fewer than two classes.
        """
        return below(f"requests.{request}", lambda: self._split(self.selected(request)))

    def _split(self, mask: NDArray[np.bool_]) -> Split:
        return split_by(self.dataset, self.parts, mask, gone_before(mask, self.chain.requests))

    def selected(self, request: str) -> NDArray[np.bool_]:
        """Return an (N,) mask of all items that a request selects, held-out ones as well."""
        gone = self.chain.gone(len(self.dataset))
        train = self.parts["train"][~gone[self.parts["train"]]]
        return self.config.requests[request].chosen(self.dataset, train, self.split_seed, request)

    @property
    def split_facts(self) -> dict[str, float | int]:
        """The settings that decide which items are held out."""
        keys = ["tuning", "nonmembers", "train", *(["test"] if self.dataset.test is None else [])]
        return {"seed": self.split_seed} | {f"shares.{key}": getattr(self.config.shares, key) for key in keys}

    def answered(self, request: str, by: str, folder: Path) -> Chain:
        """Return the chain extended by one answered request; creates the key of the run ``folder``."""
        entry = Entry.of(self.config.requests[request], self.selected(request), by)
        return self.chain.extended(entry, self.dataset, self.split_facts, folder_key(folder))

    def build(self, seed: int) -> nn.Module:
        """Return the network with fresh weights of a seed."""
        settings = networks.CLASSIFIERS.build(self.config.network)
        return networks.build(settings, self.dataset.shape, len(self.dataset.classes), seed)

    def settings(self, *stream: int | str) -> Settings:
        """Return the run context of a method; its seed is derived from the named stream."""
        seed = derive_seed(self.seed, *stream)
        return Settings(self.config.training, seed, self.device, self.build, self.seed)

    @cached_property
    def facts(self) -> Facts:
        """The facts that determine the original model."""
        files = asdict(self.config.original)
        given = {f"original.{key}": file_digest(Path(path)) for key, path in files.items() if path is not None}
        split = {"split_seed": self.split_seed} if self.split_seed != self.seed else {}
        return (
            {
                "msgm": __version__,
                "data": self.dataset.digest(),
                "shares": asdict(self.config.shares),
                "network": self.config.network,
                "training": asdict(self.config.training),
                "seed": self.seed,
            }
            | split
            | given
        )

    def retrain_facts(self, split: Split, number: int) -> Facts:
        """Return the facts that determine retrained model ``number``."""
        return self.facts | {"forget": self.digest(split), "retrain": number}

    def original(self, folder: Path) -> nn.Module:
        """Return the model trained on all training items, from ``folder`` if it is there."""
        model = self._kept(folder, self.facts)
        if model is None:
            start = time.perf_counter()
            model = self._trained() if self.config.original.weights is None else self.given()
            seconds = time.perf_counter() - start if self.config.original.weights is None else 0.0
            self.keep(model, folder, self.facts, seconds, self.chain.over(self.dataset, self.split_facts, None))
        return model

    def _trained(self) -> nn.Module:
        examples = Examples.of(self.dataset, self.parts["train"])
        return fit(self.build(self.seed), examples, self.config.training, self.seed, self.device)

    def given(self) -> nn.Module:
        """Return the model that was trained elsewhere.

        Raises:
            UserError: its file cannot be read, or holds weights of another network.
        """
        path = Path(str(self.config.original.weights))
        model = filled(self.build(self.seed), read_state(path, "original.weights"), path.name)
        return model.to(self.device)

    def retrain(self, folder: Path, request: str, number: int) -> nn.Module:
        """Return retrained model ``number`` of a request's band, from ``folder`` or from the cache if it is there."""
        split = self.split(request)
        model = self._kept(folder, self.retrain_facts(split, number))
        return self._retrained(folder, split, request, number) if model is None else model

    def _retrained(self, folder: Path, split: Split, request: str, number: int) -> nn.Module:
        """Take a model over from the cache, else train it and put it there; it is written into ``folder``."""
        model, known = self.build(self.seed), shared(self, split, request, number)
        for name in (MADE, NETWORK):  # those of other settings: nothing may vouch for weights that are taken over
            (folder / name).unlink(missing_ok=True)
        entry = None if known is None else known.take(folder, model)
        if entry is None:
            made = METHODS.build({"name": "retrain"}).unlearn(model, split, self.settings("band", number))
            model, seconds = made.model, made.cost.seconds
        else:
            seconds = entry.model.facts["seconds"]
        facts, chain = (
            self.retrain_facts(split, number),
            self.answered(request, "retrain", self.folder or folder.parent),
        )
        self.keep(model.to(self.device), folder, facts, seconds, chain, None if entry is None else origin(entry))
        if known is not None and entry is None:
            known.keep(folder, seconds)
        return model

    def digest(self, split: Split) -> str:
        """Return the digest of the items to forget under the folder's key."""
        if self.folder is None:
            raise ValueError("an experiment without a folder has no key to make digests with")
        return positions_digest(self.folder, split.forget.indices)

    def check(self) -> None:
        """Refuse requests and a network that do not fit the data, before anything is trained."""
        examples = Examples.of(self.dataset, self.parts["train"])
        check_outputs(self.build(self.seed), examples)
        for request in self.config.requests:
            self.split(request)

    def keep(
        self,
        model: nn.Module,
        folder: Path,
        facts: Facts,
        seconds: float,
        chain: Chain,
        cached: dict[str, str] | None = None,
    ) -> None:
        """Write a model and the settings it depends on; settings are written last and so mark the model as complete."""
        (folder / MADE).unlink(missing_ok=True)
        save_classifier(model, folder, self.config.network, self.dataset.shape, len(self.dataset.classes), chain)
        write_json(folder / MADE, {"made": facts, "seconds": seconds} | ({"cached": cached} if cached else {}))
        if self.folder is not None:
            seal(self.folder, folder)

    def _kept(self, folder: Path, facts: Facts) -> nn.Module | None:
        return load_classifier(folder, self.config.network).to(self.device) if has(folder, facts) else None


def is_kept(folder: Path) -> bool:
    """Return whether a folder holds a model with the settings that it was made with."""
    return (folder / MADE).is_file()


def has(folder: Path, facts: Facts) -> bool:
    """Return whether a folder holds a model that was made with ``facts``."""
    return is_kept(folder) and _made(folder)["made"] == facts


def seconds_of(folder: Path) -> float:
    """Return the seconds that the training of a stored model took."""
    return _made(folder)["seconds"]


def cached_of(folder: Path) -> dict[str, str] | None:
    """Return where a kept model was taken from, and when it was trained; None where it was trained here."""
    return _made(folder).get("cached")


def _made(folder: Path) -> Made:
    made: Made = read_json(folder / MADE, Made)
    return made


def rekey(folder: Path, experiments: Sequence[Experiment]) -> None:
    """Write keyed digests of items in place of those without a key that the first version of msgm left in a folder."""
    splits = [(experiment, experiment.split(name)) for experiment in experiments for name in experiment.config.requests]
    keyed = {unkeyed_digest(split.forget.indices): experiment.digest(split) for experiment, split in splits}
    for path in (*folder.glob("records/**/*.json"), *folder.glob(f"models/**/{MADE}")):
        tree = read_json(path, Record)
        found = keyed.get(tree["made"].get("forget"))
        if found is not None:
            write_json(path, tree | {"made": tree["made"] | {"forget": found}})
