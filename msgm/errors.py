"""The ways a command can end badly, each with its exit code."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Bad input: one sentence that names the thing, its value and what is allowed. Exit code 2.

    Example:
        >>> try:
        ...     msgm.load_config("digits/vp", ["training.stepz=10"])
        ... except msgm.UserError as error:
        ...     print(error)
        training...
    """


class RunError(RuntimeError):
    """A run that started and could not go on, such as a non-finite loss. Exit code 1.

    Example:
        >>> model = msgm.ScoreModel.new("mlp", "vp", shape=(2,))
        >>> _ = torch.nn.init.constant_(next(model.network.parameters()), float("nan"))
        >>> try:
        ...     msgm.fit(model, torch.zeros(8, 2), steps=2)
        ... except msgm.RunError as error:
        ...     print(error)
        fit...
    """


class Interrupted(Exception):
    """A signal stopped the run after it saved; ``code`` is the exit code (128 + signal number)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[str, int]]:
        return type(self), (str(self), self.code)


@contextmanager
def placed(section: str, place: str) -> Iterator[None]:
    """Context in which a UserError on a setting of ``section`` names ``place`` instead, where the setting stands.

    Parts name the section that they usually stand in; the same part may stand in several places of a config.
    """
    try:
        yield
    except UserError as error:
        text = str(error)
        if section == place or not text.startswith((f"{section}.", f"{section}:")):
            raise
        raise UserError(place + text.removeprefix(section)) from error


def nearest(name: str, allowed: list[str]) -> str:
    """Return ``" Did you mean 'x'?"`` when a close spelling exists, else an empty string."""
    from difflib import get_close_matches

    close = get_close_matches(name, allowed, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def known(name: str, names: list[str], key: str, what: str) -> str:
    """Return ``name``, or refuse one that is not among ``names``; ``key`` says where it was given."""
    if name not in names:
        raise UserError(f"{key}: unknown {what} {name!r}; known: {', '.join(names)}.{nearest(name, names)}")
    return name
