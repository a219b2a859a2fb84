"""Number of compute threads: one for every core that is free when work starts.

PyTorch and the BLAS libraries take a thread for every core, and a thread that waits for the others spins. Beside
another busy process two such threads share one free core, each spinning while the other should work, and a step takes
many times longer than with one thread. ``scripts/bench/busy.py`` measures this.

A number that the user gives, as ``--threads`` or ``OMP_NUM_THREADS``, is always taken. The last bits of sums depend on
the number of threads, so a resumed run keeps the number that its manifest records.
"""

import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from msgm.shapes import Positive

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SECONDS = 0.25
"""How long the load of the machine is watched."""
NOISE = 0.25
"""So much of a core may be busy without being counted: a desktop or a monitor, which leaves the core to us."""

_asked = False
"""Whether the user gave the number with ``--threads`` in this process."""


@dataclass(frozen=True)
class Cores:
    """The cores that this process may use, and how many of them are free."""

    usable: int
    free: float

    def threads(self) -> int:
        """Return one thread for every free core, at least one."""
        return max(1, min(self.usable, math.floor(self.free + NOISE)))


def choose(asked: int | None) -> None:
    """Set the number of threads of this process for the work that follows, and print it where msgm chose it.

    Args:
        asked: the value of ``--threads``; None takes ``OMP_NUM_THREADS``, or else what is free.
    """
    global _asked
    _asked = asked is not None
    if asked is not None:
        use(asked)
    elif not os.environ.get("OMP_NUM_THREADS"):
        cores = watch()
        use(cores.threads())
        others = f"{cores.usable - cores.free:.1f} of {cores.usable} cores are busy with other work"
        print(f"threads: {cores.threads()} ({others})", file=sys.stderr, flush=True)


def watch(seconds: float = SECONDS) -> Cores:
    """Watch the machine for ``seconds`` and return its cores; what this process itself uses counts as free."""
    from joblib import cpu_count

    start, own, idle = time.monotonic(), time.process_time(), _idle_seconds()
    time.sleep(seconds)
    elapsed = time.monotonic() - start
    free = (_idle_seconds() - idle + time.process_time() - own) / elapsed
    usable = cpu_count()
    return Cores(usable, min(float(usable), free))


def _idle_seconds() -> float:
    """Return the seconds that the cores of this process's affinity have been idle since the machine started."""
    import psutil

    times = psutil.cpu_times(percpu=True)
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(times))
    return sum(times[core].idle + getattr(times[core], "iowait", 0.0) for core in mine if core < len(times))


def use(count: int) -> None:
    """Set the number of threads to ``count``, for libraries loaded now or later."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    for variable in VARIABLES:
        os.environ[variable] = str(count)
    threadpool_limits(count)
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)


def in_use() -> int | None:
    """Return the number of threads that PyTorch computes with; None before it is loaded."""
    torch: Any = sys.modules.get("torch")
    return torch.get_num_threads() if torch is not None else None


class Recorded(TypedDict, total=False):
    """The keys that are read from a manifest."""

    threads: Positive | None


def keep(manifest: Path) -> None:
    """Use the number of threads in a run's manifest, if there is one and the user gives no other."""
    from msgm.reading import read_json

    recorded = read_json(manifest, Recorded).get("threads") if manifest.is_file() else None
    if recorded is None or recorded == in_use():
        return
    if _asked:
        begun = f"the run in {manifest.parent} was begun with {recorded} threads"
        print(f"note: {begun}; numbers may differ in their last bits.")
        return
    use(recorded)
    print(f"threads: {recorded}, as the run in {manifest.parent} was begun with", file=sys.stderr, flush=True)
