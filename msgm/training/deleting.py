"""Runs of sharded generators: the forget set is deleted from models of shards, trained here first or in another run."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from msgm import processes, traces
from msgm.config import Config, TrainingSettings
from msgm.data import Dataset
from msgm.diffusion import ScoreModel
from msgm.diffusion.shards import FILE as LISTED
from msgm.errors import UserError
from msgm.fields import structured
from msgm.folders import write_json
from msgm.objectives import Unseen
from msgm.reading import read_json
from msgm.requests import Means
from msgm.runs import Run
from msgm.settings import differences
from msgm.splits import Part
from msgm.starts import ShardSettings
from msgm.training.shards import FOLDER, Ensemble, Work, deletion_facts, described
from msgm.training.trainer import Trainer

FIRST = "first.json"


class Deleter(Trainer):
    """Trains a sharded generator on all items, deletes the forget set, and keeps the run as a trainer does.

    A run that was stopped or killed goes on where it was. ``state.seconds`` are those of the deletion. With a source
    nothing is trained on all items: of its models those are copied that saw no item to forget.

    Args:
        model: of the network and process that every shard's model has; its weights are not read.
        config: the experiment, with its shards.
        dataset: where the items come from.
        part: the training items, retain and forget.
        settings: of the shards' training; the steps are those of all shards together.
        seed: of every random choice.
        run: folder of the run.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        label: name shown meanwhile.
        means: what is to be forgotten of a class-conditional model, see ``ForgetRequest``.
        source: model folder of a sharded generator to delete from, with its shards beside it; None trains one.
    """

    def __init__(
        self,
        model: ScoreModel,
        config: Config,
        dataset: Dataset,
        part: Part,
        settings: TrainingSettings,
        seed: int,
        run: Run,
        device: str = "auto",
        label: str = "sharded",
        means: Means | None = None,
        source: Path | None = None,
    ) -> None:
        super().__init__(model, Unseen(), dataset, part, settings, seed, run, device, label, means)

        shards = structured(ShardSettings, config.shards, "shards")
        parts = config.network, config.process
        self.source = None if source is None else Ensemble.load(Run(source.parent), dataset, device)
        own = Ensemble(run, *parts, dataset, shards, settings, seed, device, label)
        self.ensemble = own if self.source is None else self.source.at(run, label)
        self.facts = dict[str, Any]()

    def findings(self) -> dict[str, Any]:
        """Return the numbers of the deletion."""
        return {"deletion": self.facts, "parameters": self.base.parameter_count() * len(self.facts["sizes"])}

    @property
    def drawn(self) -> Mapping[str, int]:
        """How many items the deletion drew, all of them of the retain set."""
        return {"retain": self.facts["steps"] * self.settings.batch_size, "forget": 0}

    def train(self) -> None:
        """Train or copy all shards unless that is done, and then train those that held an item to forget, without it.

        Raises:
            UserError: the request leaves no item, and what ``Trainer.train`` raises.
        """
        self.run.create()
        self.ensemble.describe()
        folder = self.run.path / FOLDER
        if not (folder / FIRST).is_file():
            if processes.writes():
                traces.register(self.run.path, folder, "models of shards, trained on all items", "all")
            write_json(folder / FIRST, asdict(self._first()))
        if self.base.chain is not None:
            self.ensemble.record(self.base.chain)
        self.ensemble.bring_up(self.part.retain)
        self.state.seconds = self.ensemble.work(self.part.retain, self.part.forget).seconds

    def _first(self) -> Work:
        """Train all shards, or copy those of the source that lose nothing; return what training all of them took."""
        everything = self.part.all
        if self.source is not None:
            self.ensemble.take(self.source, everything, self.part.retain)
            return self.source.work(everything, everything)
        self.ensemble.bring_up(everything)
        return self.ensemble.work(everything, everything)

    def save(self) -> None:
        """Write the mixture of the shards' models."""
        first = Work(**read_json(self.run.path / FOLDER / FIRST, dict[str, Any]))
        self.ensemble.mixture(self.part.retain, self.base.chain).save(self.run.model)
        self.facts = deletion_facts(self.ensemble, self.part.retain, self.part.forget, first)
        if processes.writes():
            print(
                f"{self.label}: deleted {len(self.part.forget)} of {len(self.part.all)} items; trained anew: "
                f"{len(self.facts['hit'])} of {self.facts['shards']} shards, {self.facts['steps']} steps"
            )


def is_sharded(model: Path) -> bool:
    """Return whether a model folder is that of a sharded generator."""
    return (model / LISTED).is_file()


def refuse_shards(config: Config) -> None:
    """Refuse shards, which a row of compare trains on all items before it deletes."""
    if config.shards:
        raise UserError(
            "shards: a sharded generator is a row of compare that has start: shards, or msgm.ShardedModel in Python; "
            "unlearn --from one of these deletes from it."
        )


def deletion_config(config: Config, source: Path, fresh_chain: bool) -> Config:
    """Return the config of a deletion from a sharded generator: all that its models depend on is the generator's own.

    Args:
        config: the experiment, of which data and request are read.
        source: the generator's model folder, with its shards beside it.
        fresh_chain: whether a new history is asked for, which models without the deleted items cannot begin.

    Raises:
        UserError: the config fine-tunes or edits, or has other shards; a new history; or no shards there.
    """
    if fresh_chain:
        raise UserError("--fresh-chain: models of shards hold no item that was deleted from them; leave it out.")
    if config.edit or (config.forgets and not config.shards):
        key = "edit.name" if config.edit else "objective.name"
        raise UserError(
            f"{key}: {source} holds models of shards, which forget by deletion and are not fine-tuned; leave "
            f"{config.method!r} out."
        )
    found = described(Run(source.parent))
    changed = differences(config.shards, found["shards"]) if config.shards else []
    if changed:
        raise UserError(f"shards: {source} is divided otherwise ({'; '.join(changed)}); leave the section out.")
    parts: dict[str, Any] = {"network": found["network"], "process": found["process"], "shards": found["shards"]}
    if differences({"network": config.network, "process": config.process, "shards": found["shards"]}, parts):
        print(f"note: network and process of every shard are those of {source}, not of the config.")
    training = structured(TrainingSettings, found["training"], "training")
    return replace(config, **parts, training=training, objective={"name": "standard"}, finetune={})
