"""SISA on the digits: points visited against the formulas, and predictions against an ensemble trained without.

Streams of requests, drawn uniformly from the training items, are answered one by one; the same items are then asked as
one batch of a second ensemble, and a third is trained without them. All three must predict alike, bit for bit on a CPU.
Visited points are those that the training loop counts, averaged over the streams.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msgm.classifier.data import Examples, Shares, held_out
from msgm.classifier.networks import MLP, build
from msgm.classifier.sisa import SISA, expected_cost
from msgm.classifier.training import TrainingSettings
from msgm.data import Dataset, load_dataset
from msgm.seeding import derive_seed


@dataclass
class Measured:
    """What one stream took."""

    stream: int
    batch: int
    stream_seconds: float
    training_seconds: float
    accuracy_before: float
    accuracy_after: float
    equal: bool


def main() -> None:
    """Run the streams and print measured against expected."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=int, default=5)
    parser.add_argument("--slices", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--requests", type=int, default=20, help="in a stream")
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    dataset = load_dataset("digits")
    rows = [row(dataset, slices, options) for slices in options.slices]
    report(rows)
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        Path(options.json).write_text(json.dumps({"rows": rows, "settings": settings}, indent=2) + "\n")


def row(dataset: Dataset, slices: int, options: argparse.Namespace) -> dict[str, object]:
    """Return the means over the streams beside what is expected."""
    parts = held_out(dataset, Shares(), 0)
    train, test = Examples.of(dataset, parts["train"]), Examples.of(dataset, parts["test"])
    found = [run(train, test, slices, options, seed) for seed in range(options.streams)]
    expected = expected_cost(len(train), options.shards, slices, options.epochs, options.requests)
    stream, batch = fmean(one.stream for one in found), fmean(one.batch for one in found)
    return {
        "slices": slices,
        "stream_points": stream,
        "stream_ratio": stream / expected.stream,
        "batch_points": batch,
        "batch_ratio": batch / expected.batch,
        "expected": asdict(expected),
        "seconds_a_request": fmean(one.stream_seconds for one in found) / options.requests,
        "training_seconds": fmean(one.training_seconds for one in found),
        "accuracy_before": fmean(one.accuracy_before for one in found),
        "accuracy_after": fmean(one.accuracy_after for one in found),
        "equal": all(one.equal for one in found),
    }


def run(train: Examples, test: Examples, slices: int, options: argparse.Namespace, seed: int) -> Measured:
    """Answer one stream, the same items as one batch, and train without them."""
    items = requests(train, options.requests, seed)
    streaming, batched, without = (system(train.dataset, slices, options, seed) for _ in range(3))
    began = time.perf_counter()
    streaming.fit(train)
    training_seconds, before = time.perf_counter() - began, streaming.logits(test)
    began = time.perf_counter()
    works = streaming.forget_stream(items.tolist())
    stream_seconds = time.perf_counter() - began
    batched.fit(train)
    batch = batched.forget(items)
    without.fit(train, without=items)
    after = without.logits(test)
    equal = torch.equal(streaming.logits(test), after) and torch.equal(batched.logits(test), after)
    points = sum(work.points for work in works)
    scores = accuracy(before, test), accuracy(after, test)
    return Measured(points, batch.points, stream_seconds, training_seconds, *scores, equal)


def requests(train: Examples, count: int, seed: int) -> NDArray[np.int64]:
    """Return the indices of ``count`` training items."""
    draws = np.random.default_rng(derive_seed(seed, "requests"))
    return np.asarray(draws.choice(train.indices, count, replace=False))


def system(dataset: Dataset, slices: int, options: argparse.Namespace, seed: int) -> SISA:
    """Return an untrained ensemble of small networks."""
    training = TrainingSettings(epochs=options.epochs, weight_decay=0.0)
    return SISA(partial(network, dataset), training, seed, options.shards, slices)


def network(dataset: Dataset, seed: int) -> nn.Module:
    """Return a network of one hidden layer."""
    return build(MLP([64]), dataset.shape, len(dataset.classes), seed)


def accuracy(log_p: Tensor, examples: Examples) -> float:
    """Return the share of right answers."""
    return float((log_p.argmax(1) == examples.labels).float().mean())


def report(rows: list[dict[str, object]]) -> None:
    """Print the table."""
    names = ["slices", "stream_points", "stream_ratio", "batch_points", "batch_ratio", "seconds_a_request"]
    names += ["training_seconds", "accuracy_before", "accuracy_after", "equal"]
    for name in names:
        values = "".join(
            f"{value:14.4g}" if isinstance(value := row[name], float) else f"{value!s:>14}" for row in rows
        )
        print(f"{name:20s}{values}")
    print("ratios are measured over expected; equal: stream, batch and training without predict alike, bit for bit")


if __name__ == "__main__":
    main()
