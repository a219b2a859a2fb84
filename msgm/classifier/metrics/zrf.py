"""ZRF, zero retrain forgetting (Chundawat et al., AAAI 2023, arXiv 2205.08096): how random the forget outputs are.

ZRF = 1 - mean JS(model(x), untrained(x)) over forget items, true JS in nats: from 1 - ln 2 = .307 to 1, as random as an
untrained network. A retrained model is not that random, so a high value is not closeness to retraining.

Deviations: the mean over ``networks`` untrained ones, not one, which read inputs on the scale of the retain items;
public code has a "JS" that is neither symmetric nor of the right size (see ``distances``).
"""

from dataclasses import dataclass

import numpy as np

from msgm.checks import at_least
from msgm.classifier.metrics.base import METRICS, Case, Metric, Number
from msgm.classifier.metrics.distances import js, mean
from msgm.classifier.metrics.scores import mean_of
from msgm.classifier.outputs import Outputs
from msgm.seeding import derive_seed


@METRICS.register("zrf")
@dataclass(frozen=True)
class ZRF(Metric):
    """Zero retrain forgetting.

    Example:
        >>> ZRF(networks=2).measure(case)
        {'zrf': 0.8...}

    Attributes:
        networks: untrained networks to compare with.
    """

    numbers = {  # noqa: RUF012
        "zrf": Number("1 - mean JS on forget items from untrained networks, 1 - ln 2 to 1", "forgetting"),
    }
    live = True

    networks: int = 3

    def __post_init__(self) -> None:
        at_least(1, self, "options.zrf", "networks")

    def measure(self, case: Case) -> dict[str, float | None]:
        from msgm.classifier.measuring import logits_of

        if case.live is None or not len(case.target.labels["forget"]):
            return {"zrf": None}
        own, values = case.target.log_probabilities("forget"), []
        settings, split = case.live.settings, case.live.split
        for number in range(self.networks):
            seed = derive_seed(settings.seed, "zrf", number)
            untrained = settings.untrained(case.live.original, split.retain, seed)
            found = Outputs({"forget": logits_of(untrained, split.forget, settings.device)}, {})
            values.append(mean(js(found.log_probabilities("forget"), own)))
        average = mean_of(values)
        return {"zrf": None if average is None else float(np.clip(1 - average, 1 - np.log(2), 1))}
