"""Per-example scores and the numbers that attacks are read by: AUC, TPR at a small FPR, the best single threshold.

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

from msgm.classifier.outputs import Outputs

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

ENOUGH = 10


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


def tpr_at(members: Floats, others: Floats, fpr: float) -> float | None:
    """Return the share of members above all but a share ``fpr`` (in [0, 1)) of the others; None of an empty side.

    Where the curve passes a group of tied scores it is a straight line. With fewer than 1 / fpr others no false
    positive at all is allowed, ties aside.
    """
    if not len(members) or not len(others):
        return None
    allowed = fpr * len(others)
    threshold = np.sort(others)[::-1][math.floor(allowed)]
    above, tied = (others > threshold).sum(), (others == threshold).sum()
    among = (members == threshold).sum() * (allowed - above) / tied
    return float(((members > threshold).sum() + among) / len(members))


def best_thresholds(members: Floats, others: Floats) -> Floats:
    """Return each t for which "score >= t is a member" has the highest balanced accuracy; both sides must hold items.

    There are several where they are equally good: of constant scores the score itself and infinity, by which all and
    none are members.
    """
    candidates = np.append(np.unique(np.concatenate([members, others])), np.inf)
    hits = len(members) - np.searchsorted(np.sort(members), candidates)
    alarms = len(others) - np.searchsorted(np.sort(others), candidates)
    gain = hits * len(others) - alarms * len(members)
    return candidates[gain == gain.max()]


def forgotten_classes(outputs: Outputs) -> NDArray[np.int64]:
    """Return the classes of which forget items exist and retain items do not."""
    return np.setdiff1d(outputs.labels["forget"], outputs.labels["retain"])


def controls(outputs: Outputs, scope: str) -> Mask:
    """Return which non-members the forget items are compared with, (n,).

    All of them; for class requests those of the forgotten classes, for another class is easily told from these, unless
    there are fewer than ``ENOUGH``.
    """
    labels = outputs.labels["nonmembers"]
    same = np.isin(labels, forgotten_classes(outputs))
    return same if scope == "class" and same.sum() >= ENOUGH else np.ones(len(labels), dtype=bool)


def unseen(outputs: Outputs) -> Mask:
    """Return which non-members are of classes that retain items have, (n,): what those are compared with."""
    return np.isin(outputs.labels["nonmembers"], outputs.labels["retain"])


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
