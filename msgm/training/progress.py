"""Logs the loss terms during a run: shown as progress, and written to metrics.jsonl."""

import json
import time
from pathlib import Path
from typing import TypedDict

from msgm.folders import write_text
from msgm.progress import Progress
from msgm.reading import parse_json, read_text
from msgm.shapes import Count


class TrainingLog:
    """Shows and records the terms of the loss.

    Args:
        label: what is shown before the progress.
        start: steps already done.
        steps: steps in all.
        metrics: file that a JSON line a log is appended to.
        enabled: false on all processes but the first.
    """

    def __init__(self, label: str, start: int, steps: int, metrics: Path, enabled: bool = True) -> None:
        self.metrics, self.enabled = metrics, enabled
        self.progress = Progress(label, steps, "step", start, enabled)
        self._last = time.perf_counter()

    def log(self, step: int, values: dict[str, float], items: int) -> dict[str, float]:
        """Record ``values`` after ``step`` steps, in which ``items`` items were seen since the last call."""
        now = time.perf_counter()
        values = values | {"images_per_second": round(items / max(now - self._last, 1e-9), 1)}
        self._last = now
        if self.enabled:
            with self.metrics.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        self.progress.update(step, "  ".join(f"{name} {value:.4g}" for name, value in values.items()))
        return values

    def close(self) -> None:
        """Release the terminal line."""
        self.progress.close()


class Logged(TypedDict):
    """Keys of every line of ``metrics.jsonl``."""

    step: Count


def drop_lines_after(metrics: Path, step: int, main: bool) -> None:
    """Delete lines logged after the checkpoint that a run resumes from, and a last line that a crash cut off."""
    if main and metrics.is_file():
        lines = read_text(metrics).split("\n")[:-1]
        steps = [parse_json(line, f"{metrics}, line {number}", Logged)["step"] for number, line in enumerate(lines, 1)]
        write_text(metrics, "".join(f"{line}\n" for line, logged in zip(lines, steps, strict=True) if logged <= step))
