"""Forgetting rate (Forsaken, arXiv 2003.10933): how many forget items a membership oracle no longer calls members.

With BT and BF forget items judged member and non-member before, AT and AF after, FR = (AF - BF) / BT = 1 - AT / BT: one
at most, negative where unlearning exposes more items, and undefined at BT = 0.

The oracle calls an item a member when its loss is below a threshold: that of the highest balanced accuracy on retain
items against their controls, non-members of the same class and source (``msgm.strata``). FR@fixed takes the original's
threshold before and after; FR@adaptive takes a threshold of the model's own after, as an attacker would. A random
network has an FR near one and a retrained model one below it, for the oracle has false positives: read FR beside the
retrained models' and the utility.

FUP = (1 - AT / BT) (RA / RA_original) (TA / TA_original) joins FR@fixed with the retain and test accuracies.

Deviations: the paper's oracle is a shadow-model attack; with threshold and loss, the numbers can be had from logits
alone.
"""

from dataclasses import dataclass

from msgm.classifier.metrics.base import METRICS, UNIT, Case, Metric, Number
from msgm.classifier.metrics.scores import calibrated, controls, losses, mean_of, share
from msgm.classifier.outputs import Outputs


@METRICS.register("forgetting-rate")
@dataclass(frozen=True)
class ForgettingRate(Metric):
    """Forgetting rate with the oracle of the original and with one of the model's own.

    Example:
        >>> found = ForgettingRate().measure(case)
        >>> found["fr_fixed"], found["oracle_tpr"]
        (0.0..., 0.8...)
        >>> forgetting_rate(before=20, after=5)
        0.75
    """

    numbers = {  # noqa: RUF012
        "fr_fixed": Number("1 - AT / BT, at most 1, by a loss threshold fixed on the original", "forgetting"),
        "fr_adaptive": Number("1 - AT / BT, at most 1, AT by a threshold set anew on the model", "forgetting"),
        "fup": Number("fr_fixed times retain and test accuracy over the original's", "forgetting"),
        "oracle_tpr": Number(
            "share of forget items that the original's oracle calls members before unlearning",
            "forgetting",
            bounds=UNIT,
        ),
        "oracle_fpr": Number(
            "share of the forget items' controls that the original's oracle calls members", "forgetting", bounds=UNIT
        ),
    }

    def measure(self, case: Case) -> dict[str, float | None]:
        fixed, own = oracles_of(case.original), oracles_of(case.target)
        before, after = losses(case.original, "forget"), losses(case.target, "forget")
        rate = mean_of([forgetting_rate(int((before <= t).sum()), int((after <= t).sum())) for t in fixed])
        adaptive = [forgetting_rate(int((before <= t).sum()), int((after <= u).sum())) for t in fixed for u in own]
        found, held_out = controls(case.original), losses(case.original, "nonmembers")
        return {
            "fr_fixed": rate,
            "fr_adaptive": mean_of(adaptive),
            "fup": _with_utility(rate, case),
            "oracle_tpr": mean_of([share(before <= limit) for limit in fixed]),
            "oracle_fpr": mean_of([found.mean(held_out <= limit) for limit in fixed]),
        }


def oracles_of(outputs: Outputs) -> list[float]:
    """Return the loss in nats up to which an item is called a member, several where they are equally good.

    None without retain items that have controls. The numbers above are means over them.
    """
    return (-calibrated(outputs, -losses(outputs, "retain"), -losses(outputs, "nonmembers"))).tolist()


def forgetting_rate(before: int, after: int) -> float | None:
    """Return 1 - AT / BT of counts of items judged members; None where no item was one before."""
    return 1 - after / before if before else None


def _with_utility(rate: float | None, case: Case) -> float | None:
    for part in ("retain", "test"):
        now, then = share(case.target.right(part)), share(case.original.right(part))
        if rate is None or now is None or not then:
            return None
        rate *= now / then
    return rate
