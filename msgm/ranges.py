"""Search ranges of settings: a part declares them in its class attribute ``search``, in addition to its bases'."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Range:
    """The values of one setting that ``msgm tune`` tries, both ends included.

    Example:
        >>> Range(0.01, 1.0, log=True).including(2.0)
        Range(low=0.01, high=2.0, log=True)

    Attributes:
        low: the least value; above 0 where ``log`` is set.
        high: the greatest value.
        log: draw evenly in the logarithm, for settings such as rates.
    """

    low: float
    high: float
    log: bool = False

    def including(self, value: float) -> "Range":
        """Return the range, widened where it does not hold ``value``."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def rounded(self, value: float) -> float:
        """Return ``value`` with four significant digits, within the range.

        >>> Range(0.5, 0.999).rounded(0.987654)
        0.9877
        """
        return min(max(float(f"{value:.4g}"), self.low), self.high)


def ranges(**of_settings: Range) -> Mapping[str, Range]:
    """Return ranges by the names of settings, as a class keeps them."""
    return MappingProxyType(of_settings)


def searched(part: Any, settings: Mapping[str, Any]) -> dict[str, Range]:
    """Return the ranges that a part declares for those of its ``settings`` that have a value, widened to hold it.

    A setting that is no number is not searched, as another one replaces it or a rule chooses it; nor is one that is 0
    with a logarithmic range, as 0 turns it off.

    Args:
        part: an exchangeable part or its class; one without ``search`` has nothing to search, and one with
            ``unsearched`` leaves the settings of these names as they are.
        settings: the values that it has now.
    """
    cls = part if isinstance(part, type) else type(part)
    declared: dict[str, Range] = {}
    for base in reversed(cls.__mro__):
        declared |= vars(base).get("search", {})
    return {
        name: found.including(float(settings[name]))
        for name, found in declared.items()
        if isinstance(settings.get(name), int | float)
        and not (found.log and settings[name] <= 0)
        and name not in getattr(part, "unsearched", ())
    }
