"""RMIA, a per-example attack with few reference models (Zarifzadeh et al., ICML 2024, arXiv 2312.03262).

An item x is compared with held-out items z: LR(x, z) = [p(x | model) / p(x)] / [p(z | model) / p(z)], p(. | .) the
probability of the true class. Its score is the share of z with LR(x, z) > gamma. Offline, with models that saw neither,
p(x) = ((1 + a) mean p(x | reference) + (1 - a)) / 2 and likewise p(z).

The references are the retrained models: none saw the forget items or the non-members. The z are the forget items'
controls, non-members of the same class and source (``msgm.strata``), a share of z being one of their weight; they are
also the negatives of the attack, each with itself left out of its z. A forget item leaves out a control of its own
stratum as well, on average over these, so that it is compared with the same strata in the same shares. All retain items
were seen by all references, so the attack does not apply to them: ``membership`` has their side.

Deviations: the test items stay out of it, so z and the negatives are one set, with the left-out correction above.
"""

from dataclasses import dataclass

import numpy as np

from msgm.classifier.metrics.base import METRICS, UNIT, Case, Metric, Number
from msgm.classifier.metrics.scores import Floats, attack_numbers, controls, losses, share, told_apart
from msgm.classifier.outputs import Outputs
from msgm.errors import UserError
from msgm.strata import Controls, weight_below

FPR = 0.01


@METRICS.register("rmia")
@dataclass(frozen=True)
class RMIA(Metric):
    """Offline RMIA with the retrained models as references.

    Example:
        >>> found = RMIA(a=0.3, gamma=2.0).measure(case)
        >>> found["rmia_auc"], found["rmia_worst_decile"]
        (0.8..., 0.7...)

    Attributes:
        a: of the offline correction, 0 to 1; the paper's value for small sets of references is about .3.
        gamma: the ratio that counts as a win, 1 or more.
    """

    numbers = attack_numbers("rmia", "RMIA score", FPR) | {
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
            raise UserError(f"options.rmia.a must lie in [0, 1], got {self.a}.")
        if not self.gamma >= 1:
            raise UserError(f"options.rmia.gamma must be at least 1, got {self.gamma}.")

    def measure(self, case: Case) -> dict[str, float | None]:
        found = controls(case.target)
        if not case.retrains or found.used.sum() < 2:
            return dict.fromkeys(self.numbers)
        members, others = self.scores(case.target, case.retrains, found)
        before, _ = self.scores(case.original, case.retrains, found)
        worst = np.sort(members)[-max(1, round(len(members) / 10)) :]
        return told_apart("rmia", members, others, found.weights[found.used], FPR) | {
            "rmia_worst_decile": float(worst.mean()) if len(worst) else None,
            "rmia_worse_share": share(members > before),
        }

    def scores(self, target: Outputs, references: list[Outputs], found: Controls) -> tuple[Floats, Floats]:
        """Return the scores in [0, 1] of the forget items that have controls, and of their controls, at least two."""
        sides = zip(("forget", "nonmembers"), (found.matched, found.used), strict=True)
        parts = [(log_ratio(target, references, part, self.a)[own], target.stratum(part)[own]) for part, own in sides]
        (forget, of_forget), (held_out, of_held_out) = parts
        weights, limit = found.weights[found.used], np.log(self.gamma)
        members, others = (weight_below(ratio - limit, held_out, weights) for ratio in (forget, held_out))
        left = np.full(len(forget), weights.sum())
        for stratum in np.unique(of_held_out):
            mine, same = of_forget == stratum, of_held_out == stratum
            members[mine] -= weight_below(forget[mine] - limit, held_out[same], weights[same]) / same.sum()
            left[mine] -= weights[same][0]
        return members / left, others / (weights.sum() - weights)


def log_ratio(target: Outputs, references: list[Outputs], part: str, a: float) -> Floats:
    """Return log p(x | model) - log p(x) of a part's items, (n,), with the offline p(x)."""
    out = np.mean([np.exp(-losses(reference, part)) for reference in references], axis=0)
    with np.errstate(divide="ignore"):  # a = 1 and p = 0 give an infinite ratio, which is its place in the order
        return np.asarray(-losses(target, part) - np.log(((1 + a) * out + (1 - a)) / 2))
