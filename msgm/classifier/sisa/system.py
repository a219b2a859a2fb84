"""The system that trains the shards, forgets items on request and predicts."""

import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msgm.classifier.data import Examples
from msgm.classifier.networks import reinitialised
from msgm.classifier.sisa.checkpoints import SUFFIX, Checkpoints, InFolder, InMemory, packed
from msgm.classifier.sisa.ensemble import Aggregation, Ensemble
from msgm.classifier.sisa.layout import Layout
from msgm.classifier.training import Step, TrainingSettings, fit, logits
from msgm.errors import UserError
from msgm.folders import place, write_json
from msgm.reading import read_json, read_tensors
from msgm.seeding import derive_seed
from msgm.shapes import Count
from msgm.slices import stage_epochs

FILE = "ensemble.json"
FORMAT = 1  # of what a checkpoint's name vouches for: raise it when the same inputs train to other weights


class Stored(TypedDict):
    """Contents of the file ``ensemble.json``; ``models`` are the last checkpoints with the items left below them."""

    identity: str
    forgotten: list[Count]
    aggregation: NotRequired[Literal["mean", "proportional", "vote"]]
    models: NotRequired[dict[str, Count]]


def load_ensemble(folder: Path, build: Callable[[], nn.Module]) -> Ensemble:
    """Return the ensemble whose checkpoints lie in a folder, in eval mode on the CPU; ``build`` makes its networks.

    Raises:
        UserError: a file is missing or damaged.
    """
    stored = read_json(folder / FILE, Stored)
    if "aggregation" not in stored or not any(stored.get("models", {}).values()):
        raise UserError(f"{folder / FILE} names no checkpoints with items: expected models and aggregation.")
    models = []
    for name in stored["models"]:
        model = build()
        path = place(folder, f"{name}{SUFFIX}", key=f"{folder / FILE}: models")
        model.load_state_dict(read_tensors(path, model.state_dict()))
        models.append(model)
    return Ensemble(models, list(stored["models"].values()), stored["aggregation"]).eval()


@dataclass(frozen=True)
class Work:
    """Work done by a training or a request.

    Attributes:
        items: forgotten.
        shards: that were trained (again).
        stages: that were run (again).
        points: visited: items passed forward and backward.
        deleted: checkpoints deleted.
        seconds: all of it.
    """

    items: int
    shards: list[int]
    stages: int
    points: int
    deleted: int
    seconds: float


