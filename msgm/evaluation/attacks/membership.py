"""Whether the loss tells training items from held-out ones of the same kind.

Loss-based membership inference (Yeom et al., arXiv 1709.01604; of diffusion models: Carlini et al., arXiv 2301.13188;
Matsumoto et al., arXiv 2302.03262). An item's score is its noise-prediction loss, averaged over fixed noise levels with
noise of its own; training items are expected to have the lower one. What a method should reach is the retrained
model's value, no more and no less: a value far below .5 gives the forget items away just as one above.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from msgm.checks import at_least
from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import ScoreModel
from msgm.diffusion.samplers import Noise
from msgm.evaluation.attacks.base import Attack, cell
from msgm.evaluation.attacks.levels import check_levels, clean_items, time_at
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.evaluation.metrics.unlearning_ratio import percent
from msgm.evaluation.rates import rate
from msgm.objectives import mean_square, noised
from msgm.processes import spread
from msgm.runs import Run
from msgm.seeding import generator
from msgm.splits import Split

SECTION = "evaluation.options.membership"
QUANTILE = 1.959963984540054
FALSE_POSITIVES = 0.01


def _auc(part: str, found: dict[str, Any]) -> str:
    auc = found[part]["auc"]
    if auc is None:
        return f"diverged on {found[part]['non_finite']}"
    return f"{auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}]"


def _hits(found: dict[str, Any]) -> str:
    share = found["forget"]["true_positives"]
    return "diverged" if share is None else percent(share["value"])


@METRICS.register("membership")
@dataclass(frozen=True)
class Membership(Attack):
    """Loss-based membership inference, on forget items and, for what forgetting did to the others, on retain items.

    Attributes:
        levels: noise levels rho = sigma / a at which the loss is taken, one draw of noise each.
        items: items of each group at most, drawn at random when it has more.
    """

    key = "membership"
    columns = [  # noqa: RUF012
        Column("MIA AUC forget (aim: the retrain's)", "", cell(key, lambda f: _auc("forget", f))),
        Column("MIA TPR % at 1% FPR, forget", "", cell(key, _hits)),
        Column("MIA AUC retain (aim: the retrain's)", "", cell(key, lambda f: _auc("retain", f))),
    ]

    levels: list[float] = field(default_factory=lambda: [0.1, 0.17, 0.28, 0.46, 0.77, 1.3, 2.2, 3.6, 6.0, 10.0])
    items: int = 500

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "items")

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        check_levels(self.levels, config, SECTION)

    def obstacle(self, split: Split, run: Run | None) -> str | None:
        if len(split.test.forget) + len(split.validation.forget):
            return None
        return "the request names no held-out item, so there is nothing to tell its training items from"

    def attack(self, subject: Subject) -> dict[str, Any]:
        split = subject.bench.split
        found: dict[str, Any] = {"levels": self.levels, "held_out": "validation and test"}
        for part in ("forget", "retain"):
            held_out = np.concatenate([getattr(p, part) for p in (split.validation, split.test)])
            members, others = (
                item_losses(subject.model, subject.bench, self._drawn(indices, subject.bench), self.levels)
                for indices in (getattr(split.train, part), held_out)
            )
            found[part] = inference(members.numpy(), others.numpy())
        return found

    def _drawn(self, indices: NDArray[np.int64], bench: Bench) -> NDArray[np.int64]:
        order = torch.randperm(len(indices), generator=generator(bench.config.seed, "membership-items"))
        return indices[order[: self.items].numpy()]

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        aucs = {part: found[part]["auc"] for part in ("forget", "retain")}
        return {f"MIA AUC {part}": None if auc is None else auc["value"] for part, auc in aucs.items()}

    def protocol(self, bench: Bench) -> dict[str, str]:
        return {
            "membership inference": "training items (members) against validation and test items by their loss of noise "
            f"prediction, averaged over {len(self.levels)} levels sigma / a, {min(self.levels):g} to "
            f"{max(self.levels):g}, one draw of noise each, common to all rows; at most {self.items} items a group, "
            "AUC with its 95% DeLong interval; .5 is chance, and the retrained row's value, not .5, is what to reach"
        }


@torch.no_grad()
def item_losses(model: ScoreModel, bench: Bench, indices: NDArray[np.int64], levels: list[float]) -> Tensor:
    """Return each item's mean of (eps_theta - eps)^2 over dimensions and noise levels, (B,) in float64 on the CPU.

    Item i's noise depends on (seed, i) alone, so that models and groups are compared with common noise.
    """
    config = bench.config
    model.network.eval()

    def losses(batch: NDArray[np.int64]) -> Tensor:
        noise = Noise(config.seed, batch.tolist(), model.shape, model.device, "membership")
        x0 = clean_items(bench.dataset, batch, model.device)
        total = torch.zeros(len(x0), dtype=torch.float64)
        for level in levels:
            t = torch.full((len(x0),), time_at(model.process, level), device=model.device)
            seen = noised(model.process, x0, t, noise())
            total += mean_square(model.eps(seen.x, seen.t) - seen.eps).double().cpu()
        return total / len(levels)

    return torch.cat(spread(np.array_split(indices, -(-len(indices) // config.sampling.batch_size)), losses))


def inference(members: NDArray[np.float64], others: NDArray[np.float64]) -> dict[str, Any]:
    """Return how well losses tell members from others; null when one of them is not finite."""
    counts = {"members": len(members), "others": len(others)}
    bad = int((~np.isfinite(members)).sum() + (~np.isfinite(others)).sum())
    if bad:
        return {"auc": None, "true_positives": None, "non_finite": bad, **counts}
    means = {"mean_loss_members": float(members.mean()), "mean_loss_others": float(others.mean())}
    return {"auc": auc(-members, -others), "true_positives": true_positives(-members, -others), **counts, **means}


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> dict[str, Any]:
    """Return the area under the ROC curve of scores, ties counting half, with a 95% interval.

    The interval is DeLong's (Biometrics 44, 1988), computed from ranks (Sun and Xu, IEEE SPL 21, 2014) and cut to
    [0, 1]; it has no width where the groups do not overlap.
    """
    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    above = (ranks[:m] - rankdata(positive)) / n
    below = 1 - (ranks[m:] - rankdata(negative)) / m
    value = float(above.mean())
    variance = sum(float(np.var(part, ddof=1)) / len(part) for part in (above, below) if len(part) > 1)
    half = QUANTILE * math.sqrt(variance)
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "n": [m, n]}


def true_positives(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> dict[str, Any]:
    """Return the share of positives above all but 1% of the negatives, with the false positives that it really costs.

    Below 100 negatives no false positive at all is allowed.
    """
    allowed = math.floor(FALSE_POSITIVES * len(negative))
    threshold = np.sort(negative)[::-1][allowed]
    wrong = int((negative > threshold).sum())
    return rate(int((positive > threshold).sum()), len(positive)) | {"false_positives": rate(wrong, len(negative))}
