"""``msgm classifier compare``: every method on every request at every seed, against a band of retrained models.

A run folder holds ``models/`` (originals and retrained models), ``outputs/`` (logits of every model, which
``msgm classifier audit`` reads), ``records/`` (numbers and costs) and the report; ``shadows/`` as well, if a metric is
asked for that trains models of its own. What is there and was made with the same settings is kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

from msgm.cache import Cache
from msgm.chain import Chain, read_chain
from msgm.classifier.assemble import make_report
from msgm.classifier.cells import Reference, World, cells, model_cells
from msgm.classifier.config import ClassifierConfig, OriginalSettings, load_config
from msgm.classifier.experiment import Experiment, rekey
from msgm.classifier.report import VIEWS
from msgm.classifier.store import NETWORK
from msgm.data import load_dataset
from msgm.devices import chosen_device
from msgm.errors import UserError
from msgm.folders import write_json
from msgm.runs import Run
from msgm.settings import Source
from msgm.study.cells import Cell
from msgm.study.engine import Chosen, Domain, Place, picked
from msgm.study.judging import Report
from msgm.study.tuning import Tunable

FIXED = ("data", "shares", "network", "training", "original", "seed", "split_seed")
"""Settings that all of a run folder shares; requests, methods, metrics, seeds and retrained models may be added."""


class Classifiers(Domain[ClassifierConfig, World]):
    """Comparisons of ways to make classifiers forget."""

    name: ClassVar = "classifier"
    kind: ClassVar = "classifier"
    options: ClassVar = ("only", "requests", "source", "trained_on", "device", "metrics", "cache")
    verbs: ClassVar = {
        "train": ("device",),
        "unlearn": ("method", "request", "trained_on", "device", "fresh_chain", "seed"),
        "tune": ("source", "device"),
    }
    views: ClassVar = VIEWS
    fixed: ClassVar = FIXED

    def load(self, source: Source, overrides: Sequence[str] = ()) -> ClassifierConfig:
        return load_config(source, list(overrides))

    def train(self, config: ClassifierConfig, out: Path | str | None = None, **options: Any) -> Run:
        from msgm.classifier.single import train

        return train(config, out, **options)

    def unlearn(
        self,
        config: ClassifierConfig,
        source: Path | str,
        out: Path | str | None = None,
        method: str | None = None,
        **options: Any,
    ) -> Run:
        if method is None:
            raise UserError(f"unlearn: method: say which; the config has {', '.join(config.rows())}.")
        from msgm.classifier.single import unlearn

        return unlearn(config, source, method, out=out, **options)

    def compare(
        self,
        config: ClassifierConfig,
        out: Path | str | None = None,
        device: str = "auto",
        source: Path | str | None = None,
        trained_on: Path | str | None = None,
        **chosen: Any,
    ) -> Run:
        return super().compare(from_file(config, source, trained_on), out, device, **chosen)

    def tunable(self, config: ClassifierConfig, run: Run, source: Path | str | None, device: str) -> Tunable:
        from msgm.classifier.tuning import ClassifierTuning

        return ClassifierTuning(config, run, source, device)

    def prepare(self, config: ClassifierConfig, place: Place, chosen: Chosen) -> World:
        methods = picked(config.rows(), chosen.get("only"), "--only", "method")
        requests = list(picked(config.requests, chosen.get("requests"), "--requests", "request"))
        dataset, device = load_dataset(config.data), chosen_device(place.device)
        chain = Chain() if config.original.weights is None else Chain(unknown=note_of_file(config))
        cache = Cache.of_user() if chosen.get("cache", True) else None
        given = (device, place.run.path, chain, config.seed, cache)
        experiments = [Experiment(config, dataset, config.seed + k, *given) for k in range(config.seeds)]
        for experiment in experiments:
            experiment.check()
        return World(config, place.run, experiments, methods, requests)

    def begin(self, world: World) -> None:
        digest = {"data_digest": world.experiments[0].dataset.digest()}
        write_json(world.run.manifest, world.run.stored_manifest() | digest)
        rekey(world.run.path, world.experiments)

    def cells(self, world: World) -> Iterator[Cell]:
        yield from model_cells(world)
        for number in range(len(world.experiments)):
            for request in world.requests:
                yield from cells(Reference(world, number, request))

    def report(self, world: World) -> Report:
        return make_report(world.config, world.run, world.experiments)

    def before(self, stored: dict[str, Any]) -> dict[str, Any]:
        # Version 0.1 had no ``original``, 0.2 no ``split_seed``.
        return {"original": asdict(OriginalSettings()), "split_seed": None} | stored


CLASSIFIERS = Classifiers()


def from_file(config: ClassifierConfig, source: Path | str | None, trained_on: Path | str | None) -> ClassifierConfig:
    """Return the config, with ``source`` as its original if that is a file of weights.

    Raises:
        UserError: ``trained_on`` without such a file, a source that does not exist, or a file in a model folder whose
            chain has earlier forget requests.
    """
    if source is not None and Path(source).is_file():
        owner = next((folder for folder in Path(source).parents[:2] if (folder / NETWORK).is_file()), None)
        chain = None if owner is None else read_chain(owner)
        if owner is not None and chain is not None and (chain.requests or chain.unknown):
            raise UserError(
                f"--from: {source} is part of a model that msgm wrote, and says nothing of what that was asked to "
                f"forget; give its run, {owner.parent}."
            )
        named = config.original.trained_on if trained_on is None else str(trained_on)
        return replace(config, original=OriginalSettings(str(source), named))
    if trained_on is not None:
        raise UserError(f"--trained-on belongs to a file of weights, which --from {source} is not.")
    return config


def note_of_file(config: ClassifierConfig) -> str:
    """Print what is unknown about a model from a file of weights; return the part on its earlier forget requests."""
    reason = f"{config.original.weights} is a file of weights: what its model was asked to forget before is not known"
    held = f"the config's training part with seed {config.seed}"
    if config.original.trained_on is not None:
        held = f"what {config.original.trained_on} names and on nothing else"
    parts = "what is held out here (test, nonmembers, tuning)"
    print(f"{reason}; {parts} is unseen only if the model was trained on {held}.", flush=True)
    return reason
