"""Whether the loss distinguishes training items from held-out ones of the same kind.

Loss-based membership inference (Yeom et al., arXiv 1709.01604; of diffusion models: Carlini et al., arXiv 2301.13188;
Matsumoto et al., arXiv 2302.03262). An item's score is its noise-prediction loss, averaged over fixed noise levels with
noise of its own; training items are expected to have the lower one. Which items are compared is said in ``inference``.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.diffusion import Condition, ScoreModel
from msgm.diffusion.samplers import Noise
from msgm.evaluation.attacks.base import cell
from msgm.evaluation.attacks.inference import MembershipAttack, auc_text, hits_text, in_batches, level_column
from msgm.evaluation.attacks.levels import time_at
from msgm.evaluation.attacks.separation import TAILS, separation
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.objectives import mean_square, noised

HEADINGS = dict(zip(TAILS, ("MIA TPR %", "MIA TPR % of the highest losses"), strict=True))


@METRICS.register("membership")
@dataclass(frozen=True)
class Membership(MembershipAttack):
    """Loss-based membership inference, on forget items and, for what forgetting did to the others, on retain items.

    Example:
        >>> found = Membership(levels=[0.5, 2.0], items=30).measure(subject)["membership"]
        >>> 0 <= found["forget"]["auc"]["value"] <= 1
        True
        >>> [point["level"] for point in found["forget"]["by_level"]]
        [0.5, 2.0]

    Attributes:
        levels: noise levels rho = sigma / a at which the loss is taken, one draw of noise each.
        items: items of each group at most, drawn at random when it has more.
    """

    key = "membership"
    short = "MIA"
    columns = [  # noqa: RUF012
        Column("MIA AUC forget (aim: the retrain's)", "", cell(key, lambda f: auc_text("forget", f))),
        Column("MIA TPR % at 1% FPR, forget: lowest / highest losses", "", cell(key, hits_text)),
        Column("MIA AUC retain (aim: the retrain's)", "", cell(key, lambda f: auc_text("retain", f))),
        level_column(key, short),
    ]

    levels: list[float] = field(default_factory=lambda: [0.1, 0.17, 0.28, 0.46, 0.77, 1.3, 2.2, 3.6, 6.0, 10.0])

    def scores(self, subject: Subject, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        return losses_by_level(subject.model, subject.bench, indices, self.levels).numpy()

    def combined(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(scores.mean(1))

    def separated(
        self, members: NDArray[np.float64], others: NDArray[np.float64], weights: NDArray[np.float64] | None
    ) -> dict[str, Any]:
        found = separation(members, others, weights)
        if found["auc"] is None:
            return found
        means = (float(members.mean()), float(np.average(others, weights=weights)))
        return found | dict(zip(("mean_loss_members", "mean_loss_others"), means, strict=True))

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        aucs = {part: found[part]["auc"] for part in ("forget", "retain")}
        hits = {heading: found["forget"][key] for key, heading in HEADINGS.items() if key in found["forget"]}
        return {f"MIA AUC {part}": None if auc is None else auc["value"] for part, auc in aucs.items()} | {
            heading: None if share is None else 100 * share["value"] for heading, share in hits.items()
        }

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        hits = {heading: found["forget"].get(key) for key, heading in HEADINGS.items()}
        return {heading: 100 / share["n"] for heading, share in hits.items() if share is not None}

    def protocol(self, bench: Bench) -> dict[str, str]:
        return {
            "membership inference": "training items (members) against validation and test items of the same classes "
            "and sources, weighted to the same shares, by their loss of noise prediction, averaged over "
            f"{len(self.levels)} levels sigma / a, {min(self.levels):g} to {max(self.levels):g}, one draw of noise "
            f"each, common to all rows; at most {self.items} items a group, AUC with its 95% DeLong interval; .5 is "
            "chance, and the retrained row's value, not .5, is what to reach"
        }


def losses_by_level(model: ScoreModel, bench: Bench, indices: NDArray[np.int64], levels: list[float]) -> Tensor:
    """Return each item's mean of (eps_theta - eps)^2 over dimensions, (B, levels) in float64 on the CPU.

    Item i's noise depends on (seed, i) alone, so that models and groups are compared with common noise.
    """

    def losses(x0: Tensor, batch: NDArray[np.int64], asked: Condition | None) -> Tensor:
        noise = Noise(bench.config.seed, batch.tolist(), model.shape, model.device, "membership")
        found = []
        for level in levels:
            t = torch.full((len(x0),), time_at(model.process, level), device=model.device)
            seen = noised(model.process, x0, t, noise())
            found.append(mean_square(model.eps(seen.x, seen.t, asked) - seen.eps).cpu().double())
        return torch.stack(found, 1)

    return in_batches(model, bench, indices, losses)


def item_losses(model: ScoreModel, bench: Bench, indices: NDArray[np.int64], levels: list[float]) -> Tensor:
    """Return the mean of ``losses_by_level`` over levels, (B,)."""
    return losses_by_level(model, bench, indices, levels).mean(1)
