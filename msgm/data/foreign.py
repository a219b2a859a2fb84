"""Reads data of other libraries: torch and torchvision, the Hugging Face hub, numpy, pillow.

Images become integer grey levels 0 .. L - 1 in a (C, H, W) array, as msgm's own data sets hold them:

- whole numbers (uint8, pictures) are levels, of L = 256 unless ``levels`` says otherwise;
- numbers in [0, 1], as torchvision's ``ToTensor`` makes them, become the nearest level of x (L - 1);
- numbers in [-1, 1] with some below zero become the nearest level of (x + 1) / 2 (L - 1).

Vectors stay numbers.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msgm.data.base import Dataset
from msgm.errors import UserError, nearest
from msgm.ids import listed, shown

RESIDENT = 2**31
"""Bytes up to which a set is held in memory; a larger one is read again item by item."""
TWICE = 8
"""Items that are read twice, to notice that a random transform changes them."""
PLAIN = ("1", "L", "P", "RGB")
"""Modes of pillow's pictures that say what is seen without a background."""


def foreign(
    source: Any,
    shape: tuple[int, ...],
    levels: int | None = None,
    columns: tuple[str, str | None] | None = None,
    flip: bool = False,
) -> Dataset:
    """Read a data set of another library.

    Args:
        source: a ``torch.utils.data.Dataset`` of pairs (image, label) or of images; a Hugging Face ``Dataset``, or any
            other sequence of rows by column name; an array of images or vectors; or a tuple (images, labels).
        shape: of an item: (C, H, W) of images, (D,) of vectors. Images may also come as (H, W) or (H, W, C).
        levels: grey levels of an image channel; by default 256.
        columns: names of the columns with images and labels, the latter None where there are no labels; by default
            ``("image", "label")``.
        flip: train on random left-right mirror images as well.

    Returns:
        The data set. Labels are class numbers, or texts, which are sorted into classes. Class names are the source's
        ``classes``, or those of the label column; without names a class goes by its number.

    Raises:
        UserError: no length, no item, an item of another shape or kind, numbers outside their range, a label that is
            none, or items that change when they are read again.
    """
    rows = _rows(source, columns)
    reader = _Reader(rows, shape)
    items, labels = _scanned(reader)
    numbers, classes = _classes(labels, _names(source, columns))
    known: dict[str, Any] = {"labels": numbers, "classes": classes, "flip": flip}
    name = "arrays" if isinstance(source, tuple | Tensor | np.ndarray) else type(source).__name__
    if len(shape) != 3:
        return Dataset(name, torch.stack(items).float(), shape, None, **known)
    lookup = _Levels(reader, _scale(reader, levels))
    if len(items) < len(reader):
        return Dataset(name, lookup, shape, lookup.scale.levels, **known)
    made = torch.stack([lookup.scale(item) for item in items])
    return Dataset(name, made, shape, lookup.scale.levels, **known)


@dataclass
class _Reader:
    """Items of a source as tensors of one shape, with the observed range of their values."""

    rows: Callable[[int], tuple[Any, Any]]
    shape: tuple[int, ...]
    low: float = float("inf")
    high: float = float("-inf")
    whole: bool = True

    def __len__(self) -> int:
        return len(self.rows)  # type: ignore[arg-type]

    def read(self, number: int) -> tuple[Tensor, Any]:
        """Return item ``number`` and its label."""
        image, label = self.rows(number)
        return _laid_out(_numbers(image, number, self.shape), self.shape, number), label

    def note(self, item: Tensor, number: int) -> None:
        """Widen the observed range of values by this item."""
        low, high = float(item.min()), float(item.max())
        if not np.isfinite(low + high):
            raise UserError(f"dataset: item {number} holds a number that is not finite.")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.whole = self.whole and not item.is_floating_point()


def _scanned(reader: _Reader) -> tuple[list[Tensor], list[Any]]:
    """Read everything once; return the items, or none of a set too large to hold, and all labels."""
    count = len(reader)
    if not count:
        raise UserError("dataset: it has no item.")
    first, _ = reader.read(0)
    held = first.nbytes * count <= RESIDENT or len(reader.shape) != 3
    items, labels = [], []
    for number in range(count):
        item, label = reader.read(number)
        reader.note(item, number)
        labels.append(label)
        if number < TWICE and not torch.equal(item, reader.read(number)[0]):
            raise UserError(
                f"dataset: item {number} is another one each time it is read; leave out random transforms "
                "(flip=True trains on mirror images as well)."
            )
        if held:
            items.append(item)
    return items, labels


@dataclass(frozen=True)
class _Scale:
    """From an item's numbers to levels: round((x + shift) * factor)."""

    levels: int
    shift: float = 0.0
    factor: float = 1.0

    def __call__(self, item: Tensor) -> Tensor:
        if self.factor == 1.0:
            return item.to(torch.uint8)
        return ((item.double() + self.shift) * self.factor).round().to(torch.uint8)


def _scale(reader: _Reader, levels: int | None) -> _Scale:
    """Return the scale that fits the range of all values.

    Raises:
        UserError: numbers of no known range.
    """
    count, low, high = levels or 256, reader.low, reader.high
    if not 2 <= count <= 256:
        raise UserError(f"fit.levels must lie between 2 and 256, got {count}.")
    if reader.whole:
        if low < 0 or high >= count:
            raise UserError(
                f"dataset: whole numbers from {low:g} to {high:g} are no levels 0 to {count - 1}; see levels."
            )
        return _Scale(count)
    if low >= 0 and high <= 1:
        return _Scale(count, 0.0, count - 1)
    if low >= -1 and high <= 1:
        return _Scale(count, 1.0, (count - 1) / 2)
    raise UserError(
        f"dataset: images hold numbers from {low:g} to {high:g}; expected levels as whole numbers, or numbers in "
        "[0, 1] or in [-1, 1]."
    )


