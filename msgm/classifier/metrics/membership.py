"""Population membership inference, one threshold for all items, on named scores.

    correctness        1 if the prediction is right
    confidence         the largest probability, whatever the label (Salem et al., NDSS 2019, adversary 3)
    entropy            minus the entropy of the posterior
    modified_entropy   minus the modified entropy (Song & Mittal, USENIX Security 2021)
    loss               minus the loss; the true class' probability orders items alike, so it has the same numbers

Higher is more like a member. The AUC compares forget items with their controls, non-members of the same class and
source, weighted to the same shares (``msgm.strata``); .5 is chance. The literature's "MIA efficacy" (arXiv 2304.04934)
fits an attack on retain items against their controls and gives the share of forget items that it calls non-members.
Both are read two-sided: a value far on the other side of the retrained models' gives the forget items away as well,
hence the gaps |value - mean of the retrained models|.

Deviations: the literature fits a support vector machine on each score; a threshold of the highest balanced accuracy is
the same family for one score and has no settings. Its non-members were also the test items; here they are not.
The attack is also run on retain items, which unlearning can expose. Retrained models are no reference there, as all of
them were trained on these items.
"""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from msgm.classifier.metrics.base import METRICS, UNIT, Case, Metric, Number
from msgm.classifier.metrics.scores import (
    Floats,
    calibrated,
    controls,
    entropies,
    gap,
    losses,
    mean_of,
    modified_entropies,
    share,
)
from msgm.classifier.outputs import Outputs
from msgm.strata import ROUNDING, weight_below

_found: WeakKeyDictionary[Outputs, dict[str, dict[str, float | None]]] = WeakKeyDictionary()

VARIANTS = ("correctness", "confidence", "entropy", "modified_entropy", "loss")


def _numbers() -> dict[str, Number]:
    found: dict[str, Number] = {}
    for variant in VARIANTS:
        words = variant.replace("_", " ")
        found |= {
            f"mia_{variant}_auc": Number(
                f"AUC of forget items against their controls by {words}, 0 to 1", "privacy", bounds=UNIT
            ),
            f"mia_{variant}_efficacy": Number(
                f"share of forget items that the attack by {words} calls non-members, 0 to 1", "privacy", bounds=UNIT
            ),
            f"mia_{variant}_auc_gap": Number(
                f"distance of the AUC by {words} from the retrained models' mean", "privacy", "lower"
            ),
            f"mia_{variant}_efficacy_gap": Number(
                f"distance of the efficacy by {words} from the retrained models' mean", "privacy", "lower"
            ),
        }
    return found | {
        "mia_retain_auc": Number("AUC of retain items against their controls by loss, 0 to 1", "privacy", bounds=UNIT),
        "mia_retain_worse": Number(
            "share of retain items that more controls have a higher loss than in the original, 0 to 1",
            "privacy",
            bounds=UNIT,
        ),
    }


@METRICS.register("membership")
@dataclass(frozen=True)
class Membership(Metric):
    """Threshold attacks on the posterior.

    Example:
        >>> found = Membership().measure(case)
        >>> found["mia_loss_auc"], found["mia_loss_auc_gap"]
        (0.8..., 0.2...)
    """

    numbers = _numbers()

    def measure(self, case: Case) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for variant in VARIANTS:
            value = attack(case.target, variant)
            retrained = [attack(outputs, variant) for outputs in case.retrains]
            for key in ("auc", "efficacy"):
                found[f"mia_{variant}_{key}"] = value[key]
                found[f"mia_{variant}_{key}_gap"] = gap(value[key], mean_of([one[key] for one in retrained]))
        return found | _retain_side(case)


def score(outputs: Outputs, part: str, variant: str) -> Floats:
    """Return (n,) scores of a variant, higher for members."""
    if variant == "correctness":
        return outputs.right(part)
    if variant == "confidence":
        return np.asarray(np.exp(outputs.log_probabilities(part).max(1)))
    if variant == "entropy":
        return -entropies(outputs, part)
    return -modified_entropies(outputs, part) if variant == "modified_entropy" else -losses(outputs, part)


def attack(outputs: Outputs, variant: str) -> dict[str, float | None]:
    """Return ``auc`` of forget items against their controls and the ``efficacy``; None where a side is empty.

    Results are cached for the lifetime of a model's outputs, as every row reads the same retrained models.
    """
    known = _found.setdefault(outputs, {})
    if variant not in known:
        known[variant] = _attack(outputs, variant)
    return known[variant]


def _attack(outputs: Outputs, variant: str) -> dict[str, float | None]:
    forget, held_out, retain = (score(outputs, part, variant) for part in ("forget", "nonmembers", "retain"))
    efficacy = mean_of([share(forget < threshold) for threshold in calibrated(outputs, retain, held_out)])
    return {"auc": controls(outputs).auc(forget, held_out), "efficacy": efficacy}


def _retain_side(case: Case) -> dict[str, float | None]:
    now, then = (_exposure(outputs) for outputs in (case.target, case.original))
    retain, held_out = (-losses(case.target, part) for part in ("retain", "nonmembers"))
    return {
        "mia_retain_auc": controls(case.target, "retain").auc(retain, held_out),
        "mia_retain_worse": share(now > then + ROUNDING),
    }


def _exposure(outputs: Outputs) -> Floats:
    """Return the share of the controls' weight that has a higher loss than each retain item with controls."""
    found = controls(outputs, "retain")
    weights, retain = found.weights[found.used], losses(outputs, "retain")[found.matched]
    up_to = weight_below(retain, losses(outputs, "nonmembers")[found.used], weights, "right")
    return np.asarray(1 - up_to / weights.sum())