class SISA:
    """Sharded, isolated, sliced, aggregated training.

    What would break isolation is refused where it can be seen: networks that start from the same weights under two
    seeds (a warm start), labels that are not the data's own (distilling), one item in two places. There is no argument
    for a validation set, so nothing stops early by pooled data, and what networks measure of their inputs
    (``fit_inputs``, batch normalisation) they measure of their shard. Ensembles handed out are copies: training one
    does not reach the shards.
    """

    def __init__(
        self,
        build: Callable[[int], nn.Module],
        training: TrainingSettings,
        seed: int,
        shards: int = 5,
        slices: int = 1,
        aggregation: Aggregation = "mean",
        device: torch.device | str = "cpu",
        folder: Path | str | None = None,
    ) -> None:
        """Describe the system; nothing is trained before ``fit``.

        Args:
            build: returns a network with weights drawn from its seed alone.
            training: of every shard; its epochs are shared out among the slices.
            seed: of the layout, the first weights and the orders.
            shards: S.
            slices: R, of each shard.
            aggregation: how the shards predict together, as in ``Ensemble``.
            device: where to train; exact bit for bit on a CPU.
            folder: of the checkpoints; in memory without. One that holds this same system is taken up where it stands.

        Raises:
            UserError: too few epochs for the slices, or ``build`` starts two seeds from the same weights.
        """
        self.build, self.training, self.seed = build, training, seed
        self.shards, self.slices, self.aggregation = shards, slices, aggregation
        self.device = torch.device(device)
        self.folder = None if folder is None else Path(folder)
        self.checkpoints: Checkpoints = InMemory() if self.folder is None else InFolder(self.folder)
        self.epochs = stage_epochs(training.epochs, slices)
        self._serving: Ensemble | None = None
        self._refuse_warm_start()

    def fit(self, examples: Examples, without: Sequence[int] | NDArray[np.int64] = ()) -> Work:
        """Train all shards, or the stages that the folder does not hold.

        Args:
            examples: what to train on, with the data's own labels.
            without: data-set indices among them to leave out, as if they had been forgotten: the layout stays. Those
                that the folder's ensemble has forgotten already are left out without being named.

        Raises:
            UserError: fitted before, an item given twice, labels of another source, fewer items than shards times
                slices, a folder of other data or settings, or as in ``forget``.
        """
        if hasattr(self, "kept"):
            raise UserError("this SISA ensemble has its items already; make a new one to train on others.")
        self._refuse_pooled(examples)
        start = time.perf_counter()
        self.examples = examples
        self.layout = Layout(len(examples), self.shards, self.slices, self.seed)
        self.identity = self._identify()
        forgotten = self._forgotten_before()
        self.kept = ~np.isin(examples.indices, forgotten)
        left_out = np.setdiff1d(np.asarray(without, dtype=np.int64), forgotten)
        self.kept[self._positions(left_out)] = False
        return self._bring_up(len(left_out), start)

    def forget(self, indices: int | Sequence[int] | NDArray[np.int64]) -> Work:
        """Forget one item or a batch: delete what depends on them, train these stages again.

        Args:
            indices: data-set indices of items that the system was trained on; none runs only what broke off before.

        Raises:
            UserError: not fitted, an index that is unknown, given twice or forgotten before, or all items requested.
        """
        if not hasattr(self, "kept"):
            raise UserError("this SISA ensemble is not trained yet; call fit first.")
        start = time.perf_counter()
        positions = self._positions(indices)
        self.kept[positions] = False
        return self._bring_up(len(positions), start)

    def forget_stream(self, requests: Iterable[int | Sequence[int]]) -> list[Work]:
        """Answer requests one after the other, as ``forget`` does each."""
        return [self.forget(request) for request in requests]

    def ensemble(self) -> Ensemble:
        """Return a new copy of the models as one classifier, made from their checkpoints."""
        return copy.deepcopy(self._trained())

    def logits(self, examples: Examples) -> Tensor:
        """Return (n, C) log-probabilities on the CPU."""
        return logits(self._trained(), examples, self.device)

    def predict(self, examples: Examples) -> Tensor:
        """Return (n,) classes; equal logarithms go to the lowest class."""
        return self.logits(examples).argmax(1)

    def _trained(self) -> Ensemble:
        if self._serving is None:
            raise UserError("this SISA ensemble is not trained, or its training broke off; call fit, or forget([]).")
        return self._serving

    def _bring_up(self, forgotten: int, start: float) -> Work:
        """Record the forgotten items, delete the checkpoints that depend on them, then train the missing stages."""
        self._serving = None
        names = {shard: self._names(shard) for shard in range(self.shards)}
        sizes = [int(self.kept[self.layout.stage_positions(s, self.slices - 1)].sum()) for s in names]
        if self.folder is not None:
            removed = np.sort(self.examples.indices[~self.kept]).tolist()
            last = {stages[-1]: size for stages, size in zip(names.values(), sizes, strict=True)}
            facts = {"identity": self.identity, "forgotten": removed, "aggregation": self.aggregation, "models": last}
            write_json(self.folder / FILE, facts)
        deleted = self.checkpoints.keep([name for stages in names.values() for name in stages])
        runs = {shard: self._train(shard, stages) for shard, stages in names.items()}
        models = [self._loaded(shard, stages[-1]) for shard, stages in names.items()]
        self._serving = Ensemble(models, sizes, self.aggregation).to(self.device).eval()
        trained = [shard for shard, (stages, _) in runs.items() if stages]
        stages, points = (sum(run[part] for run in runs.values()) for part in (0, 1))
        return Work(forgotten, trained, stages, points, deleted, time.perf_counter() - start)

    def _train(self, shard: int, names: list[str]) -> tuple[int, int]:
        """Run the stages after the last checkpoint; return how many, and the points they visited."""
        done = max((number for number, name in enumerate(names, start=1) if name in self.checkpoints), default=0)
        if done == self.slices:
            return 0, 0
        model = self._loaded(shard, names[done - 1] if done else None)
        visited = 0

        def count(step: Step) -> None:
            nonlocal visited
            visited += len(step.positions)

        for number in range(done, self.slices):
            below = self.layout.stage_positions(shard, number)
            below = below[self.kept[below]]
            settings = replace(self.training, epochs=self.epochs[number])
            seed = derive_seed(self.seed, "sisa", shard, number)
            if len(below):
                fit(model, self.examples.subset(below), settings, seed, self.device, count)
            self.checkpoints.put(names[number], model.state_dict())
        return self.slices - done, visited

    def _loaded(self, shard: int, name: str | None) -> nn.Module:
        """Return a shard's model with the weights of a checkpoint, or its first weights."""
        model = self.build(derive_seed(self.seed, "sisa", shard)).to(self.device)
        if name is not None:
            model.load_state_dict(self.checkpoints.get(name))
        return model.eval()

    def _names(self, shard: int) -> list[str]:
        """Return the names of a shard's checkpoints; each hashes the one below it and its own slice's items."""
        link, names = hashlib.sha256(f"{self.identity}/{shard}".encode()).digest(), []
        for number in range(self.slices):
            positions = self.layout.slice_positions(shard, number)
            items = self.examples.indices[positions[self.kept[positions]]]
            link = hashlib.sha256(link + items.astype("<i8").tobytes()).digest()
            names.append(f"shard-{shard:03d}-slice-{number:03d}-{link.hex()[:24]}")
        return names

    def _identify(self) -> str:
        """Hash everything that the weights depend on, except the forgotten items."""
        first = self.build(derive_seed(self.seed, "sisa", 0)).state_dict()
        facts = {
            "format": FORMAT,
            "torch": torch.__version__,
            "training": asdict(self.training),
            "layout": asdict(self.layout),
            "first weights": hashlib.sha256(packed(first)).hexdigest(),
            "data": self.examples.dataset.digest(),
            "items": hashlib.sha256(self.examples.indices.astype("<i8").tobytes()).hexdigest(),
            "device": self.device.type,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _forgotten_before(self) -> list[int]:
        """Return the items that the folder's ensemble has forgotten."""
        file = None if self.folder is None else self.folder / FILE
        if file is None or not file.is_file():
            return []
        stored: Stored = read_json(file, Stored)
        if stored["identity"] != self.identity:
            raise UserError(
                f"{self.folder} holds an ensemble of other data, settings or versions; take another folder."
            )
        return list(stored["forgotten"])

    def _positions(self, indices: int | Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the indices stand among the examples; errors as in ``forget``."""
        wanted = np.atleast_1d(np.asarray(indices))
        if len(wanted) and wanted.dtype.kind not in "iu":
            raise UserError(f"a request names items by whole numbers, got {wanted.dtype} values.")
        values, counts = np.unique(wanted.astype(np.int64), return_counts=True)
        if (counts > 1).any():
            raise UserError(f"the request gives item {values[counts > 1][0]} twice.")
        unknown = np.setdiff1d(values, self.examples.indices)
        if len(unknown):
            raise UserError(f"the request names item {unknown[0]}, which the ensemble was not trained on.")
        positions = np.flatnonzero(np.isin(self.examples.indices, values))
        if not self.kept[positions].all():
            gone = self.examples.indices[positions[~self.kept[positions]]]
            raise UserError(f"the request names item {gone[0]}, which was forgotten before.")
        if len(positions) and len(positions) == self.kept.sum():
            raise UserError(f"the request names all {len(positions)} items that are left: nothing would remain.")
        return positions

    def _refuse_warm_start(self) -> None:
        one, other = (self.build(derive_seed(self.seed, "sisa", "isolation", n)) for n in range(2))
        try:
            reinitialised(one, other)
        except UserError as error:
            raise UserError(
                "build starts from the same weights under two seeds (a warm start): shards that share a start are not "
                "isolated."
            ) from error

    def _refuse_pooled(self, examples: Examples) -> None:
        values, counts = np.unique(examples.indices, return_counts=True)
        if (counts > 1).any():
            raise UserError(
                f"item {values[counts > 1][0]} is given twice: copies in two shards are not isolated from each other."
            )
        if not torch.equal(examples.labels, Examples.of(examples.dataset, examples.indices).labels):
            raise UserError(
                "the labels are not the data's own: labels that a model made (distilling) carry what it saw into every "
                "shard."
            )
