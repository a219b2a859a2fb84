"""Shared parts of comparison configs: settings of rows (methods), and the choice of metrics."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from msgm.errors import UserError, known
from msgm.fields import Settings
from msgm.folders import check_names
from msgm.registry import Registry

T = TypeVar("T")
SECTIONS = ("model", "methods", "erasure", "obfuscation", "request")
"""What errors of a row's settings begin with, before they are told the row."""


def resolved(
    place: str, given: Mapping[str, Any], resolve: Callable[[Settings], Settings], taken: Sequence[str] = ()
) -> dict[str, Settings | None]:
    """Return the settings of rows with defaults, as ``resolve`` fills them in; None where a row is left out.

    Args:
        place: of the rows in the config, which errors name.
        given: each row's settings, in which ``name`` is by default the row's.
        resolve: fills in the defaults.
        taken: names that no row may have.

    Raises:
        UserError: names that cannot be those of files, or settings that a row does not have.
    """
    check_names(given, place, taken)
    return {row: _resolved(f"{place}.{row}", row, own, resolve) for row, own in given.items()}


def _resolved(place: str, row: str, own: Any, resolve: Callable[[Settings], Settings]) -> Settings | None:
    if own is None:
        return None
    if not isinstance(own, dict):
        raise UserError(f"{place}: expected settings by name, or null to leave it out, got {own!r}.")
    return below(place, lambda: resolve({"name": row} | own))


def below(place: str, make: Callable[[], T]) -> T:
    """Return ``make()``; a UserError of it is raised again with ``place`` as its section."""
    try:
        return make()
    except UserError as error:
        text = re.sub(rf"^({'|'.join(SECTIONS)})\.", ".", str(error))
        raise UserError(f"{place}{text}" if text.startswith(".") else f"{place}: {text}") from error


def built_rows(registry: Registry[T], rows: Mapping[str, Settings | None]) -> dict[str, T]:
    """Return the methods by row name, without those set to null."""
    return {name: registry.build(settings) for name, settings in rows.items() if settings is not None}


def chosen_metrics(registry: Registry[T], names: Sequence[str] | None, options: Mapping[str, Settings]) -> list[T]:
    """Return the metrics to measure.

    Args:
        registry: of metrics; those that are ``costly`` are measured when they are named.
        names: of the metrics; None takes all but the costly ones.
        options: a metric's own settings, by its name.

    Raises:
        UserError: an unknown metric, or options of one that does not have them.
    """
    for key, given in (("options", options), ("metrics", names or [])):
        for name in given:
            known(name, list(registry.entries), key, "metric")
    usual = [name for name, cls in registry.entries.items() if not getattr(cls, "costly", False)]
    return registry.choose(usual if names is None else names, options, "options")
