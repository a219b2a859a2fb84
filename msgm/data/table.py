"""Any table of numbers: CSV, tab-separated text, Parquet, or NumPy arrays."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from msgm.checks import at_least
from msgm.data.base import DATASETS, Dataset, DataSettings
from msgm.errors import UserError
from msgm.tabular import Column, read_table
from msgm.tabular.columns import parsed

MOST, FEW = 100, 10
"""Classes at most, and of numbers with fractions or with hardly a second row each."""


@DATASETS.register("table")
@dataclass
class Table(DataSettings):
    """Rows of numbers with a label, and with group columns such as a subject's id.

    The files are those of ``msgm.tabular.read_table``.

    Example:
        >>> np.savez(out / "plants.npz", height=[1.0, 2.0, 4.0], width=[3.0, 1.0, 1.0], kind=[0, 1, 0])
        >>> plants = Table(path="plants.npz", label="kind").load()
        >>> plants.items.shape, plants.labels
        (torch.Size([3, 2]), array([0, 1, 0]))

    Attributes:
        path: the file: .csv, .tsv, .parquet, .npz or .npy.
        label: the column of class labels, numbers or words; None for data without labels.
        groups: columns that a request may select by, such as a subject's id; no input of a model.
        drop: columns to leave out.
        max_classes: distinct labels at most. None refuses a column that looks like no class: more than 100 values, or
            more than 10 where they have fractions or half of the rows have one of their own; a number says how many
            there may be all the same.
    """

    path: str | None = None
    label: str | None = "label"
    groups: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)
    max_classes: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "data", "max_classes")

    def load(self) -> Dataset:
        """Read the table.

        Raises:
            UserError: no such file, an unknown column, a cell that is no number of float32, a label or a group's value
                that is missing, labels that look like no classes, or no column left as input.
        """
        if not self.path:
            raise UserError("data.path: say where the table is.")
        table = read_table(Path(self.path))
        groups = {name: np.array(table.find(name, "data.groups").values("a group's value")) for name in self.groups}
        dropped = [table.find(name, "data.drop").name for name in self.drop]
        labels, classes = (None, []) if self.label is None else self._classes(table.find(self.label, "data.label"))
        inputs = [name for name in table.names if name not in {self.label, *self.groups, *dropped}]
        if not inputs:
            raise UserError(f"{table.path}: no column is left as input after label, groups and drop.")
        if "" in inputs:
            raise UserError(
                f"{table.path}: a column has no name, like the row numbers of pandas; name it or leave it out."
            )
        items = np.stack([table[name].numbers() for name in inputs], axis=1)
        return Dataset(
            name=self.name,
            items=torch.from_numpy(items),
            shape=(len(inputs),),
            levels=None,
            labels=labels,
            classes=classes,
            groups=groups,
        )

    def _classes(self, column: Column) -> tuple[NDArray[np.int64], list[str]]:
        """Return class numbers and class names: in the order of numbers where all are numbers, else of the alphabet."""
        names, places = np.unique(np.array(column.values("a class")), return_inverse=True)
        numbers = parsed(names.tolist())
        numeric = bool(np.isfinite(numbers).all())
        self._check_count(column, len(names), numeric and bool((numbers % 1 != 0).any()))
        order = np.argsort(numbers, kind="stable") if numeric else np.arange(len(names))
        return np.argsort(order)[places].astype(np.int64), names[order].tolist()

    def _check_count(self, column: Column, count: int, fractions: bool) -> None:
        """Refuse labels that look like no classes."""
        usual = FEW if fractions else min(MOST, max(FEW, len(column) // 2))
        if count > (usual if self.max_classes is None else self.max_classes):
            raise UserError(
                f"data.label: column {column.name!r} of {self.path} has {count} distinct values: is this a class? "
                f"If it is, set data.max_classes to {count}."
            )
