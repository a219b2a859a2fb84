r"""LiRA, a likelihood-ratio test of each example (Carlini et al., S&P 2022, arXiv 2112.03570).

With phi = log p_y - log(1 - p_y) of the target, and of shadow models that saw the example (in) and that did not (out):

    online   log N(phi; median in, sd in) - log N(phi; median out, sd out)
    offline  (phi - median out) / sd out

Standard deviations are the example's own from ``OWN`` shadows on, before that common to all examples (residuals from
the medians, pooled), and never below ``LEAST_SD``, so that models that agree entirely give no NaN.

The metric here is the offline form with the retrained models as shadows: they have seen neither forget items nor
non-members. It costs nothing but is weak with few of them; ``u-lira`` trains shadows of its own.
"""

from dataclasses import dataclass

import numpy as np

from msgm.classifier.metrics.base import METRICS, Case, Metric
from msgm.classifier.metrics.scores import Floats, attack_numbers, controls, margins, told_apart

OWN = 64
LEAST_SD = 1e-6
FPR = 0.001


@METRICS.register("lira")
@dataclass(frozen=True)
class LiRA(Metric):
    """Offline LiRA with the retrained models as shadows.

    Example:
        >>> LiRA().measure(case)["lira_auc"]
        0.8...
        >>> LiRA().measure(Case(case.target, case.original, retrains=[]))["lira_auc"] is None  # no shadow
        True
    """

    numbers = attack_numbers("lira", "offline LiRA", FPR)
    costly = True

    def measure(self, case: Case) -> dict[str, float | None]:
        found = controls(case.target)
        if len(case.retrains) < 2 or not found.used.any():
            return dict.fromkeys(self.numbers)
        phi = [
            np.concatenate([margins(one, "forget")[found.matched], margins(one, "nonmembers")[found.used]])
            for one in (case.target, *case.retrains)
        ]
        scores = lira_scores(phi[0], None, np.stack(phi[1:]))
        members, others = np.split(scores, [found.matched.sum()])
        return told_apart("lira", members, others, found.weights[found.used], FPR)


def lira_scores(target: Floats, inside: Floats | None, outside: Floats) -> Floats:
    """Return (n,) scores, higher for members.

    Args:
        target: (n,) margins of the model under attack.
        inside: (K, n) margins of shadows that saw each example, or None for the offline form.
        outside: (K, n) margins of shadows that did not; at least two.
    """
    centre, sd = _normal(outside)
    if inside is None:
        return (target - centre) / sd
    return _log_density(target, *_normal(inside)) - _log_density(target, centre, sd)


def _normal(phi: Floats) -> tuple[Floats, Floats]:
    centre = np.median(phi, axis=0)
    residuals = phi - centre
    sd = phi.std(axis=0, ddof=1) if len(phi) >= OWN else np.full(phi.shape[1], np.sqrt(np.mean(residuals**2)))
    return centre, np.maximum(sd, LEAST_SD)


def _log_density(x: Floats, centre: Floats, sd: Floats) -> Floats:
    """Return the log-density of the normal distribution, less log(sqrt(2 pi)), which the ratio cancels."""
    return np.asarray(-0.5 * ((x - centre) / sd) ** 2 - np.log(sd))
