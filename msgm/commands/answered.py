"""The forget requests that the models of a folder answered, a line for each, for ``msgm verify``."""

from collections.abc import Iterator
from pathlib import Path

from msgm.chain import FILE, read_chain

SERVED = "recommender.safetensors"


def lines(folder: Path) -> list[str]:
    """Return the requests that a run folder's models, or a served recommender, have answered.

    A served folder is searched for the forgotten ids as well, and its journal is checked.

    Args:
        folder: a run, a comparison or a folder of ``msgm recommender fit``.

    Raises:
        UserError: a chain or journal is damaged, was edited or cut.
        RunError: a file of a served folder still holds an id that was forgotten.
    """
    if (folder / SERVED).is_file():
        from msgm.recommender.service import Service

        return Service(folder).answered()
    return [line for path in sorted(folder.rglob(FILE)) for line in _of_model(path.parent, folder)]


def _of_model(model: Path, folder: Path) -> Iterator[str]:
    chain = read_chain(model)
    if chain is None:
        return
    name = model.relative_to(folder).as_posix()
    if chain.unknown:
        yield f"{name}: requests before these are not known: {chain.unknown}"
    for number, entry in enumerate(chain.requests, 1):
        date = entry.date or "at an unknown date"
        yield f"{name}, request {number}: {entry.text}: {entry.extent}, by {entry.by}, {date}"
