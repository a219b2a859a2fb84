"""Ctrl-C and SIGTERM ask a loop to stop at its next safe point."""

import signal
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """While active, remembers the first SIGINT or SIGTERM; a second one acts at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        except ValueError:
            self._previous.clear()  # Not in the main thread: signals are its owner's business.
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