@dataclass
class _Levels:
    """A set too large to hold, read item by item."""

    reader: _Reader
    scale: _Scale

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Tensor:
        return self.scale(self.reader.read(index)[0])


@dataclass
class _Rows:
    """Image and label of each row of a source."""

    source: Any
    columns: tuple[str, str | None] | None

    def __len__(self) -> int:
        return len(self.source)

    def __call__(self, number: int) -> tuple[Any, Any]:
        row = self.source[number]
        if hasattr(row, "keys"):
            image, label = _columns(self.columns, list(row.keys()))
            return row[image], None if label is None else row[label]
        if isinstance(row, tuple | list):
            if len(row) not in (1, 2):
                raise UserError(f"dataset: item {number} has {len(row)} parts; expected a pair (image, label).")
            return row[0], row[1] if len(row) == 2 else None
        return row, None


@dataclass
class _Arrays:
    """Images and labels side by side."""

    images: Any
    labels: Any

    def __len__(self) -> int:
        return len(self.images)

    def __call__(self, number: int) -> tuple[Any, Any]:
        return self.images[number], None if self.labels is None else self.labels[number]


def _rows(source: Any, columns: tuple[str, str | None] | None) -> Any:
    """Return the rows of a source, by number."""
    if isinstance(source, Tensor | np.ndarray):
        return _Arrays(source, None)
    if isinstance(source, tuple):
        if len(source) != 2 or not all(hasattr(part, "__len__") for part in source):
            raise UserError(f"dataset: expected a tuple (images, labels), got {shown(source)[:80]}.")
        if len(source[0]) != len(source[1]):
            raise UserError(f"dataset: {len(source[0])} images and {len(source[1])} labels are no pairs.")
        return _Arrays(*source)
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise UserError(
            f"dataset: expected a name, a folder, arrays or a data set with a length and items by number, got a "
            f"{type(source).__name__}."
        )
    return _Rows(source, columns)


def _columns(asked: tuple[str, str | None] | None, known: Sequence[str]) -> tuple[str, str | None]:
    """Return the columns of images and labels among those of a row.

    Raises:
        UserError: one is not there.
    """
    image, label = asked or ("image", "label" if "label" in known else None)
    for name in (image, label):
        if name is not None and name not in known:
            hint = nearest(name, list(known))
            raise UserError(f"fit.columns: there is no column {name!r}; columns are {listed(list(known))}.{hint}")
    return image, label


def _numbers(image: Any, number: int, shape: tuple[int, ...]) -> Tensor:
    """Return an image's or a vector's numbers as a tensor on the CPU."""
    mode = getattr(image, "mode", None)
    if isinstance(mode, str) and hasattr(image, "convert"):
        if mode not in PLAIN or "transparency" in image.info:
            raise UserError(f"dataset: item {number} is a picture of mode {mode}; convert it to RGB or L.")
        image = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"))
    try:
        found = torch.as_tensor(np.array(image) if isinstance(image, np.ndarray) else image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"dataset: item {number} is no image but {shown(image)[:80]}.") from error
    return found.detach().cpu()


def _laid_out(item: Tensor, shape: tuple[int, ...], number: int) -> Tensor:
    """Return an item with its dimensions in order; (H, W) and (H, W, C) are images too."""
    if tuple(item.shape) == shape:
        return item
    if len(shape) == 3 and item.dim() == 2 and (1, *item.shape) == shape:
        return item[None]
    if item.dim() == 3 and (item.shape[2], *item.shape[:2]) == shape:
        return item.permute(2, 0, 1).contiguous()
    raise UserError(
        f"dataset: item {number} has shape {tuple(item.shape)}, and the model makes items of shape {shape}."
    )


def _names(source: Any, columns: tuple[str, str | None] | None) -> list[str]:
    """Return the class names that a source knows."""
    names = getattr(source, "classes", None)
    features: Any = getattr(source, "features", None)
    if names is None and hasattr(features, "get"):
        names = getattr(features.get((columns or ("", "label"))[1]), "names", None)
    found = list(map(str, names or []))
    # torchvision calls the classes of MNIST "0 - zero", "1 - one" and so on.
    return [str(k) for k in range(len(found))] if all(n.startswith(f"{k} - ") for k, n in enumerate(found)) else found


def _classes(labels: list[Any], names: list[str]) -> tuple[Any, list[str]]:
    """Return the class numbers of the labels, None where there are none, and the names of classes."""
    if all(label is None for label in labels):
        return None, []
    if all(isinstance(label, str) for label in labels):
        classes = sorted(set(labels))
        numbers = {name: number for number, name in enumerate(classes)}
        return np.array([numbers[label] for label in labels], dtype=np.int64), classes
    found = np.array([_class(label, number) for number, label in enumerate(labels)], dtype=np.int64)
    if names and found.max() >= len(names):
        wrong = int(found.argmax())
        raise UserError(
            f"dataset: item {wrong} is of class {found[wrong]}, and there are {len(names)} names of classes."
        )
    return found, names


def _class(label: Any, number: int) -> int:
    try:
        found = operator.index(label.item() if hasattr(label, "item") else label)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"dataset: item {number} has the label {shown(label)[:80]}; expected a class number."
        ) from error
    if found < 0:
        raise UserError(f"dataset: item {number} has the label {found}; classes are counted from 0.")
    return found
