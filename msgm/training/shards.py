r"""Sharded generators: K models trained apart on disjoint shards of the items, and exact deletion.

To delete items, the shards that hold one are trained again from their random weights without them; the others never
saw them and stay. The result is, bit for bit on a CPU, the ensemble that never had the items, because nothing of a
shard depends on what other items there are:

- An item's shard is a hash of its content and the ensemble's seed. So no item moves when another one goes, and equal
  items lie in one shard.
- First weights, order, times and noise are drawn from the seed and the shard's number; the order is a permutation of
  the shard's own items.
- Every shard makes ``training.steps`` / K steps, rounded up, however many items it holds: all shards together make as
  many as one model, and deletion leaves the number as it is.
- The mixture's weights are the shards' shares of the items, counted anew; there is no router, and nothing is shared.

Expected cost. Of m items, drawn at random or by what does not know the hash (as a class), K (1 - (1 - 1/K)^m) shards
hold one. Retraining them makes a share 1 - (1 - 1/K)^m of the steps of retraining: 20% for one item of five shards, 67%
for five items, and all of it for a class. Storage is that of K models.

A folder ``shards/`` holds each shard's model under a name that vouches for its items, ``ensemble.json`` with all that
the models depend on, and ``chain.json`` with the requests, those that are being answered among them. A call that was
killed in the midst takes up what is whole and resumes what is not. A deletion into another run's folder (``msgm unlearn
--from``) copies the models of the shards that lose nothing, and no other.
"""

import math
import shutil
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from msgm import processes
from msgm.chain import FILE as CHAIN
from msgm.chain import Chain
from msgm.config import TrainingSettings
from msgm.data import Dataset
from msgm.diffusion import ScoreModel, Sharded
from msgm.digests import positions_digest
from msgm.errors import UserError
from msgm.fields import structured
from msgm.folders import whole_folder, write_json
from msgm.objectives import Standard
from msgm.reading import read_json
from msgm.runs import Run
from msgm.seeding import derive_seed
from msgm.settings import differences
from msgm.shapes import Count, Positive, Seconds
from msgm.splits import Part
from msgm.starts import ShardSettings
from msgm.training.prompts import prompted
from msgm.training.trainer import Trainer

FOLDER, RECORD, FILE = "shards", "trained.json", "ensemble.json"
FORMAT = 1
Positions = NDArray[np.int64]


class Trained(TypedDict):
    """Contents of ``trained.json`` in the folder of a shard whose training has ended."""

    items: Count
    steps: Count
    seconds: Seconds


class Described(TypedDict):
    """Contents of ``ensemble.json``: what the models depend on, but for the items."""

    format: Positive
    network: dict[str, Any]
    process: dict[str, Any]
    shards: dict[str, Any]
    training: dict[str, Any]
    seed: Count


@dataclass(frozen=True)
class Work:
    """Work done by a training or a deletion; several calls that one was broken off into count as one.

    Example:
        >>> from msgm.training.shards import Work
        >>> Work(items=1, shards=[3], steps=300, seconds=2.5).shards
        [3]

    Attributes:
        items: that were deleted.
        shards: that were trained (again).
        steps: that they made, those without items none.
        seconds: of their training.
    """

    items: int
    shards: list[int]
    steps: int
    seconds: float


def shards_of(dataset: Dataset, count: int, seed: int) -> Positions:
    """Return the shard of each of the (n,) items, from 0: a hash of its content and of the seed.

    Example:
        >>> from msgm.training.shards import shards_of
        >>> shards_of(msgm.load_dataset("digits"), count=5, seed=0)[:4].tolist()
        [3, 2, 4, 2]
    """
    return np.array([derive_seed(seed, "shard", item.hex()) % count for item in dataset.item_digests()], dtype=np.int64)


def expected_hit(items: int, count: int) -> float:
    """Return how many of ``count`` shards hold one of so many items, on average.

    Example:
        >>> from msgm.training.shards import expected_hit
        >>> expected_hit(1, 5), round(expected_hit(5, 5), 4)
        (1.0, 3.3616)
    """
    return count * -math.expm1(items * math.log1p(-1 / count)) if count > 1 else float(min(items, 1))


