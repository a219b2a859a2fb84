"""``msgm.ShardedModel``: a sharded generator in a folder, trained once and then asked to delete items."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm import traces
from msgm.api.experiments import working
from msgm.chain import Chain, Entry, read_chain
from msgm.config import TrainingSettings
from msgm.data.adapters import Given, given
from msgm.diffusion import NETWORKS, PROCESSES, Sharded
from msgm.diffusion.model import ScoreModel
from msgm.digests import folder_key, read_key
from msgm.errors import UserError
from msgm.fields import structured
from msgm.folders import locked
from msgm.requests import ForgetRequest
from msgm.runs import Run
from msgm.starts import ShardSettings
from msgm.training.shards import Ensemble, Work

Named = str | Mapping[str, Any]


class ShardedModel:
    """A sharded generator in a folder, which deletes items exactly, one request after another.

    The items are divided into shards and a model is trained on each. A deletion deletes the models of the shards that
    hold a requested item and trains them again from random weights without it; on a CPU the result is, bit for bit,
    the ensemble that never had the item. ``ShardedModel.train`` makes one and ``ShardedModel.load`` reads one. What a
    killed process left undone, either of them does first, so that no item of a recorded request is served again.

    Example:
        >>> folder = out / "sharded"
        >>> unet = {"name": "unet", "channels": [8]}
        >>> made = msgm.ShardedModel.train(folder, "digits", unet, shards={"count": 3}, steps=3, batch_size=8)
        shards: shard 1 of 3: ...
        >>> work = made.delete(msgm.ForgetRequest(indices=[4]))
        shards: shard 1 of 3: ...
        >>> work.items, len(work.shards), work.steps
        (1, 1, 1)
        >>> made.model.sample(2, steps=3).shape
        torch.Size([2, 1, 8, 8])
        >>> [entry.text for entry in msgm.ShardedModel.load(folder, "digits").chain.requests]
        ['suppression of the concept given by indices 4']

    Attributes:
        folder: where it is kept.
        work: what training all of its present models took.
        chain: the requests that it has answered.
    """

    def __init__(self, ensemble: Ensemble, data: Given) -> None:
        """Keep an ensemble and its data; ``train`` and ``load`` make both."""
        self._ensemble, self._data = ensemble, data
        self.folder = ensemble.run.path

    @classmethod
    def train(
        cls,
        folder: Path | str,
        dataset: Any,
        network: Named = "unet",
        process: Named = "vp",
        shards: Mapping[str, Any] | None = None,
        steps: int = 1500,
        seed: int = 0,
        device: str = "auto",
        *,
        shape: tuple[int, ...] | None = None,
        levels: int | None = None,
        **training: Any,
    ) -> "ShardedModel":
        """Train the models of all shards; the same call goes on where an earlier one was stopped.

        Args:
            folder: where to keep it.
            dataset: the data, as in ``msgm.fit``.
            network: of every shard's model: a name, or settings with a name.
            process: likewise.
            shards: settings of the shards, ``{"count": 5, "mixture": "posterior"}`` by default.
            steps: of all shards together.
            seed: of the shards, first weights and orders.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
            shape: of an item, for data that does not say it.
            levels: grey levels of an image channel, where the data do not say it.
            **training: further settings of ``TrainingSettings``, such as ``batch_size=64`` or ``lr=2e-4``.

        Raises:
            UserError: a bad setting, or a folder that holds another ensemble.
            RunError: a term of the loss, or the gradient, became NaN or infinite.
            Interrupted: SIGINT or SIGTERM.
        """
        settings = structured(TrainingSettings, {"trackers": [], **training, "steps": steps}, "ShardedModel.train")
        divided = structured(ShardSettings, dict(shards or {}), "shards")
        parts = NETWORKS.resolve(_named(network)), PROCESSES.resolve(_named(process))
        with working(False, False, None):
            data = given(dataset, shape or (), levels)
            ensemble = Ensemble(Run(folder), *parts, data.dataset, divided, settings, seed, device)
            with locked(ensemble.run.path):
                ensemble.describe()
                if read_chain(ensemble.folder) is None:
                    ensemble.record(Chain().over(data.dataset, data.split_facts(), None))
                made = cls(ensemble, data)
                made._bring_up()
        return made

    @classmethod
    def load(
        cls,
        folder: Path | str,
        dataset: Any,
        device: str = "auto",
        *,
        shape: tuple[int, ...] | None = None,
        levels: int | None = None,
    ) -> "ShardedModel":
        """Return the ensemble in ``folder``, after a training or a deletion that broke off has been ended.

        Args:
            folder: where ``train`` kept it.
            dataset: the same data, as in ``train``.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
            shape: as in ``train``.
            levels: as in ``train``.

        Raises:
            UserError: no such ensemble, data that is not its own, and what ``train`` raises.
        """
        with working(False, False, None):
            data = given(dataset, shape or (), levels)
            made = cls(Ensemble.load(Run(folder), data.dataset, device), data)
            with locked(made.folder):
                made.chain.check(data.dataset, data.split_facts(), read_key(made.folder), made.folder)
                made._bring_up()
        return made

    def delete(self, request: ForgetRequest) -> Work:
        """Delete the items that a request names, and return what that took.

        The request is written down first, and the models of the hit shards are deleted next; only then is anything
        trained.

        Raises:
            UserError: a request that names no item that is left to train on, or leaves none.
            RunError: a term of the loss, or the gradient, became NaN or infinite.
            Interrupted: SIGINT or SIGTERM; ``load`` goes on.
        """
        with working(False, False, None), locked(self.folder):
            dataset, chain = self._data.dataset, self.chain
            asked = dataset.forget_mask(request)
            before = self._items(chain)
            gone = before[asked[before]]
            if not len(gone):
                raise UserError(f"{request.describe()}: no item of it is trained on; what was named before is gone.")
            if len(gone) == len(before):
                raise UserError(f"{request.describe()}: it leaves no item to train on.")
            entry = Entry.of(request, asked, "sharded")
            self._ensemble.record(chain.extended(entry, dataset, self._data.split_facts(), folder_key(self.folder)))
            self._bring_up()
            return self._ensemble.work(self._items(self.chain), gone)

    @property
    def model(self) -> Sharded:
        """The mixture, as every other model of msgm: read from its folder."""
        found = ScoreModel.load(self._ensemble.run.model)
        assert isinstance(found, Sharded)
        return found

    @property
    def chain(self) -> Chain:
        """The requests that it has answered, or is answering."""
        return read_chain(self._ensemble.folder) or Chain()

    @property
    def work(self) -> Work:
        """What training all of its present models took."""
        items = self._items(self.chain)
        return replace(self._ensemble.work(items, items), items=0)

    def _items(self, chain: Chain) -> NDArray[np.int64]:
        """Return the positions of the training items that no request of ``chain`` names."""
        size = len(self._data.dataset)
        return self._data.part(np.zeros(size, dtype=bool), chain.gone(size)).retain

    def _bring_up(self) -> None:
        """Train what is missing, and write the mixture's folder where it is not there."""
        chain = self.chain
        items = self._items(chain)
        self._register(chain)
        self._ensemble.bring_up(items)
        if not self._ensemble.run.model.is_dir():
            self._ensemble.mixture(items, chain).save(self._ensemble.run.model)

    def _register(self, chain: Chain) -> None:
        """Register what is trained here, and that it sees none of the items that were deleted."""
        last: tuple[traces.Part, str | None] = ("retain", chain.requests[-1].text) if chain.requests else ("all", None)
        for path in (self._ensemble.folder, self._ensemble.run.model):
            traces.register(self.folder, path, traces.KNOWN[path.name][0], *last)


def _named(given: Named) -> dict[str, Any]:
    return {"name": given} if isinstance(given, str) else dict(given)
