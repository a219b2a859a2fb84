"""The configs that msgm brings along, found by name: ``digits/vp`` is ``configs/digits/vp.yaml``.

They stand in ``configs/`` at the top of the repository; a wheel carries them beside this file.
"""

from itertools import takewhile
from pathlib import Path

from msgm.errors import UserError, nearest

_HERE = Path(__file__).resolve().parent
FOLDER = _HERE if (_HERE / "digits").is_dir() else _HERE.parents[1] / "configs"
"""Where the shipped configs are: this package in an installed wheel, the repository's own folder in a checkout."""


def names() -> list[str]:
    """Return the names of the shipped configs, sorted.

    Example:
        >>> "digits/vp" in names()
        True
    """
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def shipped(name: str | Path) -> Path | None:
    """Return the file of the shipped config ``name``, with or without ``.yaml``, or None if there is no such config."""
    plain = _plain(name)
    return FOLDER / f"{plain}.yaml" if plain in names() else None


def find(config: str | Path, near: Path | None = None) -> Path:
    """Return the file that a config's path or name means; a path that exists goes before a name.

    ``configs/NAME.yaml``, a shipped config's path in the repository, means it everywhere.

    Args:
        config: a path, or the name of a shipped config.
        near: the folder that a relative path starts from; by default the working folder.

    Raises:
        UserError: neither such a file nor such a config exists.

    Example:
        >>> find("digits/vp").name
        'vp.yaml'
    """
    path = (near or Path()) / config
    if path.exists():
        return path
    found = shipped(config) or shipped(_plain(config).removeprefix("configs/"))
    if found is None:
        raise UserError(f"{path} does not exist, and {unknown(config)}")
    return found


def unknown(name: str | Path) -> str:
    """Return a sentence that says that no shipped config has a name, with the nearest one."""
    known = names()
    hint = nearest(str(name), known) or nearest(_plain(name).removeprefix("configs/"), known)
    return f"msgm configs lists no {str(name)!r}.{hint}"


def comments(name: str) -> list[str]:
    """Return the lines of comment that a shipped config begins with, which say what it is."""
    text = (FOLDER / f"{name}.yaml").read_text("utf-8")
    return [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), text.split("\n"))]


def _plain(name: str | Path) -> str:
    return Path(name).as_posix().removesuffix(".yaml")