class Ensemble:
    """Trains the shards of a run, or those of them whose items are not those of their models.

    Args:
        run: the folder, with ``shards/`` and, when all are trained, ``model/``.
        network: of every shard's model, by name and settings.
        process: likewise.
        dataset: where the items come from.
        shards: how many, and how they are mixed.
        settings: of every shard's training; the steps are those of all shards together.
        seed: of the shards, first weights and orders.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        label: name shown while training.
    """

    def __init__(
        self,
        run: Run,
        network: dict[str, Any],
        process: dict[str, Any],
        dataset: Dataset,
        shards: ShardSettings,
        settings: TrainingSettings,
        seed: int,
        device: str = "auto",
        label: str = "shards",
    ) -> None:
        self.run, self.network, self.process, self.dataset, self.shards = run, network, process, dataset, shards
        self.steps = -(-settings.steps // shards.count)
        self.settings = settings
        self.seed, self.device, self.label = seed, device, label

    @classmethod
    def load(cls, run: Run, dataset: Dataset, device: str = "auto") -> "Ensemble":
        """Return the ensemble of a run's folder.

        Raises:
            UserError: there is none, or its description is damaged or of a newer version.
        """
        found = described(run)
        shards = structured(ShardSettings, found["shards"], "shards")
        training = structured(TrainingSettings, found["training"], "training")
        return cls(run, found["network"], found["process"], dataset, shards, training, found["seed"], device)

    def at(self, run: Run, label: str) -> "Ensemble":
        """Return the same ensemble in the folder of another run, where nothing is trained yet."""
        parts = self.network, self.process, self.dataset, self.shards, self.settings, self.seed, self.device
        return Ensemble(run, *parts, label)

    def describe(self) -> None:
        """Write what the models depend on into the folder.

        Raises:
            UserError: the folder holds another ensemble.
        """
        parts = {"network": self.network, "process": self.process, "shards": asdict(self.shards)}
        facts = {"format": FORMAT, **parts, "training": asdict(self.settings), "seed": self.seed}
        file = self.folder / FILE
        changed = differences(read_json(file, dict[str, Any]), facts) if file.is_file() else []
        if changed:
            raise UserError(f"{self.run.path} holds another ensemble ({'; '.join(changed[:3])}); give a new folder.")
        write_json(file, facts)

    def record(self, chain: Chain) -> None:
        """Write the requests, before the last one is answered: from here on nothing that they name is trained on."""
        write_json(self.folder / CHAIN, chain.to_json())

    @property
    def folder(self) -> Path:
        """The folder of the shards' own folders."""
        return self.run.path / FOLDER

    @cached_property
    def places(self) -> Positions:
        """(n,) shard of every item of the data set."""
        return shards_of(self.dataset, self.shards.count, self.seed)

    def parts(self, items: Positions) -> dict[int, Positions]:
        """Return the items of each shard that has some, by its number."""
        found = {number: items[self.places[items] == number] for number in range(self.shards.count)}
        return {number: mine for number, mine in found.items() if len(mine)}

    def take(self, other: "Ensemble", items: Positions, left: Positions) -> None:
        """Copy the models of the shards that lose nothing where of an ensemble's ``items`` some are ``left``.

        Args:
            other: the same ensemble in another run's folder, all of whose shards are trained on ``items``.
            items: what it holds.
            left: some of these.

        Raises:
            UserError: it was trained on other items.
        """
        held = {number: (other._place(number, mine), len(mine)) for number, mine in other.parts(items).items()}
        if not all((place / RECORD).is_file() for place, _ in held.values()):
            raise UserError(
                f"{other.folder} holds models of other items than the config's data and the model's chain leave; give "
                "the data and the split that they were trained with."
            )
        for number, mine in self.parts(left).items():
            (source, count), place = held[number], self._place(number, mine)
            if processes.writes() and len(mine) == count and not place.is_dir():
                with whole_folder(place) as folder:
                    shutil.copytree(source, folder, dirs_exist_ok=True)
        processes.wait()

    def bring_up(self, items: Positions) -> None:
        """Delete what other items than ``items`` were seen by, then train the shards that are missing.

        Raises:
            UserError: there is no item, and what ``Trainer`` raises.
            RunError: a loss or a weight became NaN or infinite.
            Interrupted: SIGINT or SIGTERM; the same call goes on.
        """
        parts = self.parts(items)
        if not parts:
            raise UserError("the request leaves no shard with an item.")
        wanted = {number: self._place(number, mine) for number, mine in parts.items()}
        stale = {*self.folder.glob("shard-*")} - {*wanted.values()}
        missing = [number for number, run in wanted.items() if not (run / RECORD).is_file()]
        if processes.writes():
            for path in [self.run.path / "model", *sorted(stale)] if stale or missing else []:
                shutil.rmtree(path, ignore_errors=True)
        processes.wait()
        for number in missing:
            self._train(number, parts[number], Run(wanted[number]))

    def mixture(self, items: Positions, chain: Chain | None = None) -> Sharded:
        """Return the mixture of the models of shards, all trained, that hold ``items``."""
        parts = self.parts(items)
        models = [ScoreModel.load(self._place(number, mine) / "model") for number, mine in parts.items()]
        return Sharded.of(models, [len(mine) for mine in parts.values()], self.shards.mixture, chain)

    def work(self, left: Positions, gone: Positions) -> Work:
        """Return what training the shards of the items ``gone`` on those that are ``left`` took."""
        hit, parts = sorted(self.parts(gone)), self.parts(left)
        records = [self._record(number, parts[number]) for number in hit if number in parts]
        return Work(len(gone), hit, sum(r["steps"] for r in records), sum(r["seconds"] for r in records))

    def _place(self, number: int, items: Positions) -> Path:
        return self.folder / f"shard-{number}-{positions_digest(self.run.path, items)[:12]}"

    def _record(self, number: int, items: Positions) -> Trained:
        found: Trained = read_json(self._place(number, items) / RECORD, Trained)
        return found

    def _train(self, number: int, items: Positions, run: Run) -> None:
        first = derive_seed(self.seed, "shard", number)
        model = replace(ScoreModel.new(self.network, self.process, self.dataset.shape, first), sealed=None)
        prompted(model, self.dataset)
        settings = replace(self.settings, steps=self.steps)
        seed = derive_seed(self.seed, "shard", number, "training")
        label = f"{self.label}: shard {number + 1} of {self.shards.count}"
        part = Part(retain=items, forget=np.empty(0, dtype=np.int64))
        trainer = Trainer(model, Standard(), self.dataset, part, settings, seed, run, self.device, label)
        trainer.train()
        trainer.save()
        record: Trained = {"items": len(items), "steps": self.steps, "seconds": round(trainer.state.seconds, 3)}
        write_json(run.path / RECORD, record)
        if processes.writes():
            shutil.rmtree(run.checkpoints, ignore_errors=True)
        processes.wait()


def described(run: Run) -> Described:
    """Return what the ensemble of a run's folder depends on.

    Raises:
        UserError: there is none, or its description is damaged or of a newer version.
    """
    file = run.path / FOLDER / FILE
    if not file.is_file():
        raise UserError(f"{run.path} holds no sharded generator: {file} is not there.")
    found: Described = read_json(file, Described)
    if found["format"] > FORMAT:
        raise UserError(f"{file} was written by a newer msgm (format {found['format']}; this one reads {FORMAT}).")
    return found


def describe_shards(shards: ShardSettings) -> str:
    """Return the card of a sharded generator as text."""
    lines = {
        "formula": shards.card.formula,
        "source": shards.card.source,
        "data": "retain",
        "defaults": ", ".join(f"{name}={value}" for name, value in asdict(ShardSettings()).items()),
        "deviations": f"{shards.card.deviations}; mixture {shards.mixture}",
    }
    return "\n".join(f"{key}: {value}" for key, value in lines.items())


def deletion_facts(ensemble: Ensemble, left: Positions, gone: Positions, first: Work) -> dict[str, Any]:
    """Return the numbers of a deletion, for a run's manifest and its row.

    Args:
        ensemble: after the deletion.
        left: the items that are left.
        gone: those that were deleted.
        first: what training on all of them took before.
    """
    work, count = ensemble.work(left, gone), ensemble.shards.count
    weights = (ensemble.run.path / "model").rglob("*.safetensors")
    return {
        "shards": count,
        "hit": [number + 1 for number in work.shards],
        "sizes": {str(number + 1): len(mine) for number, mine in ensemble.parts(left).items()},
        "items": int(np.isin(ensemble.places[np.concatenate([left, gone])], work.shards).sum()),
        "steps": work.steps,
        "share": work.steps / (ensemble.steps * count),
        "expected_hit": expected_hit(len(gone), count),
        "preparation_seconds": first.seconds,
        "storage_bytes": sum(path.stat().st_size for path in weights),
    }
