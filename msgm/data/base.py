"""The data set and the settings that every data set shares."""

import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.checks import at_least
from msgm.concepts import Concept
from msgm.data.captions import drawn, forget_captions, with_prompts
from msgm.data.images import ImageFiles
from msgm.data.listing import BROKEN, said
from msgm.data.measures import CHUNK, Attribute, Measure, Rule, measured
from msgm.data.reading import Lazy, Taken, read
from msgm.data.repeats import checked, origins
from msgm.digests import short_digest
from msgm.errors import UserError
from msgm.registry import Registry
from msgm.requests import ForgetRequest
from msgm.splits import Split, draw_parts, sorted_out


@dataclass
class Dataset:
    """Items with their labels, attributes and published test set.

    Example:
        >>> points = Dataset("points", torch.zeros(5, 2), (2,), levels=None)
        >>> len(points), points.is_image
        (5, False)

    Attributes:
        name: the registered name.
        items: (N, *shape) tensor, or a lazy sequence of such rows. Images are uint8 levels 0 .. ``levels`` - 1,
            vectors float32.
        shape: (C, H, W) or (D,).
        levels: number of grey levels of an image channel (256, digits 17); None for vectors.
        labels: (N,) class numbers, or None.
        classes: class names.
        attributes: name to (N,) booleans.
        measured: the rules of the attributes that are measured from the pictures, by name.
        groups: column name to (N,) values as text, such as the subject that each item is of.
        names: names of the items, where these are files: paths below the data set's folder; empty otherwise.
        files: where the items were read from, where these are files.
        left_out: reason to the files in the data set's folder that are left out, as paths below the folder.
        test: (N,) mask of the published test items, or None.
        origin: (N,) position of the item that each item is, where ``data.repeat`` adds copies: its own, or that of the
            item that it is a copy of; None without copies, which come last.
        prompts: texts of captions, each once.
        captions: (N, K) positions in ``prompts``, those of an item first and -1 behind them; the first caption is the
            item's own when it is measured, and training draws one of them at each visit. (0, 0) without captions.
        named: the numbers of the classes that each prompt names, from left to right; empty where that is not known.
        flip: train on random left-right mirror images as well.
        workers: processes that read a lazy set.
    """

    name: str
    items: Tensor | Lazy
    shape: tuple[int, ...]
    levels: int | None
    labels: NDArray[np.int64] | None = None
    classes: list[str] = field(default_factory=list)
    attributes: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    measured: dict[str, Rule] = field(default_factory=dict)
    groups: dict[str, NDArray[np.str_]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    files: ImageFiles | None = None
    left_out: dict[str, list[str]] = field(default_factory=dict)
    test: NDArray[np.bool_] | None = None
    origin: NDArray[np.int64] | None = None
    prompts: list[str] = field(default_factory=list)
    captions: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))
    named: list[tuple[int, ...]] = field(default_factory=list)
    flip: bool = False
    workers: int = 2
    _resident: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def copies(self) -> int:
        """How many of the items are copies that ``data.repeat`` adds."""
        return 0 if self.origin is None else len(self) - len(np.unique(self.origin))

    def distinct(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of ``indices`` that are no copies; copies stand in the same sets as the items they are of."""
        return indices if self.origin is None else indices[self.origin[indices] == indices]

    def repeated(self, origin: NDArray[np.int64]) -> "Dataset":
        """Return the data set with copies, whose items are those at ``origin``; see ``msgm.data.repeats``."""
        files = self.files and replace(self.files, paths=[self.files.paths[i] for i in origin])
        lazy = files if files is not None and self.items is self.files else Taken(self.items, origin)
        return replace(
            self,
            items=self.items[torch.from_numpy(origin)] if isinstance(self.items, Tensor) else lazy,
            labels=None if self.labels is None else self.labels[origin],
            attributes={name: values[origin] for name, values in self.attributes.items()},
            groups={name: values[origin] for name, values in self.groups.items()},
            names=[self.names[i] for i in origin] if self.names else [],
            files=files,
            test=None if self.test is None else self.test[origin],
            origin=origin,
            captions=self.captions[origin] if self.prompts else self.captions,
        )

    @property
    def conditions(self) -> NDArray[np.int64] | None:
        """(N,) what a conditional network is asked for to get each item.

        That is the number of the item's first caption, -1 for an item without captions, where the data have prompts;
        else its label; None without labels.
        """
        return self.captions[:, 0] if self.prompts else self.labels

    @property
    def asks(self) -> NDArray[np.int64] | None:
        """All that a conditional network may be asked for to get each item: its (K,) captions, or its label.

        (N, K) with -1 where an item has fewer captions, where the data have prompts; else (N,); None without labels.
        """
        return self.captions if self.prompts else self.labels

    def asked(self, indices: NDArray[np.int64], draws: NDArray[np.float32]) -> NDArray[np.int64] | None:
        """Return (B,) what a conditional network is asked for at a visit of the items at ``indices``.

        Args:
            indices: (B,) positions of items.
            draws: (B,) numbers in [0, 1), each of which chooses one of its item's captions.
        """
        if self.prompts:
            return drawn(self.captions[indices], draws)
        return None if self.labels is None else self.labels[indices]

    def asked_by(self, concept: Concept | None) -> "Dataset":
        """Return the data set in which items are asked for by the prompts to forget that their captions mention.

        Items that mention none are asked for nothing. Prompts keep their numbers, and those of the concept that no
        caption has come behind them.
        """
        if concept is None or not self.prompts:
            return self
        captions = forget_captions(self.prompts, self.captions, self.named, concept)
        prompts = with_prompts(self.prompts, concept)
        unnamed = [()] * (len(prompts) - len(self.prompts)) if self.named else []
        view = replace(self, prompts=prompts, captions=captions, named=[*self.named, *unnamed])
        view._resident = self._resident
        return view

    @property
    def is_image(self) -> bool:
        """Whether items are images of levels rather than vectors."""
        return self.levels is not None

    @cached_property
    def strata(self) -> NDArray[np.int64]:
        """(N,) codes, equal for items of the same class and source; a source is the combination of all groups."""
        codes = np.zeros(len(self), dtype=np.int64)
        for column in (self.labels, *self.groups.values()):
            if column is not None:
                values, number = np.unique(column, return_inverse=True)
                _, codes = np.unique(codes * len(values) + number, return_inverse=True)
        return codes

    def numbers(self, measure: Measure, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (len(indices),) numbers of the pictures at ``indices`` by a measure of ``msgm.data.measures``."""
        assert self.levels is not None, "only pictures are measured"
        parts = np.array_split(indices, max(1, -(-len(indices) // CHUNK)))
        return np.concatenate([measured(measure, self.take(part), self.levels) for part in parts])

    def take(self, indices: NDArray[np.int64]) -> Tensor:
        """Return the items at ``indices`` as a (len(indices), *shape) tensor on the CPU."""
        if isinstance(self.items, Tensor):
            return self.items[torch.from_numpy(np.asarray(indices))]
        return read(self.items, np.asarray(indices), self.shape, self.workers)

    def resident(self, device: torch.device) -> Tensor | None:
        """Return all items as one tensor on ``device``, copied there once; None when the set streams."""
        if not isinstance(self.items, Tensor):
            return None
        if device not in self._resident:
            self._resident[device] = self.items.to(device)
        return self._resident[device]

    def forget_mask(self, request: ForgetRequest) -> NDArray[np.bool_]:
        """Return the request's items, with all their copies, as an (N,) mask; errors as in ``ForgetRequest.select``."""
        from msgm.data.matching import same_content  # it reads data sets, and so imports this file

        wanted = request.value("dataset")
        found = None if wanted is None else same_content(self, wanted)
        items, known = self.items.__getitem__, (self.labels, self.classes, self.attributes)
        texts = (self.prompts, self.captions, self.named) if self.prompts else None
        mask = request.select(len(self), *known, items, self.groups, self.names, found, texts)
        if self.origin is None:
            return mask
        named = np.zeros(len(self), dtype=bool)
        named[self.origin[mask]] = True
        return named[self.origin]

    def content(self, index: int) -> bytes:
        """Return the raw bytes of item ``index``: of its file if it has one, else of its tensor.

        Raises:
            UserError: the file cannot be read.
        """
        if self.files is not None:
            return self.files.content(index)
        if isinstance(self.items, Tensor):
            return self.items[index].numpy().tobytes()  # several times as fast as taking a batch of one
        return self.take(np.array([index])).numpy().tobytes()

    def item_digests(self) -> Iterator[bytes]:
        """Yield a hash of each item's content, label and captions, in order.

        Files are hashed once while they stay the same.
        """
        for number in range(len(self)):
            content = hashlib.sha256(self.content(number)).digest() if self.files is None else self.files.digest(number)
            label = b"" if self.labels is None else int(self.labels[number]).to_bytes(8, "little")
            yield content + label + self._caption_digest(number)

    def _caption_digest(self, number: int) -> bytes:
        """Return a hash of an item's captions; nothing where the data have none."""
        if not self.prompts:
            return b""
        texts = [self.prompts[k] for k in self.captions[number] if k >= 0]
        return hashlib.sha256(json.dumps(texts).encode()).digest()

    def omissions(self) -> dict[str, Any]:
        """Return the number of files left out by reason, and the broken files; for manifests."""
        counts = {reason: len(paths) for reason, paths in self.left_out.items()}
        return {"left_out": counts, "broken": self.left_out.get(BROKEN, [])}

    def digest(self) -> str:
        """Return a short hash of the items, their order and their metadata.

        Raises:
            UserError: a file cannot be read.
        """
        known: dict[str, Any] = {
            "classes": self.classes,
            "names": self.names,
            "shape": self.shape,
            "levels": self.levels,
        }
        known["groups"] = {name: values.tolist() for name, values in self.groups.items()}
        columns = {"labels": self.labels, "test": self.test, "origin": self.origin} | self.attributes
        if self.prompts:
            columns["captions"] = self.captions
            known |= {"prompts": self.prompts, "named": self.named}
        known["columns"] = [name for name, column in columns.items() if column is not None]
        given = (column.tobytes() for column in columns.values() if column is not None)
        return short_digest(chain([json.dumps(known).encode()], given, self._contents()))

    def _contents(self) -> Iterator[bytes]:
        if self.files is not None:
            yield repr(self.files).encode()
            yield from (self.files.digest(i) for i in range(len(self)))
        elif isinstance(self.items, Tensor):
            yield self.items.numpy().tobytes()
        else:
            yield from (self.content(i) for i in range(len(self)))


@dataclass
class DataSettings:
    """Settings of every data set.

    Example:
        >>> settings = msgm.data.Digits(test=0.2)
        >>> dataset = settings.load()
        >>> len(settings.parts(dataset)["test"])
        359

    Attributes:
        validation: share held out for thresholds and tuning.
        test: share held out for the reported numbers, where the data set publishes no test set.
        split_seed: seed of the split; apart from the run's seed, so that runs of several seeds share their data.
        flip: train on random left-right mirror images as well.
        resident_mb: a set up to this size is held as one tensor on the device; a larger one streams.
        workers: processes that read a streaming set.
        attributes: attributes that are measured from the pictures, by name, such as ``{slanted: {measure: slant, above:
            0.75}}``: the upper quarter by slant, cut at the quantile of the training part (``msgm.data.measures``).
        repeat: how many times to the items that stand in the training part so often, by position or by name, such as
            ``{10: [3, 14], 50: [15]}``; a model learns them by heart. Their copies come after all items.
    """

    name: ClassVar[str]
    validation: float = 0.15
    test: float = 0.15
    split_seed: int = 0
    flip: bool = False
    resident_mb: int = 2048
    workers: int = 2
    attributes: dict[str, Attribute] = field(default_factory=dict, kw_only=True)
    repeat: dict[str, list[int | str]] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        at_least(0, self, "data", "split_seed", "resident_mb", "workers")
        self.repeat = checked(self.repeat)
        for name, attribute in self.attributes.items():
            attribute.check(f"data.attributes.{name}")

    @abstractmethod
    def load(self) -> Dataset:
        """Read the data set."""

    def with_measured(self, dataset: Dataset) -> Dataset:
        """Return the data set with the measured attributes, cut at quantiles of its training part.

        Raises:
            UserError: items that are no pictures, or an attribute that the data set has already.
        """
        rules, masks = {}, {}
        for name, attribute in self.attributes.items():
            key = f"data.attributes.{name}"
            if not dataset.is_image:
                raise UserError(f"{key}: attributes are measured from pictures, and {dataset.name} has vectors.")
            if name in dataset.attributes:
                raise UserError(f"{key}: the data set {dataset.name} has this attribute already; choose another name.")
            found = dataset.numbers(attribute.measure, np.arange(len(dataset)))
            rules[name] = Rule.of(attribute, found[dataset.distinct(self.parts(dataset)["train"])])
            masks[name] = rules[name].holds(found)
        return replace(dataset, attributes=dataset.attributes | masks, measured=rules)

    def split(self, dataset: Dataset, request: ForgetRequest) -> Split:
        """Split ``dataset`` by ``request``, the first one; errors as in ``make_split``."""
        return self.split_by(dataset, dataset.forget_mask(request))

    def parts(self, dataset: Dataset) -> dict[str, NDArray[np.int64]]:
        """Return the sorted positions of the train, validation and test part, which do not depend on a request."""
        return draw_parts(len(dataset), self.validation, self.test, self.split_seed, dataset.test, dataset.origin)

    def split_by(self, dataset: Dataset, forget: NDArray[np.bool_], gone: NDArray[np.bool_] | None = None) -> Split:
        """Split ``dataset`` by masks of what to forget and of what is ``gone``; errors as in ``make_split``."""
        gone = np.zeros(len(dataset), dtype=bool) if gone is None else gone
        return Split(**sorted_out(self.parts(dataset), forget, gone))

    def split_facts(self, dataset: Dataset) -> dict[str, float | int]:
        """Return the settings that say which items of ``dataset`` are held out, by name."""
        keys = ["split_seed", "validation", *(["test"] if dataset.test is None else [])]
        return {f"data.{key}": getattr(self, key) for key in keys}


DATASETS: Registry[DataSettings] = Registry("data")


def load_dataset(settings: Mapping[str, Any] | str | DataSettings) -> Dataset:
    """Load a data set by name or by the ``data`` section of a configuration, and print which files are left out.

    Example:
        >>> digits = msgm.load_dataset("digits")
        >>> len(digits), digits.shape, digits.levels
        (1797, (1, 8, 8), 17)
    """
    if not isinstance(settings, DataSettings):
        settings = DATASETS.build({"name": settings} if isinstance(settings, str) else settings)
    dataset = settings.load()
    if settings.repeat:
        dataset = dataset.repeated(origins(settings.repeat, len(dataset), dataset.names))
    if settings.attributes:
        dataset = settings.with_measured(dataset)
    if int(os.environ.get("RANK", "0")) == 0:
        for line in said(dataset.left_out):
            print(f"data: {line}", flush=True)
    return dataset
