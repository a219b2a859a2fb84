"""Converts plain trees to dataclasses: every setting is read by its field's type annotation.

Unquoted YAML scalars are kept as written (``Plain``) until their field is known. A text field takes them unchanged, so
that ``010``, ``yes`` and ``1e3`` stay text; a number field parses them. ``null``, ``~`` and nothing at all mean that a
field which may be None is not set, and are text wherever else a text may stand. The settings of an exchangeable part
(``Settings``) stay as they were written until the part is built.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from msgm.errors import UserError, nearest, placed
from msgm.ids import as_id, shown

T = TypeVar("T")
Tree: TypeAlias = dict[str, Any]
UNBUILT = "typed when the part is built"
Settings: TypeAlias = Annotated[dict[str, Any], UNBUILT]
"""The annotation of a field that holds the settings of a part, by name."""
OptionalSettings: TypeAlias = Annotated[Any, UNBUILT]
"""The same, where None leaves the part out."""

WHOLE = re.compile(r"[-+]?(0x[0-9a-fA-F_]{1,20}|0o[0-7_]{1,30}|0b[01_]{1,70}|[0-9][0-9_]{0,30})")
FINITE = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]{1,6})?")
SPECIAL = re.compile(r"[-+]?\.?(inf|nan)", re.IGNORECASE)
WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
SHORT_WORDS = {"y": True, "1": True, "n": False, "0": False}
LARGEST = 2**63 - 1


class Plain(str):
    """A scalar of a config that was written without quotes, as it was written."""

    __slots__ = ()

    @property
    def is_null(self) -> bool:
        """Whether it spells null."""
        return self in ("", "~", "null")


def structured(cls: type[T], values: Any, section: str) -> T:
    """Make the dataclass ``cls`` from a tree of settings over its defaults.

    Args:
        cls: a dataclass with annotations of text, numbers, bools, choices, lists, dictionaries and dataclasses; its
            ``retired``, if it has any, names settings of earlier versions that are read over, its ``elsewhere`` says
            what settings that other domains have are called in it, and its ``section`` where its own errors place it.
        values: settings by name.
        section: place of the settings in the config, which errors name; empty at the top.

    Raises:
        UserError: an unknown or missing setting, a wrong type, a negative seed, a number that is NaN, or infinite where
            the default is not, or a value that the dataclass itself refuses.
    """
    known = {f.name: f for f in fields(cls) if f.init}  # type: ignore[arg-type]
    retired = getattr(cls, "retired", ())
    given = {key: value for key, value in by_name(values, section).items() if key not in retired}
    for key in given:
        if key not in known:
            listed, instead = ", ".join(known) or "none", getattr(cls, "elsewhere", {}).get(key)
            hint = f" Set {instead} instead." if instead else nearest(key, list(known))
            raise UserError(f"{joined(section, key)}: unknown setting; known: {listed}.{hint}")
    for key, found in known.items():
        if key not in given and found.default is MISSING and found.default_factory is MISSING:
            raise UserError(f"{joined(section, key)}: the setting is missing.")
    kinds = _kinds(cls)  # type: ignore[arg-type]
    made = {key: typed(_over(known[key], value), kinds[key], joined(section, key)) for key, value in given.items()}
    for key, value in made.items():
        if key.endswith("seed") and isinstance(value, int) and value < 0:
            raise UserError(f"{joined(section, key)} must be at least 0, got {value}.")
        if _is_infinite(value) and not _is_infinite(known[key].default):
            raise UserError(f"{joined(section, key)} must be finite, got {value}.")
    with placed(getattr(cls, "section", section), section):
        return cls(**made)


def typed(value: Any, kind: Any, key: str) -> Any:
    """Return ``value``, of a plain tree, converted to the type annotation ``kind``.

    Raises:
        UserError: it cannot be converted; names ``key``.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _one_of(value, inner, key)
    if origin is Annotated:
        if UNBUILT not in inner:
            return typed(value, inner[0], key)
        return None if inner[0] is Any and _is_null(value) else by_name(value, key)
    if origin is Literal:
        return _chosen(value, inner, key)
    if kind is dict or origin is dict:
        each = inner[1] if inner else Any
        return {name: typed(item, each, joined(key, name)) for name, item in by_name(value, key).items()}
    if kind in (list, tuple) or origin in (list, tuple):
        each = inner[0] if inner else Any
        made = [typed(item, each, f"{key}[{k}]") for k, item in enumerate(_items(value, key))]
        return made if (origin or kind) is list else tuple(made)
    if kind is Any:
        return natural(value, key)
    if kind in READERS:
        return READERS[kind](value, key)
    if isinstance(value, kind):
        return value
    if is_dataclass(kind):
        return structured(kind, value, key)  # type: ignore[arg-type]
    raise UserError(f"{key}: expected {kind.__name__}, got {shown(value)}.")


