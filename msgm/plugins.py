"""The user's Python files, imported by path, and the protection against code in folders received from others.

A config that is named on the command line is the user's: its plugins and predicates run. Settings in a run or model
folder count as received from others, whoever made it: nothing that they name is run, opened or fetched unless the user
says ``--trust`` (``trusting()`` in Python). A model folder records the plugins that its model needs, each with path and
SHA-256.
"""

import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypedDict

from msgm.digests import file_digest
from msgm.errors import UserError
from msgm.reading import read_yaml

PREFIX = "msgm_plugin_"
PATHS = re.compile(r"(.*\.)?(file|path|root|folder|trained_on)|(evaluation|original)\.(.*\.)?weights|data\.attributes")
"""Settings that name files, whatever stands in them."""
PATH = re.compile(r"[/~\\]|[A-Za-z]:[/\\]|\.\.[/\\]|.*\.(safetensors|pth?|bin|ckpt)$")
"""What looks like the name of a file in any other setting."""

Settings = Mapping[str, Any]

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)
_digests: dict[str, str] = {}


class Plugin(TypedDict):
    """A plugin that a model needs: its path and SHA-256 when the model was made."""

    path: str
    sha256: str


@contextmanager
def trusting(trust: bool = True) -> Iterator[None]:
    """Context in which code and files named in received folders may be run and opened.

    Example:
        >>> with trusting():
        ...     trusted()
        True
    """
    token = _trusted.set(trust)
    try:
        yield
    finally:
        _trusted.reset(token)


def trusted() -> bool:
    """Return whether code and files named in received folders may be run and opened here.

    Example:
        >>> trusted()
        False
    """
    return _trusted.get()


def load_function(spec: str, key: str = "request.predicate") -> Callable[..., Any]:
    """Import ``path/to/file.py:function``, which the setting ``key`` names, and return the function.

    Example:
        >>> _ = Path("mine.py").write_text("def dark(item, label): return item.float().mean() < 3")
        >>> load_function("mine.py:dark")(torch.zeros(1, 8, 8), "3").item()
        True

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


def load_files(paths: Sequence[str]) -> list[str]:
    """Import the ``plugins`` of a config, and return their whole paths, which hold in any working folder.

    Example:
        >>> _ = Path("mine.py").write_text("BANDWIDTH = 0.3")
        >>> [Path(path).name for path in load_files(["mine.py"])]
        ['mine.py']
    """
    for path in paths:
        load_file(path)
    return [str(Path(path).resolve()) for path in paths]


def load_file(path: str, key: str = "plugins") -> Any:
    """Import the Python file at ``path``, which the setting ``key`` names, as a module of its own, once a process.

    Example:
        >>> _ = Path("mine.py").write_text("BANDWIDTH = 0.3")
        >>> load_file("mine.py").BANDWIDTH
        0.3

    A second import would define its classes again, and pickles and ``isinstance`` would treat them as different ones.

    Raises:
        UserError: there is no such file, or it cannot be imported.
    """
    if not path.endswith(".py"):
        raise UserError(f"{key}: {path or 'an empty path'!r} is no Python file; expected path/to/file.py.")
    if not Path(path).is_file():
        raise UserError(f"{key}: the file {path!r} does not exist.")
    whole, name = Path(path).resolve(), _module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, whole)
    if spec is None or spec.loader is None:
        raise UserError(f"{key}: cannot import {path}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their annotations up there
    _digests[name] = file_digest(whole)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, UserError):
            raise
        detail = next(iter(str(error).splitlines()), "")
        raise UserError(f"{key}: cannot import {path}: {type(error).__name__}: {detail}.") from error
    return module


def _module_name(path: str) -> str:
    whole = Path(path).resolve()
    return f"{PREFIX}{whole.stem}_{hashlib.sha256(bytes(whole)).hexdigest()[:12]}"


def digest_of(path: str) -> str:
    """Return the SHA-256 of a Python file as it was imported, or as it is now if it was not.

    A file that is edited while a process runs does not change what runs there.
    """
    return _digests.get(_module_name(path)) or file_digest(Path(path))


def made_by(path: str, name: str) -> Any:
    """Return a new object of the class ``name`` of the plugin at ``path``."""
    return getattr(load_file(path), name)()


def plugins_of(*parts: type) -> list[Plugin]:
    """Return the plugins that define some classes, or what they inherit from; nothing for classes of msgm's own."""
    modules = {cls.__module__: None for part in parts for cls in part.__mro__}
    return [{"path": str(sys.modules[name].__file__), "sha256": _digests[name]} for name in modules if name in _digests]


