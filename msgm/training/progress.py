"""Progress of a training run: a bar on a terminal, plain lines elsewhere, and metrics.jsonl always."""

import json
import sys
import time
from pathlib import Path

from tqdm import tqdm


class Progress:
    """Shows and records the terms of the loss.

    Args:
        label: what is shown before the bar.
        start: steps already done.
        steps: steps in all.
        metrics: file that a JSON line a log is appended to.
        enabled: false on all processes but the first.
    """

    def __init__(self, label: str, start: int, steps: int, metrics: Path, enabled: bool = True) -> None:
        self.label, self.steps, self.metrics, self.enabled = label, steps, metrics, enabled
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(total=steps, initial=start, desc=label, unit="step", disable=not (enabled and self.terminal))
        self._last, self._step, self._spoken = time.perf_counter(), start, 0.0

    def log(self, step: int, values: dict[str, float], items: int) -> dict[str, float]:
        """Record ``values`` after ``step`` steps, in which ``items`` items were seen since the last call."""
        now = time.perf_counter()
        values = values | {"images_per_second": round(items / max(now - self._last, 1e-9), 1)}
        self.bar.update(step - self._step)
        self._last, self._step = now, step
        if not self.enabled:
            return values
        with self.metrics.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.bar.set_postfix_str(text)
        if not self.terminal and (now - self._spoken > 10 or step == self.steps):
            print(f"{self.label}: step {step}/{self.steps}  {text}", flush=True)
            self._spoken = now
        return values

    def close(self) -> None:
        """Release the terminal line."""
        self.bar.close()
