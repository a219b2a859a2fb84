"""Reading settings: YAML files that extend one another, ``key.sub=value`` overrides, and errors in one sentence."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from msgm.errors import UserError
from msgm.reading import read_yaml
from msgm.registry import explain, literal

T = TypeVar("T")
ADDED = {"data.classes": "folders", "data.background": "white", "data.frame": 0, "data.broken": "refuse"}
"""Settings that came after the first version, and are not empty where they change nothing."""


Source: TypeAlias = str | Path | Mapping[str, Any] | None
"""Where settings come from: a file that the user names, or a plain tree, in which ``${`` is text."""


def read_layers(source: Source, overrides: Sequence[str]) -> list[DictConfig]:
    """Return trees to merge in this order: what the file extends, the file, one for each ``key.sub=value``.

    Raises:
        UserError: a missing or malformed file, a file that extends itself, or a malformed override.
    """
    if isinstance(source, Mapping):
        layers = [guarded(lambda: OmegaConf.create(literal(dict(source))))]
    else:
        layers = [] if source is None else _read(Path(source))
    for override in overrides:
        if "=" not in override:
            raise UserError(f"--set {override}: expected key.sub=value.")
        layers.append(guarded(lambda text=override: OmegaConf.from_dotlist([text]), f"--set {override}"))  # type: ignore[misc]
    return layers


def _read(path: Path, children: tuple[Path, ...] = ()) -> list[DictConfig]:
    if path.resolve() in children:
        raise UserError(f"{path}: it extends itself, directly or through other files.")
    try:
        tree = OmegaConf.load(path)
    except OSError as error:
        raise UserError(f"cannot read config {path}: {error.strerror or error}.") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(tree, DictConfig):
        raise UserError(f"{path}: expected settings by name at the top, found a list.")
    parent = tree.pop("extends", None)
    if parent is None:
        return [tree]
    return [*_read(path.parent / str(parent), (*children, path.resolve())), tree]


def module_of(path: Path) -> str | None:
    """Return ``classifier`` or ``recommender`` for a config, or a run folder with one, of these; None of any other."""
    try:
        if path.is_dir():  # received: nothing that it names is opened
            keys = set(read_yaml(path / "config.yaml", dict[str, Any]))
        else:
            keys = {str(key) for layer in (_read(path) if path.suffix in (".yaml", ".yml") else []) for key in layer}
    except UserError:
        return None  # whoever reads it says what is wrong with it
    if "models" in keys:
        return "recommender"
    return "classifier" if keys & {"requests", "methods", "shares"} else None


def guarded(make: Callable[[], T], section: str = "") -> T:
    """Return ``make()``; its OmegaConf and YAML errors become a UserError that names the key below ``section``."""
    try:
        return make()
    except OmegaConfBaseException as error:
        raise UserError(explain(error, section)) from error
    except YAMLError as error:
        raise UserError(f"{section}: no valid YAML: {' '.join(str(error).split())}.") from error


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return ``key: old -> new`` for every setting in which two trees differ."""
    found: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        if key not in old and _as_before(f"{prefix}{key}", new[key]):
            continue
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before} -> {after}")
    return found


def _as_before(key: str, value: Any) -> bool:
    """Return whether a setting that an earlier version's file lacks has the value that does what that version did."""
    return value in ([], {}, None) or (key in ADDED and ADDED[key] == value)


def refuse_other(path: Path, stored: dict[str, Any] | None, wanted: dict[str, Any], fixed: Sequence[str]) -> None:
    """Refuse a run folder whose stored settings, if there are any, differ from those wanted in the keys ``fixed``.

    Raises:
        UserError: they differ.
    """
    if stored is None:
        return
    changed = differences({key: stored.get(key) for key in fixed}, {key: wanted[key] for key in fixed})
    if changed:
        listed = "; ".join(changed[:3])
        raise UserError(f"{path} holds an experiment with other settings ({listed}); give another --out.")
