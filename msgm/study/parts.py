"""Descriptions of metrics' numbers, for every domain."""

from dataclasses import dataclass
from typing import Literal

Section = Literal["utility", "forgetting", "privacy", "residue"]
"""The sections of a report card."""
UNIT = (0.0, 1.0)
NONNEGATIVE = (0.0, None)
"""Bounds of shares, accuracies and areas under curves."""


@dataclass(frozen=True)
class Number:
    """One number that a metric gives.

    Example:
        >>> Number("accuracy on the test items", "utility", "higher", UNIT).better
        'higher'

    Attributes:
        text: what it is, with its unit and range.
        section: of the report card.
        better: the direction; ``band`` where the retrained models' value is the goal and neither direction is.
        bounds: the least and the greatest value that it can have, None: any; intervals are shown within them.
    """

    text: str
    section: Section
    better: Literal["lower", "higher", "band"] = "band"
    bounds: tuple[float, float | None] | None = None
