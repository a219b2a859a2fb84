"""Attributes that are measured from a picture: its items lie beyond a quantile of a number of the training items.

Such an attribute needs no labels and no network: the formula that chose the items decides whether a sample has it. A
picture is read as *ink*, its grey levels scaled to [0, 1] with 0 for black, averaged over channels. With the ink's
centre (x_c, y_c), y upwards, and its moments mu_pq = sum ink (x - x_c)^p (y - y_c)^q:

    slant = mu_11 / mu_02               the shear that would set it upright; above 0 it leans to the right
    ink = mean ink
    stroke = 2 sum ink / sum |grad ink|   in pixels: a long line of width w and length L has ink w L and an edge of 2 L
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.errors import UserError

Measure = Literal["slant", "ink", "stroke"]
CHUNK = 4096
TINY = 1e-9
"""Ink below which a picture is blank, and has slant and stroke 0."""


@dataclass(frozen=True)
class Attribute:
    """How an attribute is measured: the upper or the lower part of the training items by a number.

    Attributes:
        measure: the number: ``slant``, ``ink`` or ``stroke``.
        above: items above this quantile have the attribute; .75 takes the upper quarter.
        below: items below this quantile have it; one of the two is given.
    """

    measure: Measure
    above: float | None = None
    below: float | None = None

    @property
    def quantile(self) -> float:
        """The quantile that is given."""
        return float(self.below if self.above is None else self.above)  # type: ignore[arg-type]

    def check(self, key: str) -> None:
        """Raise a UserError that names ``key`` unless one quantile inside (0, 1) is given."""
        if (self.above is None) == (self.below is None):
            raise UserError(f"{key}: give one of above and below, the quantile of the training items to cut at.")
        if not 0 < self.quantile < 1:
            raise UserError(f"{key}: the quantile must lie between 0 and 1, got {self.quantile}.")


@dataclass(frozen=True)
class Rule:
    """Whether pictures have a measured attribute.

    Example:
        >>> slanted = {"measure": "slant", "above": 0.75}
        >>> digits = msgm.load_dataset({"name": "digits", "attributes": {"slanted": slanted}})
        >>> digits.measured["slanted"].text
        'slant above 0.3, the 75% quantile of the training items'

    Attributes:
        measure: name of the number.
        threshold: a picture has the attribute beyond it.
        above: whether beyond means above.
        spread: standard deviation of the training items' number.
        text: the rule in words.
    """

    measure: Measure
    threshold: float
    above: bool
    spread: float
    text: str

    @classmethod
    def of(cls, attribute: Attribute, training: NDArray[np.float64]) -> "Rule":
        """Return the rule of an attribute, by the numbers of the training items."""
        threshold = float(np.quantile(training, attribute.quantile))
        side = "above" if attribute.above is not None else "below"
        text = (
            f"{attribute.measure} {side} {threshold:.4g}, the {attribute.quantile:.0%} quantile of the training items"
        )
        return cls(attribute.measure, threshold, side == "above", float(training.std()), text)

    def holds(self, numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return a mask of the numbers beyond the threshold."""
        return np.asarray(numbers > self.threshold if self.above else numbers < self.threshold)

    def close(self, numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return a mask of the numbers within a tenth of a standard deviation of the threshold."""
        return np.asarray(np.abs(numbers - self.threshold) < self.spread / 10)


def measured(measure: Measure, items: Tensor, levels: int) -> NDArray[np.float64]:
    """Return (B,) the numbers of (B, C, H, W) raw pictures of ``levels`` grey levels."""
    parts = [MEASURES[measure](part.double().mean(1) / (levels - 1)) for part in items.split(CHUNK)]
    return torch.cat(parts).cpu().numpy()


def _slant(ink: Tensor) -> Tensor:
    x, y = _around_the_centre(ink)
    upright = (ink * y**2).sum((1, 2))
    return torch.where(upright > TINY, (ink * x * y).sum((1, 2)) / upright.clamp_min(TINY), 0.0)


def _around_the_centre(ink: Tensor) -> tuple[Tensor, Tensor]:
    """Return x to the right and y upwards of the pixels of (B, H, W) pictures, from the centres of their ink."""
    height, width = ink.shape[1:]
    y = -torch.arange(height, dtype=ink.dtype, device=ink.device)[:, None].expand(height, width)
    x = torch.arange(width, dtype=ink.dtype, device=ink.device).expand(height, width)
    mass = ink.sum((1, 2), keepdim=True).clamp_min(TINY)
    return x - (ink * x).sum((1, 2), keepdim=True) / mass, y - (ink * y).sum((1, 2), keepdim=True) / mass


def _stroke(ink: Tensor) -> Tensor:
    inside = torch.nn.functional.pad(ink, (1, 1, 1, 1))
    right, down = inside[:, :-1, 1:] - inside[:, :-1, :-1], inside[:, 1:, :-1] - inside[:, :-1, :-1]
    edge = (right**2 + down**2).sqrt().sum((1, 2))
    return torch.where(edge > TINY, 2 * ink.sum((1, 2)) / edge.clamp_min(TINY), 0.0)


MEASURES: dict[str, Callable[[Tensor], Tensor]] = {
    "slant": _slant,
    "ink": lambda ink: ink.mean((1, 2)),
    "stroke": _stroke,
}
"""Each maps (B, H, W) ink to (B,) numbers."""
