"""User attributes as class numbers: users without a value are left out and counted, never guessed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError, nearest

UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Labels:
    """One attribute of all users.

    Attributes:
        name: of the attribute.
        values: its C values, sorted.
        codes: (U,) number of every user's value; -1 where it is not known.
    """

    name: str
    values: tuple[str, ...]
    codes: NDArray[np.int64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(U,) users whose value is known."""
        return self.codes != UNKNOWN

    @property
    def missing(self) -> int:
        """Number of users whose value is not known."""
        return int((~self.known).sum())

    def members(self) -> list[NDArray[np.int64]]:
        """Return the users of every class."""
        return [np.flatnonzero(self.codes == code) for code in range(len(self.values))]

    def one_hot(self) -> NDArray[np.float64]:
        """Return (U, C) class indicators; a row of zeros where the value is not known."""
        return (self.codes[:, None] == np.arange(len(self.values))).astype(np.float64)


def encode(attributes: Mapping[str, NDArray[np.str_]], without: NDArray[np.bool_] | None = None) -> list[Labels]:
    """Return the attributes as class numbers, in the order given.

    Args:
        attributes: name to (U,) text; empty text where the value is not known.
        without: (U,) users to treat as if no value of theirs were known.

    Raises:
        UserError: no attribute, or one with fewer than two values among the users who count.
    """
    if not attributes:
        raise UserError("no attribute is given; name at least one to erase.")
    return [_encoded(name, np.asarray(texts), without) for name, texts in attributes.items()]


def _encoded(name: str, texts: NDArray[np.str_], without: NDArray[np.bool_] | None) -> Labels:
    known = texts != ""
    if without is not None:
        known = known & ~without
    values, codes = np.unique(texts[known], return_inverse=True)
    if len(values) < 2:
        found = f"only the value {str(values[0])!r}" if len(values) else "no value"
        raise UserError(f"attribute {name!r} has {found}; an attribute needs at least two values to be hidden.")
    numbers = np.full(len(texts), UNKNOWN, dtype=np.int64)
    numbers[known] = codes
    return Labels(name, tuple(map(str, values)), numbers)


def chosen(attributes: Mapping[str, NDArray[np.str_]], names: Sequence[str]) -> dict[str, NDArray[np.str_]]:
    """Return the attributes with these names.

    Raises:
        UserError: one that the data do not have.
    """
    for name in names:
        if name not in attributes:
            known = sorted(attributes)
            listed = ", ".join(known) or "none"
            raise UserError(f"unknown attribute {name!r}; the data have {listed}.{nearest(name, known)}")
    return {name: attributes[name] for name in names}


def shuffled(labels: Labels, draws: np.random.Generator) -> Labels:
    """Return the values randomly permuted among the users who have one."""
    codes = labels.codes.copy()
    codes[labels.known] = draws.permutation(codes[labels.known])
    return replace(labels, codes=codes)
