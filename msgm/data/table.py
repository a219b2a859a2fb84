"""Any table of numbers: a CSV file with a line of names, or NumPy arrays."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from msgm.data.base import DATASETS, Dataset, DataSettings
from msgm.errors import UserError, nearest

Column: TypeAlias = NDArray[Any]
FORMS = "expected a .csv, .npz or .npy file"


@DATASETS.register("table")
@dataclass
class Table(DataSettings):
    """Rows of numbers with a label, and with columns that say whose they are.

    A CSV file names its columns in the first line. An ``.npz`` file holds one array a column; a two-dimensional one,
    such as ``features``, gives several, which are named ``features.0``, ``features.1`` and so on. The columns of an
    ``.npy`` array are named ``0``, ``1`` and so on.

    Attributes:
        path: the file.
        label: the column of class labels, numbers or words; None for data without labels.
        groups: columns that a request may select by, such as a subject's id; no input of a model.
        drop: columns to leave out.
    """

    path: str | None = None
    label: str | None = "label"
    groups: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)

    def load(self) -> Dataset:
        """Read the table.

        Raises:
            UserError: no such file, an unknown column, a cell that is no finite number, or no column left as input.
        """
        if not self.path:
            raise UserError(f"data.path: say where the table is; {FORMS}.")
        path = Path(self.path)
        columns = read_columns(path)
        self._check_names(path, list(columns))
        other = {self.label, *self.groups, *self.drop}
        inputs = [name for name in columns if name not in other]
        if not inputs:
            raise UserError(f"{path}: no column is left as input after label, groups and drop.")
        items = np.stack([_numbers(path, name, columns[name]) for name in inputs], axis=1)
        labels, classes = (None, []) if self.label is None else _classes(path, self.label, columns[self.label])
        return Dataset(
            name=self.name,
            items=torch.from_numpy(items),
            shape=(len(inputs),),
            levels=None,
            labels=labels,
            classes=classes,
            groups={name: columns[name].astype(str) for name in self.groups},
        )

    def _check_names(self, path: Path, known: list[str]) -> None:
        wanted = {"label": [self.label] if self.label else [], "groups": self.groups, "drop": self.drop}
        for key, names in wanted.items():
            for name in names:
                if name not in known:
                    raise UserError(
                        f"data.{key}: {path} has no column {name!r}; it has {_list(known)}.{nearest(name, known)}"
                    )


def read_columns(path: Path) -> dict[str, Column]:
    """Return a table's columns, in their order: text from CSV, else as they were stored.

    Raises:
        UserError: the file cannot be read, has no row, a name twice, or lines of different lengths.
    """
    readers = {".csv": _from_csv, ".npz": _from_numpy, ".npy": _from_numpy}
    if path.suffix.lower() not in readers:
        raise UserError(f"data.path: {path} is of no known kind; {FORMS}.")
    try:
        named = readers[path.suffix.lower()](path)
    except UserError:
        raise
    except (OSError, ValueError, csv.Error, BadZipFile) as error:
        raise UserError(f"data.path: cannot read {path}: {error}.") from error
    names = [name for name, _ in named]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{path} has two columns named {twice[0]!r}.")
    columns = dict(named)
    lengths = {name: len(column) for name, column in columns.items()}
    if not max(lengths.values(), default=0):
        raise UserError(f"{path} holds no row.")
    if len(set(lengths.values())) > 1:
        raise UserError(f"{path}: its arrays differ in length: {lengths}.")
    return columns


def _from_csv(path: Path) -> list[tuple[str, Column]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        names = [name.strip() for name in next(lines, [])]
        rows = []
        for line in filter(None, lines):
            if len(line) != len(names):
                raise UserError(f"{path}, line {lines.line_num}: {len(line)} cells for {len(names)} columns.")
            rows.append([cell.strip() for cell in line])
    return [(name, np.array([row[k] for row in rows], dtype=str)) for k, name in enumerate(names)]


def _from_numpy(path: Path) -> list[tuple[str, Column]]:
    found = np.load(path, allow_pickle=False)
    arrays = {name: found[name] for name in found.files} if isinstance(found, np.lib.npyio.NpzFile) else {"": found}
    return [column for name, array in arrays.items() for column in _flat(path, name, array)]


def _flat(path: Path, name: str, array: NDArray[Any]) -> Iterator[tuple[str, Column]]:
    if array.ndim not in (1, 2):
        raise UserError(f"{path}: array {name!r} has shape {array.shape}; expected one or two dimensions.")
    if array.ndim == 1:
        yield name or "0", array
    else:
        for k in range(array.shape[1]):
            yield f"{name}.{k}".removeprefix("."), array[:, k]


def _numbers(path: Path, name: str, column: Column) -> NDArray[np.float32]:
    """Return a column as float32; the first cell that is no finite number is named with its place."""
    values = _parsed(column)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        text = str(column[wrong[0]])
        raise UserError(f"{path}, {_place(path, wrong[0])}, column {name}: expected a finite number, got {text!r}.")
    return values.astype(np.float32)


def _parsed(column: Column) -> NDArray[np.float64]:
    """Return a column as numbers, NaN where a cell is none."""
    if column.dtype.kind in "biuf":
        return column.astype(np.float64)
    return np.array([_number(cell) for cell in column.astype(str).tolist()])


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _place(path: Path, row: int) -> str:
    return f"line {row + 2}" if path.suffix.lower() == ".csv" else f"row {row}"


def _classes(path: Path, name: str, column: Column) -> tuple[NDArray[np.int64], list[str]]:
    """Return class numbers and class names: in the order of numbers where all are numbers, else of the alphabet."""
    text = column.astype(str)
    missing = np.flatnonzero((text == "") | (text == "nan"))
    if len(missing):
        raise UserError(f"{path}, {_place(path, missing[0])}, column {name}: the label is missing.")
    names, places = np.unique(text, return_inverse=True)
    numbers = _parsed(names)
    order = np.argsort(numbers, kind="stable") if np.isfinite(numbers).all() else np.arange(len(names))
    return np.argsort(order)[places].astype(np.int64), names[order].tolist()


def _list(names: list[str]) -> str:
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
