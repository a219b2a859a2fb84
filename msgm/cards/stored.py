"""Reading stored reports to show them again; anything that cannot be shown is named in a one-sentence error."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from msgm.errors import UserError
from msgm.reading import read_json
from msgm.shapes import Rule

ROWS = Rule("a list of at least one row, as compare and evaluate write", lambda rows: len(rows) > 0)


class StoredReport(TypedDict):
    """The keys of every report. Further keys of rows depend on the metrics, including a plugin's."""

    kind: NotRequired[str]
    schema: NotRequired[int]
    outputs_only: NotRequired[bool]
    rows: Annotated[list[dict[str, Any]], ROWS]


def read_report(path: Path) -> dict[str, Any]:
    """Read the report of a comparison.

    Raises:
        UserError: the file is missing or damaged, or the report is no comparison's.
    """
    report: dict[str, Any] = read_json(path, StoredReport)
    if report.get("outputs_only"):
        raise UserError(f"{path} is no comparison's: it has outputs only; give the folder of compare or evaluate.")
    return report


@contextmanager
def showing(path: Path) -> Iterator[None]:
    """Context for making views of the report ``path``; names entries that are missing or malformed.

    Raises:
        UserError: a view cannot be made from the report.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:  # columns, figures and templates fail each in their own way on what is not there
        detail = next(iter(str(error).splitlines()), "").rstrip(".")
        what = f"it has no {detail}" if isinstance(error, KeyError) else f"{type(error).__name__}: {detail}"
        raise UserError(f"{path} is damaged: it cannot be shown ({what}).") from error
