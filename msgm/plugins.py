"""The user's own Python files: imported once, by path."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgm.errors import UserError


def load_function(spec: str, key: str = "request.predicate") -> Callable[..., Any]:
    """Import ``path/to/file.py:function``, which the setting ``key`` names, and return the function.

    Raises:
        UserError: the file or the function does not exist.
    """
    path, colon, name = spec.rpartition(":")
    if not colon:
        raise UserError(f"{key}: expected path/to/file.py:function, got {spec!r}.")
    module = load_file(path, key)
    if not hasattr(module, name):
        raise UserError(f"{key}: {path} defines no function {name!r}.")
    function: Callable[..., Any] = getattr(module, name)
    return function


def load_file(path: str, key: str = "plugins") -> Any:
    """Import the Python file at ``path``, which the setting ``key`` names, as a module of its own, once a process.

    A second import would register its classes anew, and pickles and ``isinstance`` tell them from the first ones.

    Raises:
        UserError: there is no such file, or it cannot be imported.
    """
    if not path.endswith(".py"):
        raise UserError(f"{key}: {path or 'an empty path'!r} is no Python file; expected path/to/file.py.")
    if not Path(path).is_file():
        raise UserError(f"{key}: the file {path!r} does not exist.")
    whole = Path(path).resolve()
    name = f"msgm_plugin_{whole.stem}_{hashlib.sha256(bytes(whole)).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, whole)
    if spec is None or spec.loader is None:
        raise UserError(f"{key}: cannot import {path}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their annotations up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, UserError):
            raise
        detail = next(iter(str(error).splitlines()), "")
        raise UserError(f"{key}: cannot import {path}: {type(error).__name__}: {detail}.") from error
    return module
