"""The result of ``msgm tune`` for a comparison: ``tuned.yaml``, overrides of the config and their origin."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgm.errors import UserError
from msgm.fields import Tree, merged, natural
from msgm.reading import read_text
from msgm.settings import Source, domain_of, parse_settings, read_settings

FILE = "tuned.yaml"


def with_tuned(source: Source, overrides: list[str], folder: Path | str | None) -> Tree:
    """Return the settings of a config, overridden by those that ``msgm tune`` chose in ``folder``, if one is given.

    Raises:
        UserError: as ``read_settings``; a folder without chosen settings, or with those of another kind of config or
            of rows that the config does not have.
    """
    tree = read_settings(source, overrides)
    if folder is None:
        return tree
    path = Path(folder) / FILE
    if not path.is_file():
        raise UserError(f"--tuned {folder}: there is no {FILE} in it; msgm tune writes one when its trials are done.")
    chosen = parse_settings(read_text(path), str(path))
    told = chosen.get("tuned") if isinstance(chosen, Mapping) else None
    if not isinstance(told, Mapping) or not {"domain", "config", "rows"} <= told.keys():
        raise UserError(f"{path}: it does not say what was tuned; msgm tune writes it.")
    if told["domain"] != domain_of(tree):
        raise UserError(f"--tuned {folder}: it is of a {told['domain']}, and the config of a {domain_of(tree)}.")
    return merged(tree, chosen)


def tuning_protocol(tuned: Mapping[str, Any]) -> dict[str, str]:
    """Return the protocol's line ``tuning``, on how a comparison's settings were tuned; empty if they were not.

    Args:
        tuned: the config's ``tuned``.
    """
    if not tuned:
        return {}
    rows = "; ".join(f"{name}: {_values(row)}" for name, row in tuned["rows"].items())
    how = f"{tuned['trials']} trials a row ({tuned['budget']}) of {tuned['config']}, on the validation part alone"
    text = f"{how}, for the best {tuned['objective']}. Chosen: {rows}."
    return {"tuning": text}


def _values(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {natural(value):.4g}" for key, value in row.items())
