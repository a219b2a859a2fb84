"""Train, validation and test parts of a data set: items to retain, to forget, and forgotten before."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError


@dataclass(frozen=True)
class Part:
    """Item numbers of one part of the data, as sorted int64 arrays that share no item.

    Attributes:
        retain: items to retain.
        forget: items of the present request.
        gone: items of earlier requests. No model trains on them and no quality is measured on them; they serve to test
            whether earlier requests still hold, and the instruments of such tests may read them.
    """

    retain: NDArray[np.int64]
    forget: NDArray[np.int64]
    gone: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def all(self) -> NDArray[np.int64]:
        """Retain and forget items together, sorted."""
        return np.sort(np.concatenate([self.retain, self.forget]))

    @property
    def whole(self) -> NDArray[np.int64]:
        """All items of the part, sorted; only for measuring instruments (judge, distances)."""
        return np.sort(np.concatenate([self.retain, self.forget, self.gone]))


@dataclass(frozen=True)
class Split:
    """A seeded train / validation / test split; validation and test are the held-out items."""

    train: Part
    validation: Part
    test: Part


def draw_parts(
    count: int,
    validation: float,
    test: float,
    seed: int,
    published_test: NDArray[np.bool_] | None = None,
    origin: NDArray[np.int64] | None = None,
) -> dict[str, NDArray[np.int64]]:
    """Return the sorted positions of the train, validation and test part; arguments and errors as in ``make_split``."""
    if origin is not None:
        return with_copies(draw_parts(len(np.unique(origin)), validation, test, seed, published_test), origin)
    shares = {"data.validation": validation} | ({} if published_test is not None else {"data.test": test})
    for key, share in shares.items():
        if not 0 < share < 1:
            raise UserError(f"{key} must lie between 0 and 1, got {share}.")
    if sum(shares.values()) >= 1:
        raise UserError(f"{' + '.join(shares)} must be below 1, got {sum(shares.values()):g}.")
    is_test = np.zeros(count, dtype=bool) if published_test is None else published_test[:count]
    rest = np.random.default_rng(seed).permutation(np.flatnonzero(~is_test))
    held = round(validation * len(rest))
    drawn_test = round(test * len(rest)) if published_test is None else 0
    parts = {
        "train": rest[held + drawn_test :],
        "validation": rest[:held],
        "test": np.concatenate([np.flatnonzero(is_test), rest[held : held + drawn_test]]),
    }
    return {name: np.sort(positions) for name, positions in parts.items()}


def with_copies(parts: dict[str, NDArray[np.int64]], origin: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Return parts with the copies, which come last, in the training part; see ``make_split``."""
    own = sum(map(len, parts.values()))
    for name, positions in parts.items():
        astray = positions[np.isin(positions, origin[own:])] if name != "train" else positions[:0]
        if len(astray):
            raise UserError(
                f"data.repeat: item {astray[0]} lies in the {name} part, and training items alone are repeated; name "
                "others, or set another data.split_seed."
            )
    return parts | {"train": np.concatenate([parts["train"], np.arange(own, len(origin))])}


def make_split(
    forget: NDArray[np.bool_],
    validation: float,
    test: float,
    seed: int,
    published_test: NDArray[np.bool_] | None = None,
    gone: NDArray[np.bool_] | None = None,
    origin: NDArray[np.int64] | None = None,
) -> Split:
    """Split ``len(forget)`` items; the parts depend on the seed alone, never on what is forgotten.

    Args:
        forget: boolean mask of the forget set; may be empty.
        validation: share of the items held out for thresholds and tuning (of the training items when a test set is
            published).
        test: share held out for the reported numbers; not used when a test set is published.
        seed: seed of the split.
        published_test: mask of the data set's own test items.
        gone: mask of the items of earlier requests; those that are asked for again stay gone.
        origin: positions of the items that each item is, where there are copies (``msgm.data.repeats``), all of which
            are trained on; the other items are split as they are without copies.

    Raises:
        UserError: shares outside (0, 1), copies of an item that is held out, or no training item left to retain or to
            forget.
    """
    numbers = draw_parts(len(forget), validation, test, seed, published_test, origin)
    return Split(**sorted_out(numbers, forget, np.zeros(len(forget), dtype=bool) if gone is None else gone))


def sorted_out(
    numbers: Mapping[str, NDArray[np.int64]], forget: NDArray[np.bool_], gone: NDArray[np.bool_]
) -> dict[str, Part]:
    """Sort the items of parts, the train part among them, into those to retain, to forget and gone; see ``make_split``.

    Raises:
        UserError: no training item is left to forget, or a part has none to retain.
    """
    kinds = (~forget & ~gone, forget & ~gone, gone)
    parts = {name: Part(*(n[kind[n]] for kind in kinds)) for name, n in numbers.items()}
    if forget.any() and not len(parts["train"].forget):
        before = forget[parts["train"].gone].any()
        reason = "all that it names was forgotten before" if before else "everything it names is held out"
        raise UserError(f"the request selects no training item: {reason}.")
    for name, part in parts.items():
        if not len(part.retain):
            reason = "all others are forgotten" if gone.any() else "the data set is too small for its shares"
            raise UserError(f"the {name} part has no item to retain: {reason}.")
    return parts
