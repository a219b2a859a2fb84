"""Pictures with one or two of scikit-learn's digits, and captions that say what stands there, and where, and how."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.checks import at_least
from msgm.data.base import DATASETS, Dataset, DataSettings
from msgm.data.captions import packed
from msgm.data.digits import Digits
from msgm.data.measures import Measure
from msgm.errors import UserError
from msgm.splits import draw_parts, with_copies

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 8
"""Pixels of a place's side; a picture has two places, one beside the other."""
BLANK = -1
KINDS: dict[str, Measure] = {"slanted": "slant", "thick": "stroke"}
"""The measured attributes that captions name."""
UPPER = 0.75
"""The quantile, of the training digits of a class, above which a digit has an attribute.

Over all classes the upper quarter by slant would be sevens, and one six: a class has its own threshold.
"""
OF_ONE = 5 + len(KINDS)
"""Prompts that name one class by itself."""


class Canvases(NamedTuple):
    """Which digits stand on each picture.

    Attributes:
        places: (N, 2) position of the digit at the left and at the right place, -1 where it is blank.
        part: (N,) the name of the part that the picture's digits are of.
    """

    places: NDArray[np.int64]
    part: NDArray[np.str_]


@DATASETS.register("captioned-digits")
@dataclass
class CaptionedDigits(DataSettings):
    """Pictures of 8x16 pixels with scikit-learn's digits in two places, and captions of them.

    Every digit stands alone at the left and alone at the right, and ``pairs`` times on either side of a pair. Digits
    are split into parts first, and a picture is of the part that its digits are of, so that no held-out picture shows a
    digit that was trained on.

    One digit has the captions "seven", "7", "the digit after six" (of a zero "the digit before one"), "a seven on the
    left" or "a seven on the right", and, where its slant or its stroke is in the upper quarter of the training part's
    sevens (``msgm.data.measures``), "a slanted seven" or "a thick seven". A pair has "seven and two". The first caption
    is the one that a picture is measured by.

    Example:
        >>> canvases = CaptionedDigits(pairs=1).load()
        >>> canvases.items.shape, len(canvases.prompts)
        (torch.Size([5391, 1, 8, 16]), 170)
        >>> [canvases.prompts[k] for k in canvases.captions[7] if k >= 0][:4]
        ['seven', '7', 'the digit after six', 'a seven on the left']

    Attributes:
        pairs: how many pairs every digit is the left part of; as often it is the right one.

    Raises:
        UserError: ``flip``, which would mirror the digits and exchange left and right.
    """

    pairs: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "data", "pairs")
        if self.flip:
            raise UserError("data.flip: mirror images would not be what the captions say; leave it off.")

    def load(self) -> Dataset:
        """Read the digits from the installed scikit-learn, and make the pictures."""
        digits = Digits().load()
        assert digits.labels is not None
        assert isinstance(digits.items, Tensor)
        canvases = self._canvases()
        prompts, named = vocabulary(pairs=self.pairs > 0)
        shown = np.where(canvases.places == BLANK, BLANK, digits.labels[canvases.places])
        return Dataset(
            name=self.name,
            items=_pictures(canvases, digits.items),
            shape=(1, SIDE, 2 * SIDE),
            levels=digits.levels,
            classes=digits.classes,
            groups={"digits": np.array([" ".join(str(k) for k in row if k != BLANK) for row in shown])},
            prompts=prompts,
            captions=_captions(canvases, shown, self._attributes(digits)),
            named=named,
        )

    def parts(self, dataset: Dataset) -> dict[str, NDArray[np.int64]]:
        part = self._canvases().part
        found = {name: np.flatnonzero(part == name) for name in ("train", "validation", "test")}
        return found if dataset.origin is None else with_copies(found, dataset.origin)

    def _digit_parts(self) -> dict[str, NDArray[np.int64]]:
        return draw_parts(len(Digits().load()), self.validation, self.test, self.split_seed)

    def _canvases(self) -> Canvases:
        """Return the pictures: each digit at the left, each at the right, then pairs of digits of the same part."""
        parts = self._digit_parts()
        part = np.empty(sum(map(len, parts.values())), dtype="<U10")
        for name, members in parts.items():
            part[members] = name
        every, nothing = np.arange(len(part)), np.full(len(part), BLANK)
        places = np.concatenate(
            [np.stack(pair, 1) for pair in ((every, nothing), (nothing, every), *self._pairs(parts))]
        )
        return Canvases(places, part[places.max(1)])

    def _pairs(self, parts: Mapping[str, NDArray[np.int64]]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield digits and, beside each, another digit of its part."""
        draws = np.random.default_rng(self.split_seed)
        for _ in range(self.pairs):
            for members in parts.values():
                left = draws.permutation(members)
                yield left, np.roll(left, 1)

    def _attributes(self, digits: Dataset) -> NDArray[np.bool_]:
        """Return (digits, kinds) which digits have which attribute, cut at quantiles of the training part's classes."""
        assert digits.labels is not None
        train, found = self._digit_parts()["train"], []
        for kind in KINDS.values():
            numbers = digits.numbers(kind, np.arange(len(digits)))
            cuts = [np.quantile(numbers[train[digits.labels[train] == k]], UPPER) for k in range(len(WORDS))]
            found.append(numbers > np.array(cuts)[digits.labels])
        return np.stack(found, 1)


def vocabulary(pairs: bool = True) -> tuple[list[str], list[tuple[int, ...]]]:
    """Return the prompts, and the digits that each names, from left to right.

    Example:
        >>> prompts, named = vocabulary()
        >>> prompts[56:60], named[56:60]
        (['eight', '8', 'the digit after seven', 'an eight on the left'], [(8,), (8,), (8,), (8,)])
        >>> prompts[-1], named[-1]
        ('nine and nine', (9, 9))
    """
    prompts: list[str] = []
    named: list[tuple[int, ...]] = []
    for k, word in enumerate(WORDS):
        near = f"after {WORDS[k - 1]}" if k else f"before {WORDS[1]}"
        one = f"{'an' if word == 'eight' else 'a'} {word}"
        prompts += [word, str(k), f"the digit {near}", f"{one} on the left", f"{one} on the right"]
        prompts += [f"a {kind} {word}" for kind in KINDS]
        named += [(k,)] * OF_ONE
    if pairs:
        prompts += [f"{left} and {right}" for left in WORDS for right in WORDS]
        named += [(left, right) for left in range(len(WORDS)) for right in range(len(WORDS))]
    return prompts, named


def _pictures(canvases: Canvases, digits: Tensor) -> Tensor:
    """Return (N, 1, 8, 16) pictures."""
    with_blank = torch.cat([digits, torch.zeros_like(digits[:1])])  # at which -1 points
    left, right = (with_blank[torch.from_numpy(column)] for column in canvases.places.T)
    return torch.cat([left, right], dim=3)


def _captions(canvases: Canvases, shown: NDArray[np.int64], attributes: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return (N, K) numbers of the pictures' prompts in ``vocabulary``.

    Args:
        canvases: the pictures.
        shown: (N, 2) the digits' classes.
        attributes: (digits, kinds) which digits have which attribute.
    """
    left, right = shown.T
    is_pair, first = (shown != BLANK).all(1), OF_ONE * shown.max(1)
    columns = [np.where(is_pair, OF_ONE * len(WORDS) + len(WORDS) * left + right, first)]
    columns += [np.where(is_pair, BLANK, first + place) for place in (1, 2)]
    columns += [np.where(is_pair, BLANK, first + 3 + (left == BLANK))]
    for kind in range(len(KINDS)):
        has = attributes[canvases.places.max(1), kind] & ~is_pair
        columns += [np.where(has, first + OF_ONE - len(KINDS) + kind, BLANK)]
    return packed(np.stack(columns, axis=1))
