"""What the processes of a server are told."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What a reading process is told.

    Attributes:
        folder: the served folder.
        trust: whether to run the Python files that it names.
        writer: address of the writer.
        token: that callers must send; None where anyone on this machine may ask.
    """

    folder: Path
    trust: bool
    writer: str
    token: str | None