def natural(value: Any, key: str = "") -> Any:
    """Return a plain tree with unquoted scalars converted as YAML does, for fields that may hold anything.

    A number with leading zeros stays text; NaN is refused with a UserError that names ``key``, the place of the value.
    """
    if isinstance(value, Mapping):
        return {name: natural(item, joined(key, str(name))) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [natural(item, key) for item in value]
    if not isinstance(value, Plain):
        return _number(value, key or "a number") if isinstance(value, float) else value
    if value.is_null:
        return None
    if value.lower() in WORDS:
        return WORDS[value.lower()]
    if re.fullmatch(r"[-+]?0[0-9_]+", value):
        return str(value)
    if WHOLE.fullmatch(value):
        return _whole(value, key or "a number")
    is_number = FINITE.fullmatch(value) or (SPECIAL.fullmatch(value) and "." in value)
    return _number(value, key or "a number") if is_number else str(value)


def lossless(value: Any) -> Any:
    """Return a plain tree with unquoted scalars as text, except where None or an int has the same spelling."""
    if isinstance(value, Mapping):
        return {key: None if isinstance(v, Plain) and v.is_null else lossless(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [lossless(item) for item in value]
    if not isinstance(value, Plain):
        return value
    return int(value) if re.fullmatch(r"0|-?[1-9][0-9]{0,17}", value) else str(value)


def by_name(value: Any, key: str) -> Tree:
    """Return settings by name, a shallow copy; anything else is refused with a UserError that names ``key``."""
    if not isinstance(value, Mapping):
        where = f"{key}: e" if key else "e"
        raise UserError(f"{where}xpected settings by name, such as {{name: ...}}, got {described(value)}.")
    return {as_id(name, joined(key, "key"), "a name"): item for name, item in value.items()}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """Return ``base`` with the values of ``over`` in place of its own; settings by name are merged in turn."""
    found = dict(base)
    for key, value in over.items():
        old = found.get(key)
        if is_dataclass(old) and not isinstance(old, type):
            old = _all(old)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        found[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return found


def own(part: Any, settings: Mapping[str, Any]) -> Tree:
    """Return ``settings`` with the values that they have in the part that was built from them."""
    retired = getattr(part, "retired", ())
    return {key: getattr(part, key) for key in settings if key not in retired}


def joined(section: str, key: str) -> str:
    """Return the whole key of a setting in a section, which is empty at the top."""
    name = key if key.isprintable() else shown(key)[1:-1]
    return f"{section}.{name}" if section else name


def described(value: Any) -> str:
    """Return a value as an error shows it."""
    if isinstance(value, list | tuple):
        return f"a list, {shown(value)}"
    return "nothing" if _is_null(value) else shown(value)


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, Plain) and value.is_null)


def _is_infinite(value: Any) -> bool:
    """Return whether a value is an infinite number, or a list that has one."""
    numbers = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(number, float) and math.isinf(number) for number in numbers)


@cache
def _kinds(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _all(part: Any) -> Tree:
    return {f.name: getattr(part, f.name) for f in fields(part) if f.init}


def _over(found: "Field[Any]", value: Any) -> Any:
    """Return settings by name merged over the field's default; none at all are none.

    A default's ``yields`` names settings that give way to others: where one of these is given, they are not taken over.
    """
    if not isinstance(value, Mapping) or not value:
        return value
    default = found.default if found.default_factory is MISSING else found.default_factory()
    if is_dataclass(default) and not isinstance(default, type):
        yields = getattr(default, "yields", {})
        default = {key: kept for key, kept in _all(default).items() if value.keys().isdisjoint(yields.get(key, ()))}
    return merged(default, value) if isinstance(default, Mapping) else value


def _one_of(value: Any, kinds: tuple[Any, ...], key: str) -> Any:
    """Return the value converted to the type of a union that fits its form: None, settings, a list, or a scalar."""
    if NoneType in kinds and _is_null(value):
        return None
    some = [kind for kind in kinds if kind is not NoneType]
    forms = [kind for kind in some if _form(kind) is _form_of(value)] or some
    if type(value) is float and float in forms:
        return _number(value, key)
    if type(value) in forms or str in forms:
        return value if type(value) in forms else _text(value, key)
    for kind in forms[:-1]:
        try:
            return typed(value, kind, key)
        except UserError:
            continue  # the last kind says what is expected
    return typed(value, forms[-1], key)


def _form(kind: Any) -> Any:
    if get_origin(kind) is Annotated and UNBUILT in get_args(kind):
        return dict
    origin = get_origin(kind) or kind
    if origin in (list, tuple):
        return list
    return dict if origin is dict or is_dataclass(origin) else None


def _form_of(value: Any) -> Any:
    return dict if isinstance(value, Mapping) else list if isinstance(value, list | tuple) else None


def _items(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{key}: expected a list, such as [a, b], got {described(value)}.")
    return list(value)


def _chosen(value: Any, choices: tuple[Any, ...], key: str) -> Any:
    """Return the one of ``choices`` that a value equals or spells."""
    for choice in choices:
        if value == choice and isinstance(value, str) == isinstance(choice, str):
            return choice
    names = [str(choice) for choice in choices]
    raise UserError(f"{key}: expected one of {', '.join(names)}, got {shown(value)}.{nearest(str(value)[:60], names)}")


def _text(value: Any, key: str) -> str:
    quoted = isinstance(value, str) and not isinstance(value, Plain)
    return str(value) if quoted else as_id(value, key, "a text")


def _whole(value: Any, key: str) -> int:
    number = value
    if isinstance(value, str) and WHOLE.fullmatch(value.strip()):
        digits = value.strip().replace("_", "")
        number = int(digits, 0) if re.match(r"[-+]?0[xob]", digits) else int(digits)
    if isinstance(number, bool) or not isinstance(number, int) or abs(number) > LARGEST:
        raise UserError(f"{key}: expected a whole number, got {shown(value)}.")
    return int(number)


def _number(value: Any, key: str) -> float:
    number = value
    if isinstance(value, str) and (FINITE.fullmatch(value.strip()) or SPECIAL.fullmatch(value.strip())):
        number = float(re.sub(r"\.(inf|nan)", r"\1", value.strip().lower().replace("_", "")))
    try:
        if not isinstance(number, bool) and isinstance(number, int | float) and not math.isnan(number):
            return float(number)
    except OverflowError:
        return math.copysign(math.inf, number)
    raise UserError(f"{key}: expected a number, got {shown(value)}.")


def _flag(value: Any, key: str) -> bool:
    found = value if isinstance(value, bool) else (WORDS | SHORT_WORDS).get(str(value).strip().lower())
    if found is None or not isinstance(value, int | str):
        raise UserError(f"{key}: expected true or false, got {shown(value)}.")
    return found


def _path(value: Any, key: str) -> Path:
    return value if isinstance(value, Path) else Path(_text(value, key))


READERS: dict[Any, Callable[[Any, str], Any]] = {str: _text, int: _whole, float: _number, bool: _flag, Path: _path}
