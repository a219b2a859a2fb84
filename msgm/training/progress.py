"""The terms of the loss in the course of a run: shown as progress, and written to metrics.jsonl."""

import json
import time
from pathlib import Path

from msgm.progress import Progress


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
