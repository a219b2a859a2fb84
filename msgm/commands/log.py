"""``msgm data LOG``: what of an interaction log is read, what is refused, and what is left out."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgm.data.listing import printable
from msgm.errors import UserError
from msgm.fields import natural, structured
from msgm.recommender.data.base import Interactions
from msgm.recommender.data.log import Account, Log
from msgm.settings import dump_yaml, read_settings
from msgm.tables import aligned

CONFIGS = (".yaml", ".yml", ".json")


def is_log(path: Path) -> bool:
    """Return whether ``msgm data`` reads a file as a log and not as a config."""
    return path.is_file() and path.suffix.lower() not in CONFIGS


def account_lines(path: Path, overrides: Sequence[str] = ()) -> Iterator[str]:
    """Yield lines on a log: its columns, its rows by what became of them, the first that are left out, and its size.

    Malformed rows and all but the last of repeated ones are left out, unless ``overrides`` say otherwise.

    Args:
        path: the file.
        overrides: ``data.KEY=value``, the settings of the data set ``log``.

    Raises:
        UserError: a setting that ``log`` does not have, or as ``Log.read``.
    """
    given = {"data": {"name": "log", "path": str(path), "malformed": "drop", "duplicates": "last"}}
    settings = read_settings(given, overrides)
    if set(settings) != {"data"}:
        other = next(key for key in settings if key != "data")
        raise UserError(f"--set: {other} is no setting of a log; its settings begin with data.")
    if settings["data"].pop("name") != "log":
        raise UserError(f"data.name: {path} is read as log; give no other name.")
    source = structured(Log, settings["data"], "data")
    data, account = source.read()
    yield f"{path}: {account.log.kind}"
    yield from _columns(account)
    yield from _rows(account, source, data)
    yield from _first("malformed rows", account.refused, account.first_refused)
    yield from _first(
        "rows that a later one of the same user and item replaces", account.repeated, account.first_repeated
    )
    yield _size(data)
    yield "the same in a config:"
    yield from (f"  {line}" for line in dump_yaml(natural({"data": {"name": "log"} | settings["data"]})).splitlines())


def _columns(account: Account) -> Iterator[str]:
    read = {name: key for key, name in account.columns.items()}
    for name in account.log.names:
        yield f"  column {printable(name)}: {read.get(name, 'not read')}"


def _rows(account: Account, source: Log, data: Interactions) -> Iterator[str]:
    counts = {
        "rows": account.rows,
        "malformed": account.refused,
        "repeated": account.repeated,
        f"rated below {source.threshold}": account.below,
        f"of users or items with fewer than {source.min_count}": account.rare,
        "interactions left": data.matrix.nnz,
    }
    skipped = {f"rated below {source.threshold}"} if source.threshold is None else set()
    skipped |= {f"of users or items with fewer than {source.min_count}"} if source.min_count == 1 else set()
    rows = [[name, str(count)] for name, count in counts.items() if name not in skipped]
    head, *others = aligned(rows[0], rows[1:])
    yield from (f"  {line}" for line in [head, *others])


def _first(what: str, count: int, first: Sequence[str]) -> Iterator[str]:
    if count:
        yield f"{what}, {'all' if count == len(first) else f'the first {len(first)}'} of {count}:"
        yield from (f"  {printable(line)}" for line in first)


def _size(data: Interactions) -> str:
    users, items = data.shape
    said = f"{users} users, {items} items, {data.matrix.nnz} interactions"
    if data.explicit:
        said += f", ratings from {data.matrix.data.min():g} to {data.matrix.data.max():g}"
    if data.times is not None:
        first, last = (datetime.fromtimestamp(int(time), UTC).date() for time in (data.times.min(), data.times.max()))
        said += f", from {first} to {last}"
    return said
