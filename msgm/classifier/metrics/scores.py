"""Per-example scores and the numbers that attacks are read by: AUC, TPR at a small FPR, the best single threshold.

Items are compared with their controls (``msgm.strata``): non-members of the same class and source.

Of log-probabilities lp_j and the true class y, in float64:

    loss             -lp_y
    entropy          -sum_j p_j lp_j
    modified entropy -(1 - p_y) lp_y - sum_{j != y} p_j log(1 - p_j)      (Song & Mittal, USENIX Security 2021, eq. 6)
    margin           phi = lp_y - log(1 - p_y)                            (LiRA, arXiv 2112.03570, section 5)

log(1 - p_j) comes from the other classes' probabilities where p_j may be near one, so that nothing is lost or infinite.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from msgm import strata
from msgm.classifier.metrics.base import UNIT, Number
from msgm.classifier.outputs import Outputs
from msgm.strata import ROUNDING, Controls, weight_below

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def losses(outputs: Outputs, part: str) -> Floats:
    """Return (n,) cross-entropies in nats."""
    return -true_class(outputs.log_probabilities(part), outputs.labels[part])


def entropies(outputs: Outputs, part: str) -> Floats:
    """Return (n,) entropies of the posterior in nats."""
    lp = outputs.log_probabilities(part)
    return np.asarray(-(np.exp(lp) * lp).sum(1))


def modified_entropies(outputs: Outputs, part: str) -> Floats:
    """Return (n,) modified entropies in nats, 0 and up; they depend on the label, unlike the entropy."""
    lp, labels = outputs.log_probabilities(part), outputs.labels[part]
    rest = log_complements(lp)
    others = np.exp(lp) * rest
    others[np.arange(len(labels)), labels] = 0.0
    return np.asarray(-np.exp(true_class(rest, labels)) * true_class(lp, labels) - others.sum(1))


def margins(outputs: Outputs, part: str) -> Floats:
    """Return (n,) logits of the true class' probability, log p_y - log(1 - p_y)."""
    lp, labels = outputs.log_probabilities(part), outputs.labels[part]
    return true_class(lp, labels) - true_class(log_complements(lp), labels)


def log_complements(lp: Floats) -> Floats:
    """Return log(1 - p_j), (n, C), of (n, C) log-probabilities of at least two classes."""
    rows, top = np.arange(len(lp)), lp.argmax(1)
    others = lp.copy()
    others[rows, top] = -np.inf
    near_one = lp[rows, top] > -math.log(2)  # Only the largest probability can exceed one half.
    found = np.log1p(-np.minimum(np.exp(lp), 0.5))
    found[rows[near_one], top[near_one]] = logsumexp(others[near_one], axis=1)
    return np.asarray(found)


def true_class(values: Floats, labels: NDArray[np.int64]) -> Floats:
    """Return each row's entry of its true class, (n,)."""
    return np.asarray(values[np.arange(len(labels)), labels])


def best_thresholds(members: Floats, others: Floats, weights: Floats | None = None) -> Floats:
    """Return each t for which "score >= t is a member" has the highest balanced accuracy; both sides must hold items.

    There are several where they are equally good: of constant scores the score itself and infinity, by which all and
    none are members. ``weights`` (n,) are those of the others, all 1 by default.
    """
    weights = np.ones(len(others)) if weights is None else weights
    candidates = np.append(np.unique(np.concatenate([members, others])), np.inf)
    hits = 1 - np.searchsorted(np.sort(members), candidates) / len(members)
    alarms = 1 - weight_below(candidates, others, weights) / weights.sum()
    gain = hits - alarms
    return np.asarray(candidates[gain >= gain.max() - ROUNDING])


def calibrated(outputs: Outputs, retain: Floats, held_out: Floats) -> Floats:
    """Return the best thresholds of retain items' scores against non-members of the same strata; none without these."""
    found = controls(outputs, "retain")
    if not found.used.any():
        return np.empty(0)
    return best_thresholds(retain[found.matched], held_out[found.used], found.weights[found.used])


def forgotten_classes(outputs: Outputs) -> NDArray[np.int64]:
    """Return the classes of which forget items exist and retain items do not."""
    return np.setdiff1d(outputs.labels["forget"], outputs.labels["retain"])


def controls(outputs: Outputs, part: str = "forget", held_out: str = "nonmembers") -> Controls:
    """Return the controls of a part's items among held-out items: those of the same class and source."""
    return strata.controls(outputs.stratum(part), outputs.stratum(held_out))


def told_apart(name: str, members: Floats, others: Floats, weights: Floats, fpr: float) -> dict[str, float | None]:
    """Return the AUC of an attack and the shares of members that it finds in either tail, as ``attack_numbers``."""
    values = (
        strata.auc(members, others, weights),
        strata.tpr_at(members, others, fpr, weights),
        strata.tpr_at(-members, -others, fpr, weights),
    )
    return dict(zip(attack_numbers(name, "", fpr), values, strict=True))


def attack_numbers(name: str, title: str, fpr: float) -> dict[str, Number]:
    """Return what ``told_apart`` gives of an attack: ``NAME_auc``, ``NAME_tpr_at_..`` and ``NAME_low_tpr_at_..``."""
    at, percent = f"tpr_at_{100 * fpr:g}_fpr".replace(".", "_"), f"{100 * fpr:g}%"
    texts = {
        f"{name}_auc": f"AUC of forget items against their controls by {title}, 0 to 1, .5 is chance",
        f"{name}_{at}": f"share of forget items found by the highest scores at {percent} false positives, 0 to 1",
        f"{name}_low_{at}": f"share of forget items found by the lowest scores at {percent} false positives, 0 to 1",
    }
    return {key: Number(text, "privacy", bounds=UNIT) for key, text in texts.items()}


def mean_of(values: list[float | None]) -> float | None:
    """Return the mean of the values that exist; None without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def gap(value: float | None, reference: float | None) -> float | None:
    """Return the absolute difference; None unless both exist."""
    return None if value is None or reference is None else abs(value - reference)


def share(mask: Mask | Floats) -> float | None:
    """Return the share of true entries, or the mean of shares; None of an empty mask."""
    return float(mask.mean()) if len(mask) else None
