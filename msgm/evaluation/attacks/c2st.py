r"""Whether a classifier tells a model's samples from those of retrained models: a classifier two-sample test.

C2ST (Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", arXiv 1610.06545). Logistic regression on
standardised features of both sets learns to tell them apart on some folds and is asked on the fold left out; the number
is the share of right answers. It is 50% where the sets are of one distribution, and at most

    Phi(d / 2)

for Gaussian features whose means lie d apart, in units of their common covariance. Being linear, it sees means, not
spreads; the kernel of ``sample-distance`` sees both.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.checks import at_least
from msgm.evaluation.attacks.retrained import Compared, beside, columns_of
from msgm.evaluation.attacks.sampled import SamplesBesideRetrained, halves, paired
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.extractors import load_features
from msgm.evaluation.metrics.base import METRICS
from msgm.evaluation.rates import Share, rate
from msgm.seeding import generator
from msgm.solves import fitted

ITERATIONS = 5000
HEADING = "C2ST %"
WITHIN = "C2ST % within one retrained model"


@METRICS.register("c2st")
@dataclass(frozen=True)
class C2ST(SamplesBesideRetrained):
    """Share of samples that logistic regression assigns rightly to the model or to a retrained one; 50% by chance.

    Example:
        >>> found = C2ST(folds=2).measure(subject)["c2st"]["compared"]["C2ST %"]
        >>> found["least"] <= found["value"] <= found["greatest"]
        True
        >>> {pair["n"] for pair in found["by_model"].values()}  # 20 samples of either model
        {40}

    Attributes:
        folds: of the cross-validation.
        extractor: of the features, its name and its own settings (``msgm.evaluation.extractors``).
    """

    key = "c2st"
    columns = columns_of(key, {HEADING: ".1f", WITHIN: ".1f"})

    folds: int = 5

    def __post_init__(self) -> None:
        at_least(2, self, "evaluation.options.c2st", "folds")

    def compared(self, subject: Subject, other: Subject) -> Compared:
        features = load_features(subject.bench, self.extractor)
        return {
            HEADING: self._told(*paired(subject, other, features), subject.bench),
            WITHIN: self._told(*halves(other, features), subject.bench),
        }

    def _told(self, x: Tensor, y: Tensor, bench: Bench) -> dict[str, Any]:
        if len(x) < 2 * self.folds:
            return {"value": None, "n": len(x) + len(y)}
        found = accuracy(x, y, self.folds, generator(bench.config.seed, self.name))
        return {**found, **{key: 100 * found[key] for key in ("value", "low", "high")}}

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        return {HEADING: found["compared"][HEADING]["value"]}

    def protocol(self, bench: Bench) -> dict[str, str]:
        features = load_features(bench, self.extractor)
        return {
            "C2ST": f"share of samples that logistic regression assigns rightly to the model or a retrained one, as "
            f"many of either, by {self.folds}-fold cross-validation on standardised features of {features.text}; 50% "
            f"is chance; {beside(bench)}; 'within one' tells one half of a retrained model's samples from the other"
        }


def accuracy(x: Tensor, y: Tensor, folds: int, draws: torch.Generator) -> Share:
    """Return the share of (m, F) features x and (m, F) features y that are told apart, ties counting half.

    The i-th of x and the i-th of y are in one fold, so that a set and itself are told apart in exactly half of all
    cases.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    m = len(x)
    both = torch.cat([x, y]).double().numpy()
    first = np.arange(2 * m) < m
    fold = np.tile(torch.randperm(m, generator=draws).numpy() % folds, 2)
    scores: NDArray[np.float64] = np.empty(2 * m)
    for number in range(folds):
        asked = fold == number
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
        fitted(partial(probe.fit, both[~asked], first[~asked]), "C2ST's classifier")
        scores[asked] = probe.decision_function(both[asked])
    right = np.where(scores == 0, 0.5, (scores > 0) == first)
    return rate(float(right.sum()), 2 * m)
