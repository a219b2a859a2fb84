"""Parts of a card that are the same for every kind of model."""

from collections.abc import Mapping

SECTIONS = ("utility", "forgetting", "privacy", "residue")


def method_lines(card: str | None) -> dict[str, str]:
    """Return the lines of a method's own card, such as its formula and source, by their names."""
    return dict(line.split(": ", 1) for line in (card or "").split("\n") if ": " in line)


def metric_of(number: str, metrics: Mapping[str, object]) -> str:
    """Return the metric that gives a number; the number's own name for a metric that is not known here."""
    return next((name for name, metric in metrics.items() if number in getattr(metric, "numbers", ())), number)
