"""A name for every exchangeable part, and settings checked against the part's own dataclass."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Generic, TypeVar

from msgm.errors import UserError, nearest
from msgm.fields import by_name, structured, typed

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to dataclasses; a section of the configuration picks one by its key ``name``."""

    def __init__(self, section: str) -> None:
        self.section = section
        self.entries: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return a class decorator that files a dataclass under ``name``."""

        def add(cls: type[T]) -> type[T]:
            cls.name = name  # type: ignore[attr-defined]
            self.entries[name] = cls
            return cls

        return add

    def build(self, settings: Mapping[str, Any]) -> T:
        """Make the part that ``settings["name"]`` picks from the other settings.

        Raises:
            UserError: unknown name, unknown key, wrong type or a value that the part itself refuses.
        """
        values = by_name(settings, self.section)
        known = sorted(self.entries)
        if "name" not in values:
            raise UserError(f"{self.section}.name: the setting is missing; known: {', '.join(known)}.")
        name = typed(values.pop("name"), str, f"{self.section}.name")
        if name not in self.entries:
            hint, what = (
                nearest(name, known),
                {"methods": "method", "metrics": "metric"}.get(self.section, self.section),
            )
            raise UserError(f"{self.section}.name: unknown {what} {name!r}; known: {', '.join(known)}.{hint}")
        self._refuse_foreign(name, values)
        return structured(self.entries[name], values, self.section)

    def _refuse_foreign(self, name: str, values: Mapping[str, Any]) -> None:
        """Refuse a setting of another entry, which may remain in a file when only the name is changed."""
        own = _settings(self.entries[name])
        for key in values.keys() - own:
            owners = [repr(other) for other, cls in self.entries.items() if key in _settings(cls)]
            if owners:
                raise UserError(
                    f"{self.section}.{key}: {key} belongs to {self.section} {' and '.join(sorted(owners))}; "
                    f"{self.section} {name!r} has {', '.join(own) or 'no settings'}."
                )

    def resolve(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``settings`` with every default of the picked part filled in."""
        part: Any = self.build(settings)
        return {"name": part.name} | {f.name: plain(getattr(part, f.name)) for f in fields(part) if f.init}


def card(part: type[Any]) -> str:
    """Return the description of a part: its own card, or its docstring and the defaults of its settings."""
    describe: Callable[[], str] | None = getattr(part, "describe", None)
    if describe is not None:
        return describe()
    defaults = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(part)}
    told = [f"{name} {'(needed)' if value is MISSING else value}" for name, value in defaults.items()]
    return f"{inspect.getdoc(part) or ''}\ndefaults: {', '.join(told) or 'no settings'}"


def _settings(cls: type[Any]) -> list[str]:
    return [f.name for f in fields(cls) if f.init]


def plain(value: Any) -> Any:
    """Turn tuples into lists, so that resolved settings are plain YAML and JSON."""
    return [plain(v) for v in value] if isinstance(value, tuple | list) else value
