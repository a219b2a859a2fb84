"""Converts a user's data set to msgm's: items, classes, and which of the items are trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.data.base import DATASETS, Dataset, DataSettings, load_dataset
from msgm.data.folder import Folder
from msgm.data.foreign import foreign
from msgm.errors import UserError, nearest
from msgm.ids import listed
from msgm.splits import Part, sorted_out


@dataclass(frozen=True)
class Given:
    """A data set, and how it is split.

    Attributes:
        dataset: the items.
        settings: its settings, which define the split; None: all items except a published test set are trained on.
    """

    dataset: Dataset
    settings: DataSettings | None = None

    def part(self, forget: NDArray[np.bool_], gone: NDArray[np.bool_]) -> Part:
        """Return the training items; errors as in ``make_split``.

        Args:
            forget: (N,) mask of the items to forget.
            gone: (N,) mask of the items of earlier requests.
        """
        if self.settings is not None:
            return self.settings.split_by(self.dataset, forget, gone).train
        test = self.dataset.test
        trained = np.arange(len(self.dataset)) if test is None else np.flatnonzero(~test)
        return sorted_out({"train": trained}, forget, gone)["train"]

    def split_facts(self) -> dict[str, float | int]:
        """Return the settings that say which items are held out, by name."""
        if self.settings is not None:
            return self.settings.split_facts(self.dataset)
        return {"data.validation": 0.0, **({} if self.dataset.test is not None else {"data.test": 0.0})}


def given(
    source: Any,
    shape: tuple[int, ...],
    levels: int | None = None,
    columns: tuple[str, str | None] | None = None,
    flip: bool = False,
) -> Given:
    """Return ``source`` converted to a data set of items of ``shape``.

    Args:
        source: a name in ``DATASETS``, settings by name or a ``DataSettings``, which are split as they say; or, used
            whole, a ``Dataset``, the folder of pictures at a path, or what ``foreign`` reads.
        shape: of an item: (C, H, W) of images, (D,) of vectors.
        levels: grey levels of an image channel; see ``foreign``.
        columns: names of the columns with images and labels; see ``foreign``.
        flip: train on random left-right mirror images as well.

    Raises:
        UserError: anything else, or data that cannot be read.
    """
    if isinstance(source, Path) or (isinstance(source, str) and source not in DATASETS.entries):
        _refuse_options(levels=levels, columns=columns)
        return Given(load_dataset(_folder(source, shape, flip)))
    if isinstance(source, Mapping) and "name" not in source:
        raise UserError(
            f"dataset: expected one data set, got several by name: {listed([*map(str, source)])}; give one."
        )
    if isinstance(source, str | Mapping):
        source = DATASETS.build({"name": source} if isinstance(source, str) else source)
    if isinstance(source, DataSettings | Dataset):
        _refuse_options(levels=levels, columns=columns, flip=flip or None)
        return Given(source) if isinstance(source, Dataset) else Given(load_dataset(source), source)
    return Given(foreign(source, shape, levels, columns, flip))


def _folder(path: str | Path, shape: tuple[int, ...], flip: bool) -> Folder:
    """Return the settings that read a folder's pictures for a model."""
    if not Path(path).is_dir():
        known = [*DATASETS.entries]
        raise UserError(
            f"dataset: {str(path)!r} is no folder, and no data set: {listed(known)}.{nearest(str(path), known)}"
        )
    if len(shape) != 3 or shape[1] != shape[2]:
        raise UserError(
            f"dataset: a folder's pictures become square images, and the model makes items of shape {shape}."
        )
    return Folder(root=str(path), size=shape[1], channels=shape[0], flip=flip)


def _refuse_options(**options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise UserError(f"fit.{name}: this data set says it itself; leave the option out.")
