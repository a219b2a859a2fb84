"""Copies of items in the training part: the items that a model sees often are those that it learns by heart.

A data set with copies has its own items first, at their own positions, and the copies after them. ``origin`` is the
position of the item that each one is: its own, or the copied one's. Copies lie in the training part with their item,
and a request that names one of them names them all.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError, nearest
from msgm.ids import as_id, as_index, shown

KEY = "data.repeat"


def checked(repeat: Mapping[str, Sequence[int | str]]) -> dict[str, list[int | str]]:
    """Return the setting ``data.repeat`` with its numbers of times as text, as a config has them.

    Raises:
        UserError: a number of times below 1.
    """
    found = {}
    for times, items in repeat.items():
        if as_index(times, KEY) < 1:
            raise UserError(
                f"{KEY}: expected how many times items are to stand in the data, from 1, got {shown(times)}."
            )
        found[str(as_index(times, KEY))] = list(items)
    return found


def origins(repeat: Mapping[str, Sequence[int | str]], size: int, names: Sequence[str] = ()) -> NDArray[np.int64]:
    """Return the position of the item that each item of the longer data set is, copies last.

    Example:
        >>> origins({"3": [1]}, size=4).tolist()
        [0, 1, 2, 3, 1, 1]

    Args:
        repeat: how many times, as text, to the items that stand in the data so often, by position or by name.
        size: number of items without copies.
        names: names of the items, where they have any.

    Raises:
        UserError: an unknown or repeated item.
    """
    times = np.zeros(size, dtype=np.int64)
    places = {name: place for place, name in enumerate(names)}
    for count, items in repeat.items():
        for item in items:
            place = _place(item, size, places, f"{KEY}.{count}")
            if times[place]:
                raise UserError(f"{KEY}.{count}: item {item} is named twice.")
            times[place] = int(count)
    own = np.arange(size, dtype=np.int64)
    return np.concatenate([own, np.repeat(own, np.maximum(times - 1, 0))])


def _place(item: int | str, size: int, places: Mapping[str, int], key: str) -> int:
    """Return the position of the item of a name, or of a position in decimal digits."""
    name = as_id(item, key, "an item")
    if name in places:
        return places[name]
    if places and not name.isdecimal():
        raise UserError(f"{key}: no item is named {name!r}.{nearest(name, list(places))}")
    place = as_index(item, key)
    if not 0 <= place < size:
        raise UserError(f"{key}: index {place} is out of range; the data set has items 0 to {size - 1}.")
    return place
