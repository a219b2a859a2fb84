"""What a user hands over as a data set, as msgm sees it: items, classes, and which of the items are trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.data.base import DATASETS, Dataset, DataSettings, load_dataset
from msgm.errors import UserError
from msgm.splits import Part, sorted_out


@dataclass(frozen=True)
class Given:
    """A data set, and how it is split.

    Attributes:
        dataset: the items.
        settings: its settings, whose split says which items are trained on; None: all but a published test set.
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


def given(source: Any) -> Given:
    """Return what ``source`` is as a data set.

    Args:
        source: a name in ``DATASETS``, settings by name, a ``DataSettings``, all of which are split as their settings
            say; or a ``Dataset``, of which all items but a published test set are trained on.

    Raises:
        UserError: anything else, or data that cannot be read.
    """
    if isinstance(source, Dataset):
        return Given(source)
    if isinstance(source, str | Mapping):
        source = DATASETS.build({"name": source} if isinstance(source, str) else source)
    if isinstance(source, DataSettings):
        return Given(load_dataset(source), source)
    raise UserError(
        f"dataset: expected the name of a data set, its settings or a Dataset, got {type(source).__name__}."
    )
