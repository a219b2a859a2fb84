"""Forgetting quality: how far unlearned and retrained models can be told apart, as an epsilon per forget example.

(Triantafillou et al., arXiv 2406.09073, the NeurIPS 2023 unlearning challenge.) For every forget example the margins
phi of N unlearned and N retrained models are two clouds. A decision rule that guesses a model's kind from phi has rates
FPR and FNR, and shows

    eps = max(log(1 - delta - FPR) - log FNR, log(1 - delta - FNR) - log FPR, 0),    delta = 1e-5.

Rules: one threshold, the cloud of the larger median above it; and a band around either median. A rule with exactly one
rate zero is dropped, for its epsilon is only the sample's; both zero is infinite. An example's epsilon is the largest,
at most 50, and its score 2^-floor(eps / .5), nothing from ceil(log(N - 1)) on, the most that N models can show. F is
the mean score, and final F times retain and test accuracy over the retrained models'.

A maximum over many rules is above zero by chance: retrained against retrained models score well below one.
``upper`` is F with each epsilon replaced by the largest that is certain: rates at the upper ends of their
Clopper-Pearson intervals, 95% for both rates of a rule together though not for all rules at once, and the same
buckets. No score is given for fewer than 64 models of a kind.

Deviations: thresholds are all the values that occur, not a grid; bands are symmetric around a median, not any two ends.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import stats

from msgm.checks import at_least
from msgm.classifier.metrics.base import METRICS, UNIT, Case, Live, Metric, Needed, Number
from msgm.classifier.metrics.scores import Floats, margins, share
from msgm.classifier.metrics.shadows import cached, retrained, trained_then_unlearned
from msgm.classifier.outputs import Outputs
from msgm.seeding import derive_seed

DELTA = 1e-5
CAP = 50.0
BUCKET = 0.5
LEAST_MODELS = 64
NARROW = 0.01


@dataclass(frozen=True)
class ForgettingQuality:
    """Forgetting quality of N unlearned and N retrained models.

    Attributes:
        score: F, 0 to 1; None from too few models.
        upper: F of epsilons that are certain at 95%.
        final: F times the ratios of retain and test accuracies.
        epsilon_median: median of the examples' epsilons, 0 to 50.
        models: N, of either kind.
        cap: epsilon from which an example scores nothing: no more can be seen with N models.
        why: why there is no score, or an empty string.
    """

    score: float | None
    upper: float | None
    final: float | None
    epsilon_median: float | None
    models: int
    cap: float | None
    why: str = ""


@METRICS.register("forgetting-quality")
@dataclass(frozen=True)
class Quality(Metric):
    """Forgetting quality from models trained, then unlearned by the method, and from retrained ones.

    Example:
        >>> Quality().needed()
        Needed(trained=128, unlearned=64)
        >>> alike = np.linspace(0, 1, 64)
        >>> epsilons(unlearned=alike + 9, retrained=alike)[0]  # told apart by every model
        50.0

    Attributes:
        models: N, of either kind; each unlearned one has an original of its own.
        folder: where the models' logits are kept, to resume and to share the retrained ones; empty keeps none.
    """

    numbers = {  # noqa: RUF012
        "forgetting_quality": Number("F, mean score of forget examples, 0 to 1", "forgetting", "higher", bounds=UNIT),
        "forgetting_quality_upper": Number("F of epsilons certain at 95%, 0 to 1", "forgetting", "higher", bounds=UNIT),
        "forgetting_quality_final": Number("F times retain and test accuracy ratios", "forgetting", "higher"),
        "forgetting_epsilon": Number("median epsilon of forget examples, 0 to 50", "forgetting", "lower"),
        "forgetting_quality_models": Number("N, models of either kind", "forgetting"),
        "forgetting_quality_cap": Number("largest epsilon that N models can show", "forgetting"),
    }
    live = True
    costly = True

    models: int = LEAST_MODELS
    folder: str = ""

    def __post_init__(self) -> None:
        at_least(LEAST_MODELS, self, "options.forgetting-quality", "models")

    def measure(self, case: Case) -> dict[str, float | None]:
        found = forgetting_quality(*self.clouds(case))
        if not found.models:
            return dict.fromkeys(self.numbers)
        values = (found.score, found.upper, found.final, found.epsilon_median, float(found.models), found.cap)
        return dict(zip(self.numbers, values, strict=True))

    def needed(self) -> Needed:
        """Return N originals and N retrained models, which methods share where there is a folder, and N runs."""
        return Needed(trained=2 * self.models, unlearned=self.models)

    def clouds(self, case: Case) -> tuple[list[Outputs], list[Outputs]]:
        """Return the outputs of N unlearned and of N retrained models; none where the method is not known."""
        live = case.live
        if live is None or live.method is None:
            return [], []
        method = live.method
        unlearned, fresh = [], []
        for number in range(self.models):
            make = partial(trained_then_unlearned, live, method, live.split, self._seed(live, "original", number))
            unlearned.append(cached(self.folder, live, ("quality", repr(method), str(number)), make))
            make = partial(retrained, live, self._seed(live, "retrain", number))
            fresh.append(cached(self.folder, live, ("retrain", str(number)), make))
        return unlearned, fresh

    @staticmethod
    def _seed(live: Live, kind: str, number: int) -> int:
        return derive_seed(live.settings.seed, "quality", kind, number)


def forgetting_quality(unlearned: list[Outputs], retrained: list[Outputs]) -> ForgettingQuality:
    """Return the forgetting quality of two lists of models; of lists of unlike lengths, the first ones count."""
    count = min(len(unlearned), len(retrained))
    if count < LEAST_MODELS:
        why = f"{count} models of a kind; an epsilon needs {LEAST_MODELS}"
        return ForgettingQuality(None, None, None, None, count, None, why)
    clouds = [np.stack([margins(one, "forget") for one in kind[:count]]) for kind in (unlearned, retrained)]
    if not clouds[0].shape[1]:
        return ForgettingQuality(None, None, None, None, count, None, "no forget items")
    pairs = [epsilons(u, r) for u, r in zip(clouds[0].T, clouds[1].T, strict=True)]
    point, sure = (np.array(values) for values in zip(*pairs, strict=True))
    quality = float(scores(point, count).mean())
    ratio = _ratio("retain", unlearned[:count], retrained[:count]) * _ratio(
        "test", unlearned[:count], retrained[:count]
    )
    return ForgettingQuality(
        score=quality,
        upper=float(scores(sure, count).mean()),
        final=quality * ratio,
        epsilon_median=float(np.median(point)),
        models=count,
        cap=float(last_epsilon(count)),
    )


def last_epsilon(count: int) -> int:
    """Return ceil(log(N - 1)), the epsilon from which an example scores nothing."""
    return math.ceil(math.log(count - 1))


def scores(values: Floats, count: int) -> Floats:
    """Return each epsilon's score 2^-floor(eps / .5), zero from the last bucket on."""
    return np.where(values >= last_epsilon(count), 0.0, 2.0 ** -np.floor(values / BUCKET))


