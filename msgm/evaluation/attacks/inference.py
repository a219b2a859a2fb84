"""Base of the attacks of membership inference: which items are compared, and what one number for each of them says.

Items to forget are compared with held-out items that the request selects; a request that lists single items selects
none, and is compared with any held-out items. Both are of the same class and source, a source being what the data's
groups name, and weighted to the same shares (``msgm.strata``). Items without such a control are left out and counted.

What a method should reach is the retrained model's value, no more and no less: a value far below .5 gives the forget
items away just as one above.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.checks import at_least
from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import Condition, ScoreModel
from msgm.diffusion.samplers import Eps, sigma_space
from msgm.evaluation.asking import own
from msgm.evaluation.attacks.base import Attack, cell
from msgm.evaluation.attacks.levels import check_levels, clean_items
from msgm.evaluation.attacks.separation import TAILS, separation
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import Column
from msgm.evaluation.metrics.unlearning_ratio import percent
from msgm.processes import spread
from msgm.runs import Run
from msgm.seeding import generator
from msgm.splits import Split
from msgm.strata import controls

NO_CONTROLS = (
    "no held-out item of the request's kind has the class and source of an item to forget, so there is nothing to tell "
    "these from"
)


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


@dataclass(frozen=True)
class MembershipAttack(Attack):
    """Tells training items from held-out ones by a score of each, at noise levels rho = sigma / a.

    Subclasses are registered, write ``scores``, ``definition`` or ``protocol``, and ``columns``, as by ``columns_of``.

    Attributes:
        short: its name in headings.
        definition: what the score of one item is, for the base's protocol.
        parts: which training items are told from held-out ones: items to forget, and items to retain.
        levels: the noise levels.
        items: items of each group at most, drawn at random when it has more.
    """

    on_weights = True
    short: ClassVar[str]
    definition: ClassVar[str]
    parts: ClassVar[tuple[str, ...]] = ("forget", "retain")

    levels: list[float]
    items: int = 500

    @abstractmethod
    def scores(self, subject: Subject, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the (N, levels) scores of the items at ``indices``; members are expected to have the lower ones."""

    def combined(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one (N,) score of (N, levels); by default the mean logarithm, in which no level outweighs another."""
        return np.asarray(np.log(np.maximum(scores, np.finfo(np.float64).tiny)).mean(1))

    def __post_init__(self) -> None:
        at_least(1, self, self.section, "items")

    @property
    def section(self) -> str:
        """Where its options stand in a config."""
        return f"evaluation.options.{self.name}"

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        check_levels(self.levels, config, self.section)

    def obstacle(self, split: Split, run: Run | None) -> str | None:
        return None if len(split.train.forget) else "nothing was asked to be forgotten"

    def attack(self, subject: Subject) -> dict[str, Any]:
        found: dict[str, Any] = {"levels": self.levels, "held_out": "validation and test"}
        sides = {"forget": self.forget_sides(subject.bench)}
        if not len(sides["forget"].members):
            return {"not_tested": NO_CONTROLS}
        if "retain" in self.parts:
            sides["retain"] = self.retain_sides(subject.bench)
        for part, compared in sides.items():
            found[part] = self.inferred(subject, compared) | {"unmatched": compared.unmatched}
        return found

    def inferred(self, subject: Subject, sides: Sides) -> dict[str, Any]:
        """Return how well scores separate members from their controls, over all levels and by level."""
        if not len(sides.members):
            return self.separated(np.empty(0), np.empty(0), None)
        count = len(sides.members)
        scores = self.scores(subject, np.concatenate([sides.members, sides.others]))
        members, others = scores[:count], scores[count:]
        found = self.separated(self.combined(members), self.combined(others), sides.weights)
        by_level = [
            {"level": level, **separation(members[:, k], others[:, k], sides.weights)}
            for k, level in enumerate(self.levels)
        ]
        return found | {"by_level": by_level}

    def separated(
        self, members: NDArray[np.float64], others: NDArray[np.float64], weights: NDArray[np.float64] | None
    ) -> dict[str, Any]:
        """Return how well the combined scores separate members from their controls."""
        return separation(members, others, weights)

    def forget_sides(self, bench: Bench) -> Sides:
        """Return the items to forget and their controls."""
        held = held_out(bench.split, "all" if bench.config.request.by_item else "forget")
        return self.sides(bench, bench.dataset.distinct(bench.split.train.forget), held)

    def retain_sides(self, bench: Bench) -> Sides:
        """Return training items to retain and their controls."""
        return self.sides(bench, bench.dataset.distinct(bench.split.train.retain), held_out(bench.split, "retain"))

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
        auc, share = found["forget"]["auc"], found["forget"]["true_positives"]
        return {
            f"{cls.short} AUC forget": None if auc is None else auc["value"],
            f"{cls.short} TPR %": None if share is None else 100 * share["value"],
        }

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        share = found["forget"]["true_positives"]
        return {} if share is None else {f"{cls.short} TPR %": 100 / share["n"]}

    def protocol(self, bench: Bench) -> dict[str, str]:
        levels = ", ".join(f"{level:g}" for level in self.levels)
        return {
            f"membership inference by {self.short}": f"as by loss, but {self.definition}; at sigma / a = {levels}, and "
            "over all of them by the mean logarithm; members are expected to have the lower ones"
        }


class QueryAttack(MembershipAttack):
    """Scores an item at each level by a few evaluations of the network, without drawing noise."""

    @abstractmethod
    def query(self, eps: Eps, x0: Tensor, level: float, least: float) -> Tensor:
        """Return the (B,) scores of clean items (B, *shape) at a level.

        Args:
            eps: the model in sigma-space.
            x0: the items.
            level: rho.
            least: the least rho at which the model is sampled, in place of 0.
        """

    def scores(self, subject: Subject, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        model, process = subject.model, subject.model.process
        least = float(process.ratio(torch.tensor([process.t_sample], dtype=torch.float64)))

        def found(x0: Tensor, batch: NDArray[np.int64], asked: Condition | None) -> Tensor:
            eps = sigma_space(model, asked)
            return torch.stack([self.query(eps, x0, level, least) for level in self.levels], 1)

        return in_batches(model, subject.bench, indices, found).double().numpy()


@torch.no_grad()
def in_batches(
    model: ScoreModel,
    bench: Bench,
    indices: NDArray[np.int64],
    work: Callable[[Tensor, NDArray[np.int64], Condition | None], Tensor],
) -> Tensor:
    """Return ``work`` of the items at ``indices``, (N, ...) on the CPU.

    Args:
        model: put into eval mode; classes are asked for under the items' own.
        bench: whose data it is; sampling's batch size bounds a batch.
        indices: (N,) positions, at least one.
        work: maps clean items (B, *shape), their positions and their condition to (B, ...).
    """
    model.network.eval()

    def done(batch: NDArray[np.int64]) -> Tensor:
        x0 = clean_items(bench.dataset, batch, model.device)
        return work(x0, batch, own(model, bench.dataset, batch)).cpu()

    return torch.cat(spread(np.array_split(indices, -(-len(indices) // bench.config.sampling.batch_size)), done))


def held_out(split: Split, part: str) -> NDArray[np.int64]:
    """Return the positions of the held-out items of a part: ``retain``, ``forget`` or ``all`` of them."""
    return np.concatenate([getattr(held, part) for held in (split.validation, split.test)])


def columns_of(key: str, short: str, parts: Sequence[str] = MembershipAttack.parts) -> list[Column]:
    """Return the columns of an attack: AUC of each part, true positives on forget items, and AUC by level."""
    areas = [
        Column(f"{short} AUC {part} (aim: the retrain's)", "", cell(key, partial(auc_text, part))) for part in parts
    ]
    hits = Column(f"{short} TPR % at 1% FPR, forget: lowest / highest", "", cell(key, hits_text))
    return [areas[0], hits, *areas[1:], level_column(key, short)]


def level_column(key: str, short: str) -> Column:
    """Return the column of the AUC on forget items at each level."""
    return Column(f"{short} AUC forget, by level", "", cell(key, _levels_text))


def auc_text(part: str, found: dict[str, Any]) -> str:
    """Return the AUC of a part of the items with its interval."""
    auc, missing = found[part]["auc"], found[part].get("unmatched")
    if auc is None:
        return f"diverged on {found[part]['non_finite']}" if found[part]["non_finite"] else "no controls"
    left_out = f"; {missing} items without controls" if missing else ""
    return f"{auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}]{left_out}"


def hits_text(found: dict[str, Any]) -> str:
    """Return the true positives on items to forget; reports of earlier versions have one tail."""
    shares = [found["forget"][key] for key in TAILS if key in found["forget"]]
    return "diverged" if None in shares else " / ".join(percent(share["value"]) for share in shares)


def _levels_text(found: dict[str, Any]) -> str:
    aucs = [point["auc"] for point in found["forget"].get("by_level", [])]
    return " / ".join("diverged" if auc is None else f"{auc['value']:.2f}" for auc in aucs) or "-"
