"""RMIA, a per-example attack with few reference models (Zarifzadeh et al., ICML 2024, arXiv 2312.03262).

An item x is compared with held-out items z: LR(x, z) = [p(x | model) / p(x)] / [p(z | model) / p(z)], p(. | .) the
probability of the true class. Its score is the share of z with LR(x, z) > gamma. Offline, with models that saw neither,
p(x) = ((1 + a) mean p(x | reference) + (1 - a)) / 2 and likewise p(z).

The references are the retrained models: none saw the forget items or the non-members z. The non-members are also what
the forget items are told from, each with itself left out of its z. All retain items were seen by all references, so the
attack does not apply to them: ``membership`` has their side.

Deviations: the test items stay out of it, so z and the negatives are one set, with the left-out correction above.
"""

from dataclasses import dataclass

import numpy as np

from msgm.classifier.metrics.base import METRICS, UNIT, Case, Metric, Number
from msgm.classifier.metrics.scores import Floats, Mask, controls, losses, share, tpr_at
from msgm.classifier.outputs import Outputs
from msgm.errors import UserError
from msgm.strata import auc


@METRICS.register("rmia")
@dataclass(frozen=True)
class RMIA(Metric):
    """Offline RMIA with the retrained models as references.

    Attributes:
        a: of the offline correction, 0 to 1; the paper's value for small sets of references is about .3.
        gamma: the ratio that counts as a win, 1 or more.
    """

    numbers = {  # noqa: RUF012
        "rmia_auc": Number(
            "AUC of forget items against non-members by RMIA score, 0 to 1, .5 is chance", "privacy", bounds=UNIT
        ),
        "rmia_tpr_at_1_fpr": Number(
            "share of forget items found at 1% false positives, 0 to 1", "privacy", bounds=UNIT
        ),
        "rmia_worst_decile": Number(
            "mean RMIA score of the most exposed tenth of forget items, 0 to 1", "privacy", bounds=UNIT
        ),
        "rmia_worse_share": Number(
            "share of forget items whose score is above that in the original, 0 to 1", "privacy", bounds=UNIT
        ),
    }

    a: float = 0.3
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.a <= 1:
            raise UserError(f"metrics.rmia.a must lie in [0, 1], got {self.a}.")
        if not self.gamma >= 1:
            raise UserError(f"metrics.rmia.gamma must be at least 1, got {self.gamma}.")

    def measure(self, case: Case) -> dict[str, float | None]:
        mask = controls(case.target, case.scope)
        if not case.retrains or mask.sum() < 2:
            return dict.fromkeys(self.numbers)
        members, others = self.scores(case.target, case.retrains, mask)
        before, _ = self.scores(case.original, case.retrains, mask)
        worst = np.sort(members)[-max(1, round(len(members) / 10)) :]
        return {
            "rmia_auc": auc(members, others),
            "rmia_tpr_at_1_fpr": tpr_at(members, others, 0.01),
            "rmia_worst_decile": float(worst.mean()) if len(worst) else None,
            "rmia_worse_share": share(members > before),
        }

    def scores(self, target: Outputs, references: list[Outputs], mask: Mask) -> tuple[Floats, Floats]:
        """Return the scores in [0, 1] of forget items and of the non-members in ``mask``, of which two are needed."""
        forget = log_ratio(target, references, "forget", self.a)
        held_out = log_ratio(target, references, "nonmembers", self.a)[mask]
        order = np.sort(held_out)
        wins, own = (np.searchsorted(order, ratio - np.log(self.gamma)) for ratio in (forget, held_out))
        return wins / len(order), own / (len(order) - 1)


def log_ratio(target: Outputs, references: list[Outputs], part: str, a: float) -> Floats:
    """Return log p(x | model) - log p(x) of a part's items, (n,), with the offline p(x)."""
    out = np.mean([np.exp(-losses(reference, part)) for reference in references], axis=0)
    with np.errstate(divide="ignore"):  # a = 1 and p = 0 give an infinite ratio, which is its place in the order
        return np.asarray(-losses(target, part) - np.log(((1 + a) * out + (1 - a)) / 2))
