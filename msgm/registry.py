"""A name for every exchangeable part, and settings checked against the part's own dataclass."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Generic, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from msgm.errors import UserError, nearest

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
        values = dict(settings)
        name = str(values.pop("name", None))
        if name not in self.entries:
            known = sorted(self.entries)
            hint = nearest(name, known)
            raise UserError(f"{self.section}.name: unknown {self.section} {name!r}; known: {', '.join(known)}.{hint}")
        self._refuse_foreign(name, values)
        return structured(self.entries[name], values, self.section)

    def _refuse_foreign(self, name: str, values: Mapping[str, Any]) -> None:
        """Refuse a setting of another entry, as is left over in a file when only the name is changed."""
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


def _settings(cls: type[Any]) -> list[str]:
    return [f.name for f in fields(cls) if f.init]


def structured(cls: type[T], values: Mapping[str, Any], section: str) -> T:
    """Make the dataclass ``cls`` from a plain tree, strictly; errors name the key below ``section``."""
    try:
        schema = OmegaConf.structured(cls)
        OmegaConf.set_readonly(schema, False)
        made: T = OmegaConf.to_object(OmegaConf.merge(schema, literal(dict(values))))
        return made
    except OmegaConfBaseException as error:
        raise UserError(explain(error, section)) from error


def literal(tree: Any) -> Any:
    """Return a plain tree in which OmegaConf finds nothing to resolve: ``${`` stands for itself."""
    if isinstance(tree, Mapping):
        return {key: literal(part) for key, part in tree.items()}
    if isinstance(tree, list):
        return [literal(part) for part in tree]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", tree) if isinstance(tree, str) else tree


def explain(error: OmegaConfBaseException, section: str) -> str:
    """Put an OmegaConf error into one sentence that names the whole key."""
    text = (error.msg or str(error)).split("\n")[0].strip().rstrip(".")
    if "is not a ListConfig" in text:
        text = "expected a list, such as [1, 2]"
    key = ".".join(filter(None, [section, str(error.full_key or "")]))
    sentence = text if text.endswith("?") else f"{text}."
    return f"{key}: {sentence}" if key else sentence


def plain(value: Any) -> Any:
    """Turn tuples into lists, so that resolved settings are plain YAML and JSON."""
    return [plain(v) for v in value] if isinstance(value, tuple | list) else value
