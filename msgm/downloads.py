"""Downloads: only if the user allows them, and announced with host and size."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from msgm.errors import UserError

_allowed: ContextVar[bool] = ContextVar("allowed", default=False)


@contextmanager
def downloading(allowed: bool = True) -> Iterator[None]:
    """Context in which missing files may be fetched; ``--download`` on the command line."""
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)


def may_download() -> bool:
    """Return whether missing files may be fetched here."""
    return _allowed.get()


def announce(what: str, host: str, megabytes: float, key: str, instead: str, allowed: bool = False) -> None:
    """Print what is about to be downloaded, or refuse if the user has not allowed it.

    Args:
        what: what is missing.
        host: where it is fetched from.
        megabytes: its size.
        key: the setting that asks for it.
        instead: what the user can do instead, as a clause.
        allowed: the user's own config allows it.

    Raises:
        UserError: fetching is not allowed.
    """
    size = f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"
    if not (allowed or _allowed.get()):
        text = f"cannot fetch {what} from {host} ({size}) unless you allow it"
        raise UserError(f"{key}: {text}; allow it with --download, or {instead}.")
    print(f"fetching {what} from {host} ({size})", flush=True)
