"""A name for every exchangeable part, and settings checked against the part's own dataclass."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Generic, TypeVar

from msgm.errors import UserError, nearest, placed
from msgm.fields import by_name, structured, typed

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to dataclasses; a section of the configuration picks one by its key ``name``.

    Example:
        >>> from dataclasses import dataclass
        >>> SHAPES = Registry("shape")
        >>> @SHAPES.register("disc")
        ... @dataclass
        ... class Disc:
        ...     radius: float = 1.0
        >>> SHAPES.build({"name": "disc", "radius": "2.5"}).radius
        2.5
    """

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

    def make(self, name: str, settings: Mapping[str, Any], place: str) -> T:
        """Make the part ``name`` from its own settings, which stand at ``place`` in the config and do not name it.

        Raises:
            UserError: unknown key, wrong type or a value that the part itself refuses.
        """
        return structured(self.entries[name], settings, place)

    def choose(self, names: Sequence[str], settings: Mapping[str, Mapping[str, Any]], place: str) -> list[T]:
        """Make the parts ``names`` from those of ``settings``, by part, which stand at ``place`` in the config.

        Raises:
            UserError: what ``make`` raises, also for settings of a part that is not chosen.
        """
        made = {name: self.make(name, settings.get(name, {}), f"{place}.{name}") for name in [*settings, *names]}
        return [made[name] for name in names]

    def build(self, settings: Mapping[str, Any], place: str | None = None) -> T:
        """Make the part that ``settings["name"]`` picks from the other settings.

        Args:
            settings: of the part, by name.
            place: of the settings in the config, which errors name; by default the registry's section.

        Raises:
            UserError: unknown name, unknown key, wrong type or a value that the part itself refuses.
        """
        with placed(self.section, place or self.section):
            return self._build(settings)

    def _build(self, settings: Mapping[str, Any]) -> T:
        values = by_name(settings, self.section)
        known = sorted(self.entries)
        if "name" not in values:
            raise UserError(f"{self.section}.name: the setting is missing; known: {', '.join(known)}.")
        name = typed(values.pop("name"), str, f"{self.section}.name")
        if name not in self.entries:
            kind = self.section.rpartition(".")[2]
            hint, what = nearest(name, known), {"methods": "method", "metrics": "metric"}.get(kind, kind)
            raise UserError(f"{self.section}.name: unknown {what} {name!r}; known: {', '.join(known)}.{hint}")
        self._refuse_foreign(name, values)
        return self.make(name, values, self.section)

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
        return {"name": part.name} | {f.name: plain(getattr(part, f.name)) for f in shown(part)}


def card(part: type[Any]) -> str:
    """Return the description of a part: its own card, or its docstring and the defaults of its settings.

    Example:
        >>> print(card(msgm.Unseen).splitlines()[0])
        formula: mean (eps_theta - eps)^2 over the retain set
    """
    describe: Callable[[], str] | None = getattr(part, "describe", None)
    if describe is not None:
        return describe()
    told = [f"{name} {'(needed)' if value is MISSING else value}" for name, value in defaults(part).items()]
    return f"{inspect.getdoc(part) or ''}\ndefaults: {', '.join(told) or 'no settings'}"


def defaults(cls: type[Any]) -> dict[str, Any]:
    """Return the defaults of a part's own settings, and then of the keyword-only ones that it sets.

    Example:
        >>> defaults(msgm.Obtuse)["every"]
        4

    Keyword-only are the settings that every part of a kind has.
    """
    found = {f: f.default if f.default_factory is MISSING else f.default_factory() for f in _own_first(cls)}
    return {f.name: value for f, value in found.items() if not f.kw_only or value}


def shown(part: Any) -> "list[Field[Any]]":
    """Return a part's settings as a config shows them: keyword-only ones where they are set, here or by its class.

    Example:
        >>> "mask" in [field.name for field in shown(msgm.Obtuse())]
        False
    """
    known = defaults(type(part))
    return [f for f in _own_first(type(part)) if f.name in known or getattr(part, f.name)]


def _own_first(cls: type[Any]) -> "list[Field[Any]]":
    return sorted((f for f in fields(cls) if f.init), key=lambda f: bool(f.kw_only))


def _settings(cls: type[Any]) -> list[str]:
    return [f.name for f in _own_first(cls)]


def plain(value: Any) -> Any:
    """Turn tuples into lists and dataclasses into settings by name, so that they are plain YAML and JSON.

    Example:
        >>> plain({"sizes": (1, 2)})
        {'sizes': [1, 2]}
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if f.init}
    return [plain(v) for v in value] if isinstance(value, tuple | list) else value
