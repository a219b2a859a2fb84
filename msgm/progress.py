"""Progress of long work: a bar on a terminal, plain lines elsewhere, both with about how long the rest will take."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

EVERY = 10.0
"""Seconds between plain lines; work that takes less prints none."""


_bars = True
"""Whether a terminal shows bars; else it is told plain lines."""


def plain() -> None:
    """Print plain lines in this process even on a terminal, where several processes would draw over one another."""
    global _bars
    _bars = False


class Progress:
    """Shows how much of a piece of work is done. Used as a context, it releases the terminal line at its end.

    Args:
        label: what is being done.
        total: size of the whole; with the default of 1, ``update`` is told shares.
        unit: what is counted; empty for shares, which are shown as per cent.
        start: how much was done before.
        enabled: false shows nothing, on all processes but the first say.
    """

    def __init__(self, label: str, total: float = 1, unit: str = "", start: float = 0, enabled: bool = True) -> None:
        self.label, self.total, self.unit, self.start = label, total, unit, start
        terminal = _bars and sys.stderr.isatty()
        self.plain = enabled and not terminal
        form = None if unit else "{l_bar}{bar}| {elapsed}<{remaining}"
        self.bar = tqdm(
            total=total, initial=start, desc=label, unit=unit, bar_format=form, disable=not (enabled and terminal)
        )
        self._done, self._began = start, time.perf_counter()
        self._spoken = self._began

    def update(self, done: float, text: str = "") -> None:
        """Set the finished amount to ``done``; ``text`` is shown beside it, and printed at the end too."""
        self.bar.update(done - self._done)
        self._done = done
        if text:
            self.bar.set_postfix_str(text)
        now = time.perf_counter()
        if self.plain and (now - self._spoken > EVERY or (text and done == self.total)):
            count = f"{self.unit} {done:g}/{self.total:g}" if self.unit else f"{done / self.total:.0%}"
            beside = f"  {text}" if text else ""
            print(f"{self.label}: {count}{beside}{self._left(now)}", flush=True)
            self._spoken = now

    def _left(self, now: float) -> str:
        """Return about how long the rest will take at the pace so far; nothing at the end, or before any work."""
        done, rest = self._done - self.start, self.total - self._done
        return f", about {duration((now - self._began) * rest / done)} left" if done > 0 and rest > 0 else ""

    def close(self) -> None:
        """Release the terminal line."""
        self.bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def duration(seconds: float) -> str:
    """Return a time roughly: seconds up to a minute and a half, minutes up to an hour and a half, hours above."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
