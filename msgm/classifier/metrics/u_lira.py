"""U-LiRA: LiRA whose "in" shadows were trained on an example and then made to forget it by the same method.

(Kurmanji et al., NeurIPS 2023; Hayes et al., SaTML 2025, arXiv 2403.01218.) The probes are the forget items and as many
of their controls (``msgm.strata``: non-members of the same class and source), where there are so many. Shadows come in
pairs: one trains on the retain items and a random half of the probes, the other on the other half; each then unlearns
its half. So every probe, forgotten or never seen, has as many shadows in as out, none of which is the target, and the
target is attacked with these.

2 * pairs models are trained and 2 * pairs unlearned: ``needed`` says so before anything starts.

Deviations: a shadow's forget set holds half of the forget items and non-members in place of the rest, so that it keeps
its size.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from msgm.checks import at_least
from msgm.classifier.metrics.base import METRICS, Case, Live, Metric, Needed
from msgm.classifier.metrics.lira import FPR, lira_scores
from msgm.classifier.metrics.scores import Floats, attack_numbers, margins, told_apart
from msgm.classifier.metrics.shadows import cached, trained_then_unlearned
from msgm.classifier.outputs import Outputs
from msgm.seeding import derive_seed, generator
from msgm.strata import Controls, controls

if TYPE_CHECKING:
    from msgm.classifier.data import Split
    from msgm.classifier.methods.base import Method


@METRICS.register("u-lira")
@dataclass(frozen=True)
class ULiRA(Metric):
    """Online LiRA against trained-then-unlearned shadows.

    Example:
        >>> ULiRA(pairs=32).needed()
        Needed(trained=64, unlearned=64)
        >>> ULiRA(pairs=2).measure(case)["u_lira_auc"]
        0.8...

    Attributes:
        pairs: pairs of shadow models; the literature has 32 to 128.
        folder: where the shadows' logits are kept, to resume and to share between models; empty keeps none.
    """

    numbers = attack_numbers("u_lira", "U-LiRA", FPR)
    live = True
    costly = True

    pairs: int = 32
    folder: str = ""

    def __post_init__(self) -> None:
        at_least(2, self, "options.u-lira", "pairs")

    def measure(self, case: Case) -> dict[str, float | None]:
        live = case.live
        if live is None or live.method is None:
            return dict.fromkeys(self.numbers)
        probes = Probes.of(case, live)
        inside, outside = self.shadows(live, live.method, probes)
        members, others = np.split(lira_scores(probes.margins(case.target), inside, outside), [len(probes.forget)])
        return told_apart("u_lira", members[probes.found.matched], others, probes.found.weights, FPR)

    def needed(self) -> Needed:
        """Return the shadows; each method has its own."""
        return Needed(trained=2 * self.pairs, unlearned=2 * self.pairs)

    def shadows(self, live: Live, method: "Method", probes: "Probes") -> tuple[Floats, Floats]:
        """Return the margins (pairs, probes) of shadows that saw and unlearned a probe, and of those that never did."""
        inside, outside = [], []
        for pair in range(self.pairs):
            half = probes.half(live.settings.seed, pair)
            first, second = (self._margins(live, method, probes, pair, side) for side in (half, ~half))
            inside.append(np.where(half, first, second))
            outside.append(np.where(half, second, first))
        return np.stack(inside), np.stack(outside)

    def _margins(self, live: Live, method: "Method", probes: "Probes", pair: int, side: NDArray[np.bool_]) -> Floats:
        name = ("u-lira", repr(method), str(pair), side.tobytes().hex(), probes.held_out.tobytes().hex())
        seed = derive_seed(live.settings.seed, *name)
        split = probes.shadow_split(live.split, side)
        return probes.margins(
            cached(self.folder, live, name, lambda: trained_then_unlearned(live, method, split, seed))
        )


@dataclass(frozen=True, eq=False)
class Probes:
    """The items whose membership is guessed.

    Attributes:
        forget: (F,) positions among the forget items, all of them.
        held_out: (H,) positions among the non-members: of every stratum as many as it has forget items, or all.
        found: which forget items have controls among these, and what each of these weighs, (H,), above 0.
    """

    forget: NDArray[np.int64]
    held_out: NDArray[np.int64]
    found: Controls

    @classmethod
    def of(cls, case: Case, live: Live) -> "Probes":
        """Return the probes of a case, the same for every model of an experiment."""
        import torch

        forget, others = case.target.stratum("forget"), case.target.stratum("nonmembers")
        order = torch.randperm(len(others), generator=generator(live.settings.seed, "u-lira", "probes")).numpy()
        wanted = zip(*np.unique(forget, return_counts=True), strict=True)
        held_out = np.sort(np.concatenate([order[others[order] == code][:count] for code, count in wanted]))
        return cls(np.arange(len(forget)), held_out, controls(forget, others[held_out]))

    def half(self, seed: int, pair: int) -> NDArray[np.bool_]:
        """Return which probes the pair's first shadow trains on: half of either kind, rounded up."""
        import torch

        draws = generator(seed, "u-lira", "half", pair)
        sides = [torch.randperm(len(kind), generator=draws).numpy() % 2 == 0 for kind in (self.forget, self.held_out)]
        return np.concatenate(sides)

    def margins(self, outputs: Outputs) -> Floats:
        """Return the probes' margins, forget items first."""
        forget, held_out = margins(outputs, "forget"), margins(outputs, "nonmembers")
        return np.concatenate([forget[self.forget], held_out[self.held_out]])

    def shadow_split(self, split: "Split", side: NDArray[np.bool_]) -> "Split":
        """Return the split of a shadow that trains on retain items and the probes of one side, and forgets these."""
        chosen, seen = np.split(side, [len(self.forget)])
        taken = self.held_out[seen]
        left = np.setdiff1d(np.arange(len(split.nonmembers)), taken)
        own = split.forget.subset(self.forget[chosen]).join(split.nonmembers.subset(taken))
        return replace(split, forget=own, nonmembers=split.nonmembers.subset(left))
