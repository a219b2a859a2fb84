"""Shapes of plain JSON and YAML trees: the required contents of a file as a Python type, with checks.

A shape is ``str``, ``int``, ``float``, ``bool``, ``None``, ``Any``, ``list[X]``, ``dict[str, X]``, ``X | Y``,
``Literal[...]``, a ``TypedDict``, whose further keys are let through, or ``Annotated[X, Rule(...)]``.

    class State(TypedDict):
        step: Count
        seconds: float
        note: NotRequired[str | None]

    state = check(tree, State, "state.json")
"""

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from msgm.errors import UserError

MAX_DEPTH = 100
MAX_INTEGER = 2**64
SHOWN = 60
KEY_STEPS = 10
Shape = Any
"""A type that a tree is checked against."""
WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    NoneType: "null",
    Any: "anything",
}
WRAPPERS = (Annotated, NotRequired, Required)
_NOTHING = object()


@dataclass(frozen=True)
class Rule:
    """What a value of a shape must hold, beside its type: ``Annotated[int, Rule("a whole number from 0", ...)]``."""

    expected: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Rule("a whole number from 0", lambda value: value >= 0)]
Positive = Annotated[int, Rule("a whole number from 1", lambda value: value >= 1)]
Seconds = Annotated[float, Rule("a number from 0", lambda value: value >= 0)]


class _Mismatch(Exception):
    """A value that is not of its shape; ``steps`` lead to it, the last one first."""

    def __init__(self, expected: str, value: Any) -> None:
        super().__init__(expected, value)
        self.expected, self.value = expected, value
        self.steps: list[str | int] = []

    @property
    def key(self) -> str:
        """Return the path of the value from the top, as in ``rows[2].name``."""
        steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in reversed(self.steps[-KEY_STEPS:])]
        return "".join(steps).removeprefix(".").encode("ascii", "backslashreplace").decode()


def check(tree: Any, shape: Shape, source: str) -> Any:
    """Return ``tree``, a plain tree of JSON values, if it is bounded and of the shape.

    Raises:
        UserError: it is not; names ``source``, the key, what was expected, and the value.
    """
    try:
        _check_bounds(tree)
        _check_shape(tree, shape)
    except _Mismatch as error:
        place = f"{source}: {error.key}" if error.key else source
        raise UserError(f"{place}: expected {error.expected}, got {short(error.value)}.") from None
    return tree


def _check_bounds(value: Any, depth: int = 0) -> None:
    """Refuse nesting, numbers and texts beyond the bounds of msgm's files."""
    _check_value(value)
    if depth > MAX_DEPTH:
        raise _Mismatch(f"at most {MAX_DEPTH} levels", "more")
    if isinstance(value, list) and depth < MAX_DEPTH and all(map(_is_harmless, value)):
        return
    for step, part in _parts(value):
        try:
            _check_value(step)
            _check_bounds(part, depth + 1)
        except _Mismatch as error:
            error.steps.append(step)
            raise


def _is_harmless(value: Any) -> bool:
    """Return whether a value breaks no bound at first sight; ids by the thousand need no further look."""
    return value is None or (type(value) is str and value.isascii())


def _check_value(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise _Mismatch("a finite number", value)
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise _Mismatch("a number of at most 64 bits", "a larger one")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Mismatch("text in Unicode", value.encode("ascii", "backslashreplace").decode()) from None
    if not isinstance(value, str | int | float | list | dict | NoneType):
        raise _Mismatch("a plain value", value)


def _parts(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _check_shape(value: Any, shape: Shape) -> None:
    """Raise ``_Mismatch`` where ``value`` is not of ``shape``."""
    origin, arguments = get_origin(shape), get_args(shape)
    if origin in WRAPPERS:
        _check_shape(value, arguments[0])
        for rule in arguments[1:]:
            if not rule.holds(value):
                raise _Mismatch(rule.expected, value)
    elif origin in (Union, UnionType):
        _check_union(value, shape)
    elif not _is_kind(value, shape):
        raise _Mismatch(_expected(shape), value)
    elif is_typeddict(shape):
        _check_keys(value, shape)
    elif origin in (dict, list):
        if origin is list and set(map(type, value)) <= _exact_types(arguments[0]):
            return
        for step, part in _parts(value):
            try:
                _check_shape(part, arguments[-1])
            except _Mismatch as error:
                error.steps.append(step)
                raise


@functools.cache
def _exact_types(shape: Shape) -> frozenset[type]:
    """Return types all values of which are of the shape; ids by the thousand need no look at each."""
    if get_origin(shape) in (Union, UnionType):
        return frozenset().union(*map(_exact_types, get_args(shape)))
    if shape in (None, NoneType):
        return frozenset([NoneType])
    return frozenset([shape]) if shape in (str, int, float, bool) else frozenset()


def _check_keys(value: dict[str, Any], shape: Shape) -> None:
    for name, hint in _hints(shape).items():
        try:
            if name in value:
                _check_shape(value[name], hint)
            elif name in shape.__required_keys__:
                raise _Mismatch(_expected(hint), _NOTHING)
        except _Mismatch as error:
            error.steps.append(name)
            raise


@functools.cache
def _hints(shape: Shape) -> dict[str, Shape]:
    return get_type_hints(shape, include_extras=True)


def _check_union(value: Any, shape: Shape) -> None:
    """Check against each choice; if only one is of the value's kind, its error is raised, as the most specific."""
    fitting = [choice for choice in get_args(shape) if _is_kind(value, choice)]
    for choice in fitting:
        try:
            return _check_shape(value, choice)
        except _Mismatch:
            if len(fitting) == 1:
                raise
    raise _Mismatch(_expected(shape), value)


def _is_kind(value: Any, shape: Shape) -> bool:
    """Return whether a value is of the shape's outermost kind."""
    origin = get_origin(shape)
    if origin in WRAPPERS:
        return _is_kind(value, get_args(shape)[0])
    if origin in (Union, UnionType):
        return any(_is_kind(value, choice) for choice in get_args(shape))
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(shape))
    if is_typeddict(shape) or origin is dict or shape is dict:
        return isinstance(value, dict)
    if origin is list or shape is list:
        return isinstance(value, list)
    if shape in (None, NoneType):
        return value is None
    if shape is Any:
        return True
    numbers = (int, float) if shape is float else shape
    return isinstance(value, numbers) and (shape is bool or not isinstance(value, bool))


def _expected(shape: Shape) -> str:
    """Return a description of a shape."""
    origin, arguments = get_origin(shape), get_args(shape)
    if origin in (NotRequired, Required):
        return _expected(arguments[0])
    if origin is Annotated:
        return str(arguments[1].expected)
    if origin in (Union, UnionType):
        return " or ".join(_expected(choice) for choice in arguments)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if is_typeddict(shape):
        return f"an object with {', '.join(sorted(shape.__required_keys__)) or 'settings'}"
    if origin is list or shape is list:
        return "a list"
    if origin is dict or shape is dict:
        return "an object of values by name"
    return WORDS[shape or NoneType]


def short(value: Any) -> str:
    """Return a value as short text on one line."""
    if value is _NOTHING:
        return "nothing"
    if isinstance(value, dict | list):
        kind = "an object" if isinstance(value, dict) else "a list"
        return kind if value else f"an empty {kind.split()[1]}"
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