def epsilons(unlearned: Floats, retrained: Floats) -> tuple[float, float]:
    """Return an example's epsilon and the largest one that is certain at 95%, 0 to 50, from its clouds (N,) each."""
    high, low = (unlearned, retrained) if np.median(unlearned) >= np.median(retrained) else (retrained, unlearned)
    rules = [(high, low)]
    for own, other in ((high, low), (low, high)):
        centre = np.median(own)
        rules.append((-np.abs(own - centre), -np.abs(other - centre)))
    found = [_of_rule(positive, negative) for positive, negative in rules]
    narrow, sure = _degenerate(unlearned, retrained), max(sure for _, sure in found)
    return max(point for point, _ in found) if narrow is None else narrow, sure


def _degenerate(unlearned: Floats, retrained: Floats) -> float | None:
    """Return the epsilon where a cloud is all but one point: the cap, or 0 if both are the same point."""
    ranges = sorted([float(np.ptp(unlearned)), float(np.ptp(retrained))])
    if ranges[1] == 0:
        return 0.0 if unlearned[0] == retrained[0] else CAP
    return CAP if ranges[0] / ranges[1] < NARROW else None


def _of_rule(positive: Floats, negative: Floats) -> tuple[float, float]:
    """Return both epsilons of the best threshold t of "positive if score >= t"."""
    count = len(positive)
    thresholds = np.unique(np.concatenate([positive, negative]))
    missed = np.searchsorted(np.sort(positive), thresholds)
    false = count - np.searchsorted(np.sort(negative), thresholds)
    bound = _upper(count)
    sure = _epsilon(bound[false], bound[missed]).max()
    if ((missed == 0) & (false == 0)).any():
        return CAP, float(sure)
    usable = (missed > 0) & (false > 0)
    points = _epsilon(false[usable] / count, missed[usable] / count)
    return float(points.max(initial=0.0)), float(sure)


def _epsilon(fpr: Floats, fnr: Floats) -> Floats:
    """Return epsilon of rates above zero, 0 to 50."""

    def one(left: Floats, right: Floats) -> Floats:
        inside = 1 - DELTA - left
        return np.where(inside > 0, np.log(np.maximum(inside, 1e-300)) - np.log(right), 0.0)

    return np.clip(np.maximum(one(fpr, fnr), one(fnr, fpr)), 0.0, CAP)


def _upper(count: int) -> Floats:
    """Return the upper Clopper-Pearson limit, 97.5% one-sided, of k wrong of ``count``, for k = 0 to ``count``."""
    k = np.arange(count)
    return np.append(stats.beta.ppf(0.975, k + 1, count - k), 1.0)


def _ratio(part: str, unlearned: list[Outputs], retrained: list[Outputs]) -> float:
    now, then = (np.mean([share(one.right(part)) or 0.0 for one in kind]) for kind in (unlearned, retrained))
    return float(now / then) if then > 0 else 0.0
