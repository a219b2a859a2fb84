"""What a busy machine costs: sampling and a training step, alone and beside one busy process of one thread.

Every rate is that of a process of its own, so that msgm chooses its number of threads as the command line does; the
fixed numbers are ``OMP_NUM_THREADS`` from 1 to the number of cores. In every round each setting has its turn; rates
are medians over the rounds, ratios the medians of each round's ratio. ``busy_ratio`` is msgm's rate beside the
neighbour over its rate alone, ``idle_ratio`` its rate alone over that of the best fixed number; of both the worse of
the two kinds of work is the result.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

WORK = ("sampling", "training")
CHOSEN = "chosen"
Rates = dict[str, float]
Setting = tuple[str, bool]
"""A number of threads, and whether the neighbour is there."""
Rounds = list[dict[Setting, Rates]]


def main() -> None:
    """Measure all settings in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="configs/digits/vp.yaml")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="measured time of each kind of work (2)")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.config, options.seconds)))
        return
    from joblib import cpu_count

    fixed = [str(count) for count in range(1, cpu_count() + 1)]
    settings = [(threads, busy) for threads in (CHOSEN, *fixed) for busy in (False, True)]
    rounds: Rounds = []
    for number in range(options.rounds):
        turn = settings if number % 2 == 0 else settings[::-1]
        rounds.append({setting: one(*setting, options) for setting in turn})
        print(f"round {number + 1} of {options.rounds} is done", file=sys.stderr, flush=True)
    report(rounds, settings, fixed, options.json)


def one(threads: str, busy: bool, options: argparse.Namespace) -> Rates:
    """Return the rates of a new process with a number of threads, or with the one that msgm chooses."""
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    if threads != CHOSEN:
        environment["OMP_NUM_THREADS"] = threads
    call = [sys.executable, __file__, "--measure", "--config", options.config, "--seconds", str(options.seconds)]
    with neighbour() if busy else nobody():
        done = subprocess.run(call, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    rates: Rates = json.loads(done.stdout.splitlines()[-1])
    return rates


@contextmanager
def neighbour() -> Iterator[None]:
    """Have another process keep one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    time.sleep(0.5)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def nobody() -> Iterator[None]:
    """Leave the machine as it is."""
    yield


def measured(config_path: str, seconds: float) -> Rates:
    """Return images sampled and training steps a second in this process, and its number of threads."""
    from msgm import threads

    threads.choose(None)
    import torch

    from msgm.config import TrainingSettings, load_config
    from msgm.diffusion import sample
    from msgm.objectives import OBJECTIVES
    from msgm.runs import Run
    from msgm.training import Trainer
    from msgm.training.run import load_data, new_model

    config = load_config(config_path)
    dataset, split = load_data(config)
    model = new_model(config, dataset)
    size = config.sampling.batch_size
    sampling = size * rate(lambda: sample(model, size, config.sampling, 0, 0), seconds)
    settings = TrainingSettings(batch_size=config.training.batch_size, trackers=[])
    with tempfile.TemporaryDirectory() as folder:
        objective = OBJECTIVES.build({"name": "unseen"})
        trainer = Trainer(model, objective, dataset, split.train, settings, 0, Run(Path(folder)), "cpu")
        batches, steps = trainer.feeds.batches(0, 0)[0], itertools.count()
        training = rate(lambda: trainer._step(next(steps), next(batches), None), seconds)
    return {"sampling": sampling, "training": training, "threads": torch.get_num_threads()}


def rate(work: Callable[[], object], seconds: float) -> float:
    """Return how often a second ``work`` is done, over at least ``seconds`` after one call to warm up."""
    work()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - start)


def report(rounds: Rounds, settings: list[Setting], fixed: list[str], file: str | None) -> None:
    """Print the table, and write the numbers to ``file``."""
    rates = {
        setting: {work: statistics.median(found[setting][work] for found in rounds) for work in WORK}
        for setting in settings
    }
    best = {work: max(fixed, key=lambda count: rates[count, False][work]) for work in WORK}
    busy = {work: ratio(rounds, work, (CHOSEN, True), (CHOSEN, False)) for work in WORK}
    idle = {work: ratio(rounds, work, (CHOSEN, False), (best[work], False)) for work in WORK}
    print(f"{'threads':10}{'machine':12}{'sampling, images/s':>20}{'training, steps/s':>20}{'in use':>10}")
    for threads, neighboured in settings:
        found = rates[threads, neighboured]
        used = sorted({int(r[threads, neighboured]["threads"]) for r in rounds})
        machine = "busy" if neighboured else "idle"
        print(f"{threads:10}{machine:12}{found['sampling']:20.0f}{found['training']:20.1f}{used!s:>10}")
    print(f"busy_ratio {min(busy.values()):.2f} {busy}\nidle_ratio {min(idle.values()):.2f} {idle}")
    if file:
        named = {f"{threads} {'busy' if b else 'idle'}": found for (threads, b), found in rates.items()}
        facts = {"rounds": len(rounds), "busy_ratio": min(busy.values()), "idle_ratio": min(idle.values())}
        Path(file).write_text(json.dumps(facts | {"busy": busy, "idle": idle, "rates": named}, indent=2) + "\n")


def ratio(rounds: Rounds, work: str, over: Setting, under: Setting) -> float:
    """Return the median over the rounds of one setting's rate over another's."""
    return round(statistics.median(found[over][work] / found[under][work] for found in rounds), 3)


if __name__ == "__main__":
    main()
