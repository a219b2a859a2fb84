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
        unit, part = nll_unit(self.dataset), self.forget_part()
        scale = f", uniform dequantisation of {self.dataset.levels} levels" if self.dataset.levels else ""
        items = "test items" if part == "test" else "test items to retain and of the training items to forget"
        return {
            "samples": f"{evaluation.samples} samples, {self.config.sampling.describe()}",
            "UR": "unlearning ratio: share of samples judged a forgotten class, junk being none; 95% Wilson interval",
            "UR closed-set": "the same without the way out: junk counts as the class that the judge names for it",
            "junk rate": "share of samples farther from the training items than 99% of validation items are, in "
            "pixels; a blurred average passes",
            "copy rate": "share of samples nearer to a training item than 99% of validation items are, in pixels",
            "class histogram": "judge's classes of the samples that are no junk; junk is counted as none",
            "NLL": f"{unit} of the first {items}, mean (median){scale}; {evaluation.likelihood.describe(dims)}",
        }

    def forget_part(self) -> str:
        """Return which part the forget items of the likelihood come from: train if the request names no test item."""
        return "test" if len(self.split.test.forget) else "train"

    def nll_indices(self) -> dict[str, NDArray[np.int64]]:
        """Return the items whose likelihood is taken."""
        count = self.config.evaluation.nll_items
        forget = self.split.test.forget if self.forget_part() == "test" else self.split.train.forget
        return {"retain": self.split.test.retain[:count], "forget": forget[:count]}

    def real(self) -> dict[str, Any]:
        """Return what held-out real retain items score: the ratio's floor, and the control of both thresholds."""
        items = self.dataset.take(self.split.test.retain)
        return sample_numbers(items, torch.ones(len(items), dtype=torch.bool), self)


def nll_unit(dataset: Dataset) -> str:
    """Return the unit of the likelihoods: bits/dim for images of levels, nats for vectors."""
    return "bits/dim" if dataset.levels else "nats"


def measure(model: ScoreModel, bench: Bench) -> tuple[dict[str, Any], Tensor]:
    """Return a model's numbers as a JSON tree, and its samples in [-1, 1]."""
    config = bench.config
    samples = sample(model, config.evaluation.samples, config.sampling, config.seed)
    finite = samples.isfinite().flatten(1).all(1)
    numbers = sample_numbers(to_items(samples, bench.dataset.levels), finite, bench)
    return numbers | {"nll": likelihoods(model, bench)}, samples


def sample_numbers(items: Tensor, finite: Tensor, bench: Bench) -> dict[str, Any]:
    """Return the rates and the histogram of raw ``items``; those that are not ``finite`` count as junk."""
    judge, reality, n = bench.judge, bench.reality, len(items)
    predicted, distances = judge.predict(items), reality.distances(items)
    junk = reality.junk(distances) | ~finite
    forgotten = judge.is_forgotten(predicted)
    counts = torch.bincount(predicted[~junk], minlength=len(judge.classes)).tolist()
    junk_rate, copy_rate = rate(int(junk.sum()), n), rate(int((reality.copies(distances) & finite).sum()), n)
    return {
        "unlearning_ratio": rate(int((forgotten & ~junk).sum()), n),
        "unlearning_ratio_closed_set": rate(int(forgotten.sum()), n),
        "junk_rate": junk_rate["value"],
        "copy_rate": copy_rate["value"],
        "intervals": {name: [r["low"], r["high"]] for name, r in (("junk_rate", junk_rate), ("copy_rate", copy_rate))},
        "class_histogram": dict(zip(judge.classes, counts, strict=True)) | {NOTHING: int(junk.sum())},
        "non_finite_samples": int((~finite).sum()),
    }


def likelihoods(model: ScoreModel, bench: Bench) -> dict[str, Any]:
    """Return mean, median, standard error and n of the NLL of retain and of forget items; null where it diverged."""
    data, config = bench.dataset, bench.config
    found: dict[str, Any] = {"unit": nll_unit(data), "forget_part": bench.forget_part()}
    for name, indices in bench.nll_indices().items():
        items = data.take(indices)
        values = negative_log_likelihood(model, items, data.levels, config.evaluation.likelihood, config.seed)
        found[name] = summary(values)
    return found


def summary(values: Tensor) -> dict[str, Any]:
    """Return mean, median, standard error and n of ``values``; the former are null when one of them is not finite."""
    n, bad = len(values), int((~values.isfinite()).sum())
    if bad:
        return {"mean": None, "median": None, "standard_error": None, "n": n, "non_finite": bad}
    error = values.std().item() / n**0.5 if n > 1 else None
    return {"mean": values.mean().item(), "median": values.median().item(), "standard_error": error, "n": n}
