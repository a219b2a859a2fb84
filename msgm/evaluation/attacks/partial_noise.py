"""Whether the model restores a partly noised forget item: SDEdit (Meng et al., arXiv 2108.01073) as an attack.

At low noise the image itself still shows through and any good model restores it, so the result is compared with the
retrained row. Retain items, started in the same way, show how well the model restores in general.
"""

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.checks import at_least
from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import ScoreModel
from msgm.diffusion.samplers import Noise, solve
from msgm.evaluation.asking import own
from msgm.evaluation.attacks.base import Attack, cell, enough
from msgm.evaluation.attacks.levels import check_levels, clean_items, time_at
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.evaluation.rates import rate, total
from msgm.evaluation.reality import to_items
from msgm.objectives import noised
from msgm.processes import spread
from msgm.splits import Split

SECTION = "evaluation.options.partial-noise"


def _per_level(part: str, share: str, found: dict[str, Any]) -> str:
    values = [f"{100 * point[part][share]['value']:.0f}" for point in found["levels"]]
    return " / ".join(values)


@METRICS.register("partial-noise")
@dataclass(frozen=True)
class PartialNoise(Attack):
    """Sampling starts from noised real items instead of noise.

    Example:
        >>> found = PartialNoise(levels=[0.5, 2.0], items=3).measure(subject)["partial_noise"]
        >>> [(start["level"], start["forget"]["forgotten"]["n"]) for start in found["levels"]]
        [(0.5, 3), (2.0, 3)]

    Attributes:
        levels: noise levels rho = sigma / a to start at, in data units (images lie in [-1, 1]).
        items: items to forget, and as many to retain, started a level: the first ones of the test part, by index; to
            forget those of the training part when the request names no test item.
    """

    key = "partial_noise"
    columns = [  # noqa: RUF012
        Column("forget items come back %, by start", "", cell(key, lambda f: _per_level("forget", "forgotten", f))),
        Column("retain items kept %, by start", "higher", cell(key, lambda f: _per_level("retain", "kept", f))),
    ]

    levels: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0, 5.0])
    items: int = 50

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "items")

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        check_levels(self.levels, config, SECTION)
        part, forget = _forget(dataset, split)
        enough(self.name, "items", self.items, len(forget), f"{part} items to forget")
        enough(self.name, "items", self.items, len(split.test.retain), "test items to retain")

    def attack(self, subject: Subject) -> dict[str, Any]:
        part, forget = _forget(subject.bench.dataset, subject.bench.split)
        starts = {"forget": forget[: self.items], "retain": subject.bench.split.test.retain[: self.items]}
        points = [
            {"level": level} | {name: _returned(subject, indices, level) for name, indices in starts.items()}
            for level in self.levels
        ]
        return {"items": self.items, "forget_part": part, "levels": points}

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        shares = {"forget items come back %": ("forget", "forgotten"), "retain items kept %": ("retain", "kept")}
        return {
            heading: 100 * fmean(point[part][share]["value"] for point in found["levels"])
            for heading, (part, share) in shares.items()
        }

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        return dict.fromkeys(
            cls.followed(found), 100 / sum(level["forget"]["forgotten"]["n"] for level in found["levels"])
        )

    def protocol(self, bench: Bench) -> dict[str, str]:
        part, _ = _forget(bench.dataset, bench.split)
        levels = ", ".join(f"{level:g}" for level in self.levels)
        return {
            "partial-noise starts": f"{self.items} {part} items to forget and {self.items} test items to retain, "
            f"noised to sigma / a = {levels} and sampled down; come back: judged forgotten; kept: judged as the item "
            "itself; junk is neither. At little noise the image shows through: compare with the retrained row"
        }


def _forget(dataset: Dataset, split: Split) -> tuple[str, NDArray[np.int64]]:
    """Return the part that the items to forget come from, and its items."""
    if len(split.test.forget):
        return "test", split.test.forget
    return "training", dataset.distinct(split.train.forget)


def _returned(subject: Subject, indices: NDArray[np.int64], level: float) -> dict[str, Any]:
    return judged(subject.bench, indices, start_from(subject.model, subject.bench, indices, level))


def judged(bench: Bench, indices: NDArray[np.int64], samples: Tensor) -> dict[str, Any]:
    """Return the shares of restored items judged as forgotten content, as their original class, and as junk.

    Args:
        bench: with the judge.
        indices: (N,) the items themselves.
        samples: (N, *shape) what they were restored to.
    """
    judge, n = bench.judge, len(indices)
    items = to_items(samples, bench.dataset.levels)
    junk = bench.junk(items, samples.isfinite().flatten(1).all(1))
    seen, before = judge.votes(items), judge.votes(bench.dataset.take(indices))
    return {
        "forgotten": rate(total(judge.forgotten_share(seen)[~junk]), n),
        "kept": rate(total((seen * before)[~junk]), n),
        "junk": rate(int(junk.sum()), n),
    }


@torch.no_grad()
def start_from(model: ScoreModel, bench: Bench, indices: NDArray[np.int64], level: float) -> Tensor:
    """Noise the items at ``indices`` to rho = ``level`` and sample down from there; (B, *shape) on the CPU.

    Every item has its own noise, the same for all models.
    """
    config, t = bench.config, time_at(model.process, level)

    def returned(batch: NDArray[np.int64]) -> Tensor:
        noise = Noise(config.seed, batch.tolist(), model.shape, model.device, "partial-noise")
        x0 = clean_items(bench.dataset, batch, model.device)
        start = noised(model.process, x0, torch.full((len(x0),), t, device=model.device), noise())
        asked = own(model, bench.dataset, batch)
        return solve(model, start.x, t, config.sampling, noise, condition=asked).cpu()

    return torch.cat(spread(np.array_split(indices, -(-len(indices) // config.sampling.batch_size)), returned))