def load_recorded(plugins: Sequence[Plugin], source: Path) -> None:
    """Import the plugins that the model file ``source`` says its model needs, if the user trusts it.

    Raises:
        UserError: they are not trusted, or not there.
    """
    for plugin in plugins:
        if not _trusted.get():
            raise _untrusted(source, f"the Python file {plugin['path']}, which would be run")
        if not Path(plugin["path"]).is_file():
            raise UserError(f"{source} needs the plugin {plugin['path']}, which is not there; put it there again.")
        load_file(plugin["path"], str(source))


def note_changed(stored: Sequence[Plugin], used: Sequence[Plugin], source: Path) -> None:
    """Print which of a model's plugins are used in another version than it was made with."""
    now = {plugin["sha256"] for plugin in used}
    for plugin in stored:
        if plugin["sha256"] not in now:
            print(f"note: {source} was made with another version of {Path(plugin['path']).name}.", flush=True)


def load_received(
    folder: Path, sections: Sequence[str] = (), own: Settings | None = None, used: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the settings in a run folder, which anybody may have made.

    Args:
        folder: the run folder.
        sections: settings that must be present, so that a missing one is not silently replaced by its default.
        own: the user's own settings, if he named a config: files named there, too, are trusted.
        used: the settings to return, if not all are used; the others are neither opened nor refused.

    Raises:
        UserError: the file is missing, damaged or not whole, or names what only a trusted one may.
    """
    path = folder / "config.yaml"
    settings: dict[str, Any] = read_yaml(path, dict[str, Any])
    missing = [name for name in sections if name not in settings]
    if missing:
        raise UserError(f"{path} is not whole: it lacks {', '.join(missing)}; msgm writes every setting.")
    if used is not None:
        settings = {name: value for name, value in settings.items() if name in (*used, "extends")}
    refuse_foreign(settings, path, own)
    return settings


def refuse_foreign(settings: Settings, source: Path, own: Settings | None = None) -> None:
    """Refuse received settings that name code, files or the network, unless the user trusts them.

    Args:
        settings: the received settings.
        source: the file that it stands in, for errors.
        own: the user's own settings: values that they have under the same key are trusted.

    Raises:
        UserError: they do, or extend another file, which no settings that msgm wrote do.
    """
    if "extends" in settings:
        raise UserError(f"{source}: extends: the config of a run is whole and extends no other file.")
    known = set(_foreign(own or {}, ""))
    found = None if _trusted.get() else next((one for one in _foreign(settings, "") if one not in known), None)
    if found:
        raise _untrusted(source, found)


def _untrusted(source: Path, found: str) -> UserError:
    return UserError(
        f"{source} names {found}: it came with a folder that somebody else may have made; if you trust it, say --trust."
    )


def _foreign(value: Any, key: str) -> Iterator[str]:
    """Yield what settings name that would be run, opened or fetched."""
    name = key.rpartition(".")[2]
    if isinstance(value, Mapping):
        for below, part in value.items():
            yield from _foreign(part, f"{key}.{below}".removeprefix("."))
    elif isinstance(value, list):
        for part in value:
            yield from _foreign(part, key)
    elif name == "download" and value not in (False, None, "false"):
        yield f"{key}: {str(value).lower()}, by which files would be fetched from the network"
    elif isinstance(value, str) and (name in ("plugins", "predicate") or re.search(r"\.py(:\w*)?$", value)):
        yield f"{key}: {value}, which would be run"
    elif isinstance(value, str) and (PATHS.fullmatch(key) or PATH.match(value)):
        yield f"{key}: {value}, which would be opened"
