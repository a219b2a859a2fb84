"""Rules of every exchangeable part: settings that round-trip, cards that say something, no global randomness."""

import copy
import inspect
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from msgm.errors import UserError
from msgm.fields import structured
from msgm.registry import plain

T = TypeVar("T")
PLAIN = (bool, int, float, str, list, dict, type(None))
WRONG: dict[type, tuple[Any, ...]] = {
    int: (-1, 0),
    float: (-1.0, math.nan, math.inf),
    str: ("no such choice",),
    type(None): (-1.0, math.nan),
}
"""What a setting is tried with, by the type of its default: a part may take it or refuse it with a UserError.

NaN is always refused, and infinity where it is not the default.
"""


class Refused(AssertionError):
    """A part breaks a rule of its kind; the message says in one sentence what is wrong.

    Example:
        >>> from msgm.testing import check_objective
        >>> try:
        ...     check_objective(dict)
        ... except msgm.testing.Refused as refusal:
        ...     print(refusal)
        dict is no subclass of Objective.
    """


def require(holds: bool, sentence: str) -> None:
    """Refuse with ``sentence`` where a rule does not hold.

    Raises:
        Refused: it does not.
    """
    if not holds:
        raise Refused(sentence)


def made(part: T | type[T], base: Any) -> T:
    """Return the part, built with its defaults where its class is given.

    Raises:
        Refused: it is no dataclass of kind ``base``, or its class has settings without defaults.
    """
    cls = part if isinstance(part, type) else type(part)
    require(issubclass(cls, base), f"{cls.__name__} is no subclass of {base.__name__}.")
    require(
        is_dataclass(cls) and ("__dataclass_fields__" in vars(cls) or not inspect.get_annotations(cls)),
        f"{cls.__name__} is no dataclass, so it has no settings that a config could name.",
    )
    if not isinstance(part, type):
        return copy.deepcopy(part)
    try:
        return part()
    except TypeError as error:
        raise Refused(f"{cls.__name__} cannot be built with its defaults: {error}.") from error


def check_settings(part: Any) -> None:
    """Check that settings are plain values that build the same part again, and that wrong ones are UserErrors.

    No setting may be NaN, whether by default or by the user, or infinite where its default is not.

    Raises:
        Refused: they are not.
    """
    cls = type(part)
    settings = {f.name: plain(getattr(part, f.name)) for f in fields(cls) if f.init}
    for name, value in settings.items():
        require(
            isinstance(value, PLAIN),
            f"{cls.__name__}.{name} is a {type(value).__name__}, which a config cannot hold.",
        )
        is_nan = isinstance(value, float) and math.isnan(value)
        require(not is_nan, f"{cls.__name__}.{name} is NaN by default, which no config can set; take None for off.")
    again = structured(cls, settings, "settings")
    for name, value in settings.items():
        found = plain(getattr(again, name))
        require(found == value, f"{cls.__name__}.{name} does not round-trip: built from {value!r} it is {found!r}.")
    for name, value in settings.items():
        for wrong in WRONG.get(type(value), ()):
            _try_setting(cls, settings, name, wrong)


def _try_setting(cls: type, settings: dict[str, Any], name: str, wrong: Any) -> None:
    try:
        structured(cls, settings | {name: wrong}, "settings")
    except UserError as error:
        if name not in str(error):
            raise Refused(f"{cls.__name__} refuses {name}={wrong!r} without naming the setting: {error}") from error
    except Exception as error:
        raise Refused(
            f"{cls.__name__} refuses {name}={wrong!r} with a {type(error).__name__} where a UserError is expected."
        ) from error
    else:
        finite = not isinstance(wrong, float) or math.isfinite(wrong) or wrong == settings[name]
        require(finite, f"{cls.__name__} takes {name}={wrong!r}; refuse with a UserError what is no finite number.")


def check_texts(name: str, facts: Any, *keys: str) -> None:
    """Check that every one of some facts about a part is a text that says something.

    Raises:
        Refused: one is missing or empty.
    """
    for key in keys:
        text = getattr(facts, key, None)
        require(isinstance(text, str) and bool(text.strip()), f"{name}: its {key} is missing or empty.")


@contextmanager
def own_randomness(what: str) -> Iterator[None]:
    """Check that the block neither uses nor moves the global generators of torch, NumPy and Python.

    Raises:
        Refused: one of them was moved.
    """
    before = torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()
    yield
    moved = {
        "torch": not torch.equal(torch.get_rng_state(), before[0]),
        "NumPy": repr(np.random.get_state(legacy=False)) != repr(before[1]),
        "Python": random.getstate() != before[2],
    }
    for library, changed in moved.items():
        require(not changed, f"{what} draws from the global generator of {library}; draw from one that is seeded.")


def repeated(what: str, draw: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return what ``draw`` gives, after checking that it gives the same again and touches no global generator.

    Raises:
        Refused: the second result differs, or randomness is global.
    """
    with own_randomness(what):
        first, second = draw(), draw()
    same = first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    require(same, f"{what} gives another result when it is called again with the same arguments.")
    return first
