"""One model's numbers: unlearning ratio, junk and copy rates, class histogram, likelihoods."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import ScoreModel, negative_log_likelihood, sample
from msgm.evaluation.judge import Judge
from msgm.evaluation.rates import rate
from msgm.evaluation.reality import Reality, to_items
from msgm.requests import Split

NOTHING = "none"


@dataclass(frozen=True)
class Bench:
    """What every model of a comparison is measured against."""

    config: Config
    dataset: Dataset
    split: Split
    judge: Judge
    reality: Reality

    def protocol(self) -> dict[str, str]:
        """Return how the numbers were made, in words."""
        evaluation, dims = self.config.evaluation, int(np.prod(self.dataset.shape))
        unit = nll_unit(self.dataset)
        scale = f", uniform dequantisation of {self.dataset.levels} levels" if self.dataset.levels else ""
        return {
            "samples": f"{evaluation.samples} samples, {self.config.sampling.describe()}",
            "weights": self.config.training.weights,
            "UR": "unlearning ratio: share of samples judged a forgotten class, junk being none; 95% Wilson interval",
            "UR closed-set": "the same without the way out: junk counts as the class that the judge names for it",
            "junk rate": "share of samples farther from the training items than 99% of validation items are",
            "copy rate": "share of samples nearer to a training item than 99% of validation items are",
            "class histogram": "judge's classes of the samples that are no junk; junk is counted as none",
            "NLL": f"{unit} of the first test items, mean (median){scale}; {evaluation.likelihood.describe(dims)}",
        }

    def nll_indices(self) -> dict[str, NDArray[np.int64]]:
        """Return the items whose likelihood is taken: of test, or of train when the request names no test item."""
        count, test = self.config.evaluation.nll_items, self.split.test
        forget = test.forget if len(test.forget) else self.split.train.forget
        return {"retain": test.retain[:count], "forget": forget[:count]}


def nll_unit(dataset: Dataset) -> str:
    """Return the unit of the likelihoods: bits/dim for images of levels, nats for vectors."""
    return "bits/dim" if dataset.levels else "nats"


def measure(model: ScoreModel, bench: Bench) -> tuple[dict[str, Any], Tensor]:
    """Return a model's numbers as a JSON tree, and its samples in [-1, 1]."""
    config = bench.config
    samples = sample(model, config.evaluation.samples, config.sampling, config.seed)
    numbers = sample_numbers(to_items(samples, bench.dataset.levels), bench)
    return numbers | {"nll": likelihoods(model, bench)}, samples


def sample_numbers(items: Tensor, bench: Bench) -> dict[str, Any]:
    """Return the rates and the histogram of raw sampled ``items``."""
    judge, reality, n = bench.judge, bench.reality, len(items)
    predicted, distances = judge.predict(items), reality.distances(items)
    junk, copies = reality.junk(distances), reality.copies(distances)
    forgotten = judge.is_forgotten(predicted)
    counts = torch.bincount(predicted[~junk], minlength=len(judge.classes)).tolist()
    junk_rate, copy_rate = rate(int(junk.sum()), n), rate(int(copies.sum()), n)
    return {
        "unlearning_ratio": rate(int((forgotten & ~junk).sum()), n),
        "unlearning_ratio_closed_set": rate(int(forgotten.sum()), n),
        "junk_rate": junk_rate["value"],
        "copy_rate": copy_rate["value"],
        "intervals": {name: [r["low"], r["high"]] for name, r in (("junk_rate", junk_rate), ("copy_rate", copy_rate))},
        "class_histogram": dict(zip(judge.classes, counts, strict=True)) | {NOTHING: int(junk.sum())},
    }


def likelihoods(model: ScoreModel, bench: Bench) -> dict[str, Any]:
    """Return mean, median, standard error and n of the NLL of retain and of forget items."""
    data, config = bench.dataset, bench.config
    found: dict[str, Any] = {"unit": nll_unit(data)}
    for name, indices in bench.nll_indices().items():
        values = negative_log_likelihood(
            model, data.take(indices), data.levels, config.evaluation.likelihood, config.seed
        )
        error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else None
        found[name] = {
            "mean": values.mean().item(),
            "median": values.median().item(),
            "standard_error": error,
            "n": len(values),
        }
    return found
