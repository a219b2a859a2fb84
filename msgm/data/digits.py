"""scikit-learn's 1,797 handwritten digits, 8x8 pixels of 17 grey levels: real data that needs no download."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from msgm.data.base import DATASETS, Dataset, DataSettings


@DATASETS.register("digits")
@dataclass
class Digits(DataSettings):
    """The test part of UCI's "Optical Recognition of Handwritten Digits", as scikit-learn ships it.

    Example:
        >>> digits = Digits(test=0.2).load()
        >>> digits.items.shape, digits.levels
        (torch.Size([1797, 1, 8, 8]), 17)
    """

    def load(self) -> Dataset:
        """Read the digits from the installed scikit-learn."""
        digits = _digits()
        images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)
        return Dataset(
            name=self.name,
            items=images,
            shape=(1, 8, 8),
            levels=17,
            labels=digits.target.astype("int64"),
            classes=[str(k) for k in range(10)],
            flip=self.flip,
        )


@cache
def _digits() -> Any:
    """Return scikit-learn's digits; cached, as reading takes as long as a few training steps."""
    from sklearn.datasets import load_digits

    return load_digits()
