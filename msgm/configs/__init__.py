"""The configs that msgm brings along, found by name: ``digits/vp`` is ``configs/digits/vp.yaml``.

They stand in ``configs/`` at the top of the repository; a wheel carries them beside this file.
"""

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
    found = shipped(config)
    if found is None:
        known = names()
        text = str(config)
        hint = nearest(text, known) or nearest(_plain(text).removeprefix("configs/"), known)
        raise UserError(f"{path} does not exist, and msgm has no config of the name {text!r}.{hint}")
    return found


def _plain(name: str | Path) -> str:
    return Path(name).as_posix().removesuffix(".yaml")
