"""Runs of sharded generators: all shards are trained, and then the forget set is deleted from them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from msgm import processes, traces
from msgm.config import Config, TrainingSettings
from msgm.data import Dataset
from msgm.diffusion import ScoreModel
from msgm.fields import structured
from msgm.folders import write_json
from msgm.objectives import Unseen
from msgm.reading import read_json
from msgm.requests import Means
from msgm.runs import Run
from msgm.splits import Part
from msgm.starts import ShardSettings
from msgm.training.shards import FOLDER, Ensemble, Work, deletion_facts
from msgm.training.trainer import Trainer

FIRST = "first.json"


class Deleter(Trainer):
    """Trains a sharded generator on all items, deletes the forget set, and keeps the run as a trainer does.

    A run that was stopped or killed goes on where it was. ``state.seconds`` are those of the deletion.

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
    ) -> None:
        super().__init__(model, Unseen(), dataset, part, settings, seed, run, device, label, means)

        shards = structured(ShardSettings, config.shards, "shards")
        parts = config.network, config.process
        self.ensemble = Ensemble(run, *parts, dataset, shards, settings, seed, device, label)
        self.facts = dict[str, Any]()

    def findings(self) -> dict[str, Any]:
        """Return the numbers of the deletion."""
        return {"deletion": self.facts, "parameters": self.base.parameter_count() * len(self.facts["sizes"])}

    @property
    def drawn(self) -> Mapping[str, int]:
        """How many items the deletion drew, all of them of the retain set."""
        return {"retain": self.facts["steps"] * self.settings.batch_size, "forget": 0}

    def train(self) -> None:
        """Train all shards unless that is done, and then those that held an item to forget, without it.

        Raises:
            UserError: the request leaves no item, and what ``Trainer.train`` raises.
        """
        self.run.create()
        self.ensemble.describe()
        folder, everything = self.run.path / FOLDER, self.part.all
        if not (folder / FIRST).is_file():
            if processes.writes():
                traces.register(self.run.path, folder, "models of shards, trained on all items", "all")
            self.ensemble.bring_up(everything)
            write_json(folder / FIRST, asdict(self.ensemble.work(everything, everything)))
        if self.base.chain is not None:
            self.ensemble.record(self.base.chain)
        self.ensemble.bring_up(self.part.retain)
        self.state.seconds = self.ensemble.work(self.part.retain, self.part.forget).seconds

    def save(self) -> None:
        """Write the mixture of the shards' models."""
        first = Work(**read_json(self.run.path / FOLDER / FIRST, dict[str, Any]))
        self.ensemble.mixture(self.part.retain, self.base.chain).save(self.run.model)
        self.facts = deletion_facts(self.ensemble, self.part.retain, self.part.forget, first)
