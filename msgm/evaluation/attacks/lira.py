r"""Membership by the likelihood ratio of an item's loss: LiRA, offline (Carlini et al., arXiv 2112.03570).

Some items are hard for every model. What an item's loss L is under models that never saw it tells how hard it is, and a
member's loss is expected to lie below that:

    score = (log L - mean of log L over retrained models) / sd

The retrained models of the comparison are these models: they saw neither the items to forget nor the held-out ones.
Items to retain are not attacked, as the retrained models saw them.

A retrained model's scores are beside the k - 1 others, a further model's beside all k. A model that lies off the mean
of all by D lies off that of the others by D k / (k - 1), so that the retrained models' AUCs spread more than those of
further models, by up to k / (k - 1), 5/4 of five. So the band is wider than need be, and a further retrained model lies
inside more often than is stated; it is not narrowed, as by how much depends on the items.

Deviations: the published attack reads a classifier's logit; here it is the logarithm of the noise-prediction loss at
one noise level, the loss of ``membership`` with the same noise for all models, and scores are means over the levels.
The standard deviation is one for all items of a level, as is advised for few models, and its tail probability, which
orders items alike, is not taken.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import ScoreModel
from msgm.evaluation.attacks.inference import MembershipAttack, columns_of
from msgm.evaluation.attacks.membership import losses_by_level
from msgm.evaluation.attacks.retrained import check_retrained, others_of, too_few
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS
from msgm.splits import Split

OTHERS = 2
"""Retrained models beside the one that is attacked, for a standard deviation."""


@METRICS.register("lira")
@dataclass(frozen=True)
class LiRA(MembershipAttack):
    """Membership inference by losses beside those of the retrained models.

    Example:
        >>> found = LiRA(levels=[0.5, 2.0], items=30).measure(subject)["lira"]
        >>> 0 <= found["forget"]["auc"]["value"] <= 1
        True

    Attributes:
        levels: noise levels rho = sigma / a at which the loss is taken, one draw of noise each.
        items: items of each group at most, drawn at random when it has more.
    """

    key = "lira"
    short = "LiRA"
    parts: ClassVar = ("forget",)
    beside_retrained = True
    columns = columns_of(key, short, parts)

    levels: list[float] = field(default_factory=lambda: [0.1, 0.17, 0.28, 0.46, 0.77, 1.3, 2.2, 3.6, 6.0, 10.0])

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        super().check(config, dataset, split)
        check_retrained(self, config, OTHERS)

    def attack(self, subject: Subject) -> dict[str, Any]:
        count = len(others_of(subject))
        return super().attack(subject) if count >= OTHERS else {"not_tested": too_few(count, OTHERS)}

    def scores(self, subject: Subject, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        def logs(model: ScoreModel) -> NDArray[np.float64]:
            return losses_by_level(model, subject.bench, indices, self.levels).log().numpy()

        return standardised(logs(subject.model), np.stack([logs(other.model) for other in others_of(subject)]))

    def combined(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(scores.mean(1))

    def protocol(self, bench: Bench) -> dict[str, str]:
        return {
            "membership inference by LiRA": "as by loss, but an item's score at a level is the logarithm of its loss "
            f"less the mean over the {len(bench.retrained)} retrained models other than the model itself, which never "
            "saw it, in units of their spread, one for all items of a level; then the mean over levels"
        }


def standardised(own: NDArray[np.float64], out: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far (N, levels) log-losses lie from those of models that never saw the items, in units of their sd.

    Args:
        own: of the attacked model.
        out: (K, N, levels) of the other models, K >= 2.
    """
    return np.asarray((own - out.mean(0)) / np.sqrt(out.var(0, ddof=1).mean(0)))
