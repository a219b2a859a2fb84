"""Finding items of a data set by their content."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.data.adapters import given
from msgm.data.base import Dataset, DataSettings
from msgm.errors import UserError

CHUNK = 1024


def same_content(dataset: Dataset, source: Any) -> NDArray[np.bool_]:
    """Return a mask of the items of ``dataset`` that have the content of an item of ``source``, whatever their label.

    Contents are compared as a model sees them: cropped, resized, and as grey levels.

    Args:
        dataset: where to look.
        source: the items, as any data set that ``given`` reads.

    Raises:
        UserError: items of another shape or of other levels, or an item that is not found.
    """
    whole = isinstance(source, str | Path | Mapping | Dataset | DataSettings)
    wanted = given(source, dataset.shape, None if whole else dataset.levels).dataset
    if (wanted.shape, wanted.levels) != (dataset.shape, dataset.levels):
        raise UserError(
            f"request.dataset: items of shape {wanted.shape} with {wanted.levels} levels, and the data set has "
            f"{dataset.shape} with {dataset.levels}."
        )
    places: dict[bytes, list[int]] = defaultdict(list)
    for number, content in enumerate(_contents(dataset)):
        places[content].append(number)
    mask = np.zeros(len(dataset), dtype=bool)
    for number, content in enumerate(_contents(wanted)):
        if content not in places:
            raise UserError(f"request.dataset: item {number} of those to forget is not in the data set.")
        mask[places[content]] = True
    return mask


def _contents(dataset: Dataset) -> Iterator[bytes]:
    """Yield a hash of every item; -0.0 and 0.0 are one number."""
    for start in range(0, len(dataset), CHUNK):
        items = dataset.take(np.arange(start, min(start + CHUNK, len(dataset))))
        for item in items if dataset.is_image else items + 0.0:
            yield blake2b(item.contiguous().numpy().tobytes(), digest_size=16).digest()
