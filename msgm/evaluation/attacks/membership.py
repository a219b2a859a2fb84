"""Whether the loss distinguishes training items from held-out ones of the same kind.

Items to forget are compared with held-out items that the request selects; a request that lists single items selects
none, and is compared with any held-out items. Both are of the same class and source, a source being what the data's
groups name, and weighted to the same shares (``msgm.strata``). Items without such a control are left out and counted.

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
from torch import Tensor

from msgm.checks import at_least
from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import ScoreModel
from msgm.diffusion.samplers import Noise
from msgm.evaluation.asking import own
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
from msgm.strata import controls, tpr_at, weight_below

SECTION = "evaluation.options.membership"
QUANTILE = 1.959963984540054
FALSE_POSITIVES = 0.01
NO_CONTROLS = (
    "no held-out item of the request's kind has the class and source of an item to forget, so there is nothing to tell "
    "these from"
)
TAILS = {"true_positives": "MIA TPR %", "true_positives_low": "MIA TPR % of the highest losses"}
"""Shares of the members found at 1% false positives by the lowest losses and by the highest, with their headings."""


def _auc(part: str, found: dict[str, Any]) -> str:
    auc, missing = found[part]["auc"], found[part].get("unmatched")
    if auc is None:
        return f"diverged on {found[part]['non_finite']}" if found[part]["non_finite"] else "no controls"
    left_out = f"; {missing} items without controls" if missing else ""
    return f"{auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}]{left_out}"


def _hits(found: dict[str, Any]) -> str:
    shares = [found["forget"][key] for key in TAILS if key in found["forget"]]
    return "diverged" if None in shares else " / ".join(percent(share["value"]) for share in shares)


@dataclass(frozen=True, eq=False)
class Sides:
    """Positions in the data set of items to compare.

    Attributes:
        members: (m,) training items that have a control.
        others: (n,) their controls.
        weights: (n,) of the controls.
        unmatched: how many training items have no control.
    """

    members: NDArray[np.int64]
    others: NDArray[np.int64]
    weights: NDArray[np.float64]
    unmatched: int


@METRICS.register("membership")
@dataclass(frozen=True)
class Membership(Attack):
    """Loss-based membership inference, on forget items and, for what forgetting did to the others, on retain items.

    Example:
        >>> found = Membership(levels=[0.5, 2.0], items=30).measure(subject)["membership"]
        >>> 0 <= found["forget"]["auc"]["value"] <= 1
        True

    Attributes:
        levels: noise levels rho = sigma / a at which the loss is taken, one draw of noise each.
        items: items of each group at most, drawn at random when it has more.
    """

    key = "membership"
    on_weights = True
    columns = [  # noqa: RUF012
        Column("MIA AUC forget (aim: the retrain's)", "", cell(key, lambda f: _auc("forget", f))),
        Column("MIA TPR % at 1% FPR, forget: lowest / highest losses", "", cell(key, _hits)),
        Column("MIA AUC retain (aim: the retrain's)", "", cell(key, lambda f: _auc("retain", f))),
    ]

    levels: list[float] = field(default_factory=lambda: [0.1, 0.17, 0.28, 0.46, 0.77, 1.3, 2.2, 3.6, 6.0, 10.0])
    items: int = 500

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "items")

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        check_levels(self.levels, config, SECTION)

    def obstacle(self, split: Split, run: Run | None) -> str | None:
        return None if len(split.train.forget) else "nothing was asked to be forgotten"

    def attack(self, subject: Subject) -> dict[str, Any]:
        bench, by_item = subject.bench, subject.bench.config.request.by_item
        train = {part: bench.dataset.distinct(getattr(bench.split.train, part)) for part in ("forget", "retain")}
        forget = self.sides(bench, train["forget"], held_out(bench.split, "all" if by_item else "forget"))
        if not len(forget.members):
            return {"not_tested": NO_CONTROLS}
        retain = self.sides(bench, train["retain"], held_out(bench.split, "retain"))
        found: dict[str, Any] = {"levels": self.levels, "held_out": "validation and test"}
        for part, sides in (("forget", forget), ("retain", retain)):
            found[part] = self.inferred(subject, sides) | {"unmatched": sides.unmatched}
        return found

    def inferred(self, subject: Subject, sides: Sides) -> dict[str, Any]:
        """Return how well the model's losses separate members from their controls, as ``inference``."""
        if not len(sides.members):
            return inference(np.empty(0), np.empty(0))
        members, others = (
            item_losses(subject.model, subject.bench, indices, self.levels).numpy()
            for indices in (sides.members, sides.others)
        )
        return inference(members, others, sides.weights)

    def sides(self, bench: Bench, train: NDArray[np.int64], held_out: NDArray[np.int64]) -> Sides:
        """Return training items and held-out items of the same strata, at most ``items`` of each, drawn at random."""
        codes = bench.dataset.strata
        found = controls(codes[train], codes[held_out])
        members, others = self._drawn(train[found.matched], bench), self._drawn(held_out[found.used], bench)
        drawn = controls(codes[members], codes[others])
        return Sides(members[drawn.matched], others[drawn.used], drawn.weights[drawn.used], found.unmatched)

    def _drawn(self, indices: NDArray[np.int64], bench: Bench) -> NDArray[np.int64]:
        order = torch.randperm(len(indices), generator=generator(bench.config.seed, "membership-items"))
        return indices[order[: self.items].numpy()]

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        aucs = {part: found[part]["auc"] for part in ("forget", "retain")}
        hits = {heading: found["forget"][key] for key, heading in TAILS.items() if key in found["forget"]}
        return {f"MIA AUC {part}": None if auc is None else auc["value"] for part, auc in aucs.items()} | {
            heading: None if share is None else 100 * share["value"] for heading, share in hits.items()
        }

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        hits = {heading: found["forget"].get(key) for key, heading in TAILS.items()}
        return {heading: 100 / share["n"] for heading, share in hits.items() if share is not None}

    def protocol(self, bench: Bench) -> dict[str, str]:
        return {
            "membership inference": "training items (members) against validation and test items of the same classes "
            "and sources, weighted to the same shares, by their loss of noise prediction, averaged over "
            f"{len(self.levels)} levels sigma / a, {min(self.levels):g} to {max(self.levels):g}, one draw of noise "
            f"each, common to all rows; at most {self.items} items a group, AUC with its 95% DeLong interval; .5 is "
            "chance, and the retrained row's value, not .5, is what to reach"
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
        asked, total = own(model, bench.dataset, batch), torch.zeros(len(x0), dtype=torch.float64)
        for level in levels:
            t = torch.full((len(x0),), time_at(model.process, level), device=model.device)
            seen = noised(model.process, x0, t, noise())
            total += mean_square(model.eps(seen.x, seen.t, asked) - seen.eps).cpu().double()
        return total / len(levels)

    return torch.cat(spread(np.array_split(indices, -(-len(indices) // config.sampling.batch_size)), losses))


def held_out(split: Split, part: str) -> NDArray[np.int64]:
    """Return the positions of the held-out items of a part: ``retain``, ``forget`` or ``all`` of them."""
    return np.concatenate([getattr(held, part) for held in (split.validation, split.test)])


def inference(
    members: NDArray[np.float64], others: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> dict[str, Any]:
    """Return how well losses separate (m,) members from (n,) weighted non-members.

    Its numbers are null where there are no items, or where the losses of some (``non_finite``) are not finite.
    """
    counts = {"members": len(members), "others": len(others)}
    bad = int((~np.isfinite(members)).sum() + (~np.isfinite(others)).sum())
    if bad or not len(members):
        return {"auc": None, **dict.fromkeys(TAILS), "non_finite": bad, **counts}
    tails = {
        key: true_positives(sign * members, sign * others, weights) for key, sign in zip(TAILS, (-1, 1), strict=True)
    }
    means = {
        "mean_loss_members": float(members.mean()),
        "mean_loss_others": float(np.average(others, weights=weights)),
    }
    return {"auc": auc(-members, -others, weights), **tails, **counts, **means}


def auc(
    positive: NDArray[np.float64], negative: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> dict[str, Any]:
    """Return the area under the ROC curve of scores, ties counting half, with a 95% interval.

    The interval is DeLong's (Biometrics 44, 1988), of weighted means where the (n,) negatives have weights, and cut to
    [0, 1]; it has no width where the groups do not overlap.
    """
    m, n = len(positive), len(negative)
    shares = np.full(n, 1 / n) if weights is None else weights / weights.sum()
    above = _below(positive, negative, shares)
    below = 1 - _below(negative, positive, np.full(m, 1 / m))
    value = float(above.mean())
    variance = float(np.var(above, ddof=1)) / m if m > 1 else 0.0
    variance += n / (n - 1) * float(((shares * (below - value)) ** 2).sum()) if n > 1 else 0.0
    half = QUANTILE * math.sqrt(variance)
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "n": [m, n]}


def _below(
    values: NDArray[np.float64], others: NDArray[np.float64], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of the others below each of ``values``, those that are equal counting half."""
    return (weight_below(values, others, shares) + weight_below(values, others, shares, "right")) / 2


def true_positives(
    positive: NDArray[np.float64], negative: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> dict[str, Any]:
    """Return the share of positives above all but 1% of the negatives' weight, as ``rates.rate``.

    Below 100 negatives of equal weights no false positive at all is allowed, ties aside.
    """
    found = tpr_at(positive, negative, FALSE_POSITIVES, weights)
    return dict(rate((found or 0.0) * len(positive), len(positive)))
