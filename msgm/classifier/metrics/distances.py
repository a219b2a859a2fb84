"""Distances of the posterior from the retrained models', each a mean over items and over these models.

    KL(r || u)  sum_j r_j (log r_j - log u_j)                    nats, 0 and up
    JS(r, u)    (KL(r || m) + KL(u || m)) / 2, m = (r + u) / 2    nats, 0 to ln 2, symmetric
    activation  |softmax_u - softmax_r|_2                        0 to sqrt(2) (Golatkar et al., CVPR 2021)

Public code has "JS" with the arguments of the divergence swapped and divided by the number of classes: on 100 classes
a tenth of the true value.
"""

from dataclasses import dataclass

import numpy as np

from msgm.classifier.metrics.base import METRICS, Case, Metric, Number
from msgm.classifier.metrics.scores import Floats, mean_of
from msgm.study.parts import NONNEGATIVE


@METRICS.register("distances")
@dataclass(frozen=True)
class Distances(Metric):
    """KL, JS and activation distance to the retrained models.

    Example:
        >>> found = Distances().measure(case)
        >>> found["kl_forget"], found["activation_distance"]
        (0.4..., 0.4...)
        >>> Distances().measure(Case(case.target, case.original, retrains=[case.target]))["kl_forget"]
        0.0
    """

    numbers = {  # noqa: RUF012
        "kl_forget": Number(
            "KL of the posterior from the retrained models' on forget items, nats", "forgetting", bounds=NONNEGATIVE
        ),
        "kl_test": Number("the same on test items", "utility", bounds=NONNEGATIVE),
        "js_forget": Number(
            "JS distance from the retrained models' posterior on forget items, 0 to ln 2",
            "forgetting",
            bounds=NONNEGATIVE,
        ),
        "js_test": Number("the same on test items", "utility", bounds=NONNEGATIVE),
        "activation_distance": Number(
            "mean L2 distance from the retrained models' posterior on forget items, 0 to sqrt 2",
            "forgetting",
            bounds=NONNEGATIVE,
        ),
    }

    def measure(self, case: Case) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        measures = {"kl_forget": kl, "js_forget": js, "activation_distance": activation}
        for name, part, measure in [
            *((name, "forget", measure) for name, measure in measures.items()),
            ("kl_test", "test", kl),
            ("js_test", "test", js),
        ]:
            own = case.target.log_probabilities(part)
            found[name] = mean_of([mean(measure(one.log_probabilities(part), own)) for one in case.retrains])
        return found


def kl(p: Floats, q: Floats) -> Floats:
    """Return (n,) KL(p || q) in nats of (n, C) log-probabilities."""
    return np.asarray((np.exp(p) * (p - q)).sum(1))


def js(p: Floats, q: Floats) -> Floats:
    """Return (n,) Jensen-Shannon divergences in nats, 0 to ln 2, of (n, C) log-probabilities."""
    middle = np.logaddexp(p, q) - np.log(2)
    return np.clip((kl(p, middle) + kl(q, middle)) / 2, 0, np.log(2))


def activation(p: Floats, q: Floats) -> Floats:
    """Return (n,) L2 distances of the probabilities, of (n, C) log-probabilities."""
    return np.asarray(np.linalg.norm(np.exp(p) - np.exp(q), axis=1))


def mean(values: Floats) -> float | None:
    """Return the mean; None of no values."""
    return float(values.mean()) if len(values) else None
