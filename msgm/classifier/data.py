"""Examples for classifiers: labelled items of a data set, and their split into retain, forget and held-out sets."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.data import Dataset, dequantise
from msgm.errors import UserError
from msgm.seeding import generator


@dataclass(frozen=True, eq=False)
class Examples:
    """Some labelled items of a data set, in a fixed order.

    Attributes:
        dataset: the data; images are seen in [-1, 1], vectors as they are.
        indices: (n,) positions in the data set.
        labels: (n,) class numbers of these items; methods that relabel make copies with others.
    """

    dataset: Dataset
    indices: NDArray[np.int64]
    labels: Tensor

    @classmethod
    def of(cls, dataset: Dataset, indices: NDArray[np.int64]) -> "Examples":
        """Return the items at ``indices`` with their own labels.

        Raises:
            UserError: the data set has no labels.
        """
        if dataset.labels is None:
            raise UserError(f"the {dataset.name} data have no class labels, which a classifier needs.")
        return cls(dataset, indices, torch.from_numpy(dataset.labels[indices]))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def strata(self) -> NDArray[np.int64]:
        """(n,) codes of the items' class and source, as ``Dataset.strata``; relabelling leaves them as they are."""
        return self.dataset.strata[self.indices]

    def inputs(self, positions: Tensor | NDArray[np.int64], device: torch.device | str = "cpu") -> Tensor:
        """Return the inputs at ``positions`` of these examples, (len(positions), *shape) float32 on ``device``."""
        chosen = self.indices[np.asarray(positions)]
        resident = self.dataset.resident(torch.device(device))
        raw = self.dataset.take(chosen).to(device) if resident is None else resident[torch.from_numpy(chosen)]
        return raw.float() if self.dataset.levels is None else dequantise(raw, self.dataset.levels)

    def drawn(self, count: int, *stream: int | str) -> "Examples":
        """Return at most ``count`` of these examples, drawn at random by the seed ``stream``, in their order here."""
        order = torch.randperm(len(self), generator=generator(*stream))
        return self.subset(order[:count].sort().values.numpy())

    def subset(self, positions: NDArray[np.int64]) -> "Examples":
        """Return the examples at ``positions``, labels as they are here."""
        return Examples(self.dataset, self.indices[positions], self.labels[torch.from_numpy(positions)])

    def where(self, mask: NDArray[np.bool_]) -> "Examples":
        """Return the examples that an (n,) mask chooses."""
        return self.subset(np.flatnonzero(mask))

    def relabelled(self, labels: Tensor) -> "Examples":
        """Return the same items under other labels, (n,)."""
        return Examples(self.dataset, self.indices, labels)

    def join(self, other: "Examples") -> "Examples":
        """Return these examples followed by the other ones."""
        return Examples(
            self.dataset, np.concatenate([self.indices, other.indices]), torch.cat([self.labels, other.labels])
        )

    def in_order(self) -> "Examples":
        """Return the same examples in the order of the data set."""
        return self.subset(np.argsort(self.indices))

    def batches(
        self, size: int, *stream: int | str, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all (inputs, labels) once, shuffled by the stream's name; without one, in order."""
        order = torch.randperm(len(self), generator=generator(*stream)) if stream else torch.arange(len(self))
        for positions in order.split(size):
            yield self.inputs(positions, device), self.labels[positions].to(device)


@dataclass(frozen=True, eq=False)
class Split:
    """The data split of a request: training items to retain and to forget, and three disjoint held-out sets.

    Items of earlier requests are in none of them: ``gone`` holds those that were trained on once.

    Attributes:
        retain: training items that stay.
        forget: training items to forget.
        tuning: held out, for thresholds, settings and methods that need unseen data.
        nonmembers: held out, for attacks alone.
        test: held out, for the reported accuracy alone.
        classes: class names.
        scope: ``class`` when the request empties classes of the training data, else ``instances``.
        gone: training items of earlier requests, for tests of these alone; None where there are none.
    """

    retain: Examples
    forget: Examples
    tuning: Examples
    nonmembers: Examples
    test: Examples
    classes: list[str]
    scope: str = field(default="instances")
    gone: Examples | None = None

    @property
    def train(self) -> Examples:
        """All training items, retain and forget, in data-set order."""
        indices = np.sort(np.concatenate([self.retain.indices, self.forget.indices]))
        return Examples.of(self.retain.dataset, indices)

    def parts(self) -> dict[str, Examples]:
        """Return the five parts by name."""
        return {name: getattr(self, name) for name in PARTS}


PARTS = ("retain", "forget", "tuning", "nonmembers", "test")


@dataclass
class Shares:
    """Shares of the items held out.

    Attributes:
        tuning: for thresholds, settings and methods that need unseen data.
        nonmembers: for attacks alone.
        test: for the reported accuracy; unused where the data set publishes its test items.
        train: at most this share is trained on; the remaining items are not used.
    """

    tuning: float = 0.1
    nonmembers: float = 0.15
    test: float = 0.15
    train: float = 1.0

    def __post_init__(self) -> None:
        for key in ("tuning", "nonmembers", "test"):
            if not 0 < getattr(self, key) < 1:
                raise UserError(f"shares.{key} must lie between 0 and 1, got {getattr(self, key)}.")
        if not 0 < self.train <= 1:
            raise UserError(f"shares.train must lie in (0, 1], got {self.train}.")
        if self.tuning + self.nonmembers + self.test >= 1:
            raise UserError("shares.tuning + shares.nonmembers + shares.test must be below 1.")


def held_out(dataset: Dataset, shares: Shares, seed: int) -> dict[str, NDArray[np.int64]]:
    """Return sorted positions of ``train``, ``tuning``, ``nonmembers`` and ``test``, by the seed and no request."""
    published = np.zeros(len(dataset), dtype=bool) if dataset.test is None else dataset.test
    rest = np.random.default_rng(seed).permutation(np.flatnonzero(~published))
    drawn = {"test": 0 if published.any() else round(shares.test * len(rest))}
    drawn |= {"tuning": round(shares.tuning * len(rest)), "nonmembers": round(shares.nonmembers * len(rest))}
    cuts = np.cumsum(list(drawn.values()))
    parts = dict(zip([*drawn, "train"], np.split(rest, cuts), strict=True))
    parts["train"] = parts["train"][: round(shares.train * len(rest))]
    if published.any():
        parts["test"] = np.flatnonzero(published)
    return {name: np.sort(positions) for name, positions in parts.items()}


def split_by(
    dataset: Dataset,
    parts: dict[str, NDArray[np.int64]],
    forget: NDArray[np.bool_],
    gone: NDArray[np.bool_] | None = None,
) -> Split:
    """Return the split that a request makes.

    Args:
        dataset: labelled data.
        parts: positions, as ``held_out`` gives them.
        forget: (N,) mask of the request; only training items of it are forgotten, held-out ones never were learned.
        gone: (N,) mask of the items of earlier requests; those that are asked for again stay gone.

    Raises:
        UserError: no labels, no training item to forget or to retain, fewer than two classes to retain, or a held-out
            part without an item that no earlier request named.
    """
    if dataset.labels is None:
        raise UserError(f"the {dataset.name} data have no class labels, which a classifier needs.")
    gone = np.zeros(len(dataset), dtype=bool) if gone is None else gone
    train = parts["train"][~gone[parts["train"]]]
    chosen = forget[train]
    if not chosen.any():
        again = forget[parts["train"]].any()
        reason = "all that it names was forgotten before" if again else "everything it names is held out"
        raise UserError(f"the request selects no training item: {reason}.")
    if chosen.all():
        raise UserError(f"the request selects all {len(train)} training items: nothing is left to retain.")
    scope = scope_of(dataset.labels[train], chosen)
    held = {name: parts[name][~gone[parts[name]]] for name in ("tuning", "nonmembers", "test")}
    for name, positions in held.items():
        if not len(positions):
            raise UserError(f"the {name} part has no item left that no earlier request named.")
    trained = parts["train"][gone[parts["train"]]]
    return Split(
        Examples.of(dataset, train[~chosen]),
        Examples.of(dataset, train[chosen]),
        **{name: Examples.of(dataset, positions) for name, positions in held.items()},
        classes=list(dataset.classes),
        scope=scope,
        gone=Examples.of(dataset, trained) if len(trained) else None,
    )


def scope_of(labels: NDArray[np.int64], forget: NDArray[np.bool_]) -> str:
    """Return ``class`` where forgetting the marked ones of (n,) ``labels`` empties a class, else ``instances``.

    Raises:
        UserError: it leaves fewer than two classes.
    """
    left = np.unique(labels[~forget])
    if len(left) < 2:
        raise UserError(
            f"the request leaves items of {len(left)} class only; a classifier needs two, forget fewer classes."
        )
    return "class" if len(left) < len(np.unique(labels)) else "instances"
