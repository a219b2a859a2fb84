"""Whether the model decodes the latents of forget items: encoded by a walk up the PF-ODE, decoded by the model's own.

A model that encodes an item itself gives it back whatever it learnt, as decoding undoes encoding. So all rows decode
the same latents: those of the kernel density of the training items, to forget and to retain, whose score is known. The
walk up ends at a noise level rho; from a low one any good model comes back near the item, so that the distances are
read beside the retrained model's. There is no noise in it: partial noise asks the same with noise.
"""

import itertools
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
from msgm.diffusion.samplers import DDIM, Grid, Noise, ratio_grid, sigma_space
from msgm.evaluation.asking import own
from msgm.evaluation.attacks.base import Attack, cell, enough
from msgm.evaluation.attacks.levels import check_levels, clean_items, time_at
from msgm.evaluation.attacks.partial_noise import judged
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.objectives.kernel import KernelDensity, leave_one_out_bandwidth
from msgm.seeding import generator
from msgm.splits import Split

SECTION = "evaluation.options.latent-inversion"
BANK = 16384
"""Training items of the encoding density, at most."""
LOWEST = 0.02
"""rho at which an item's walk up begins."""
STEPS = 60
"""Steps of Heun's method on the way up, even in ln rho."""


def _distances(found: dict[str, Any]) -> str:
    return " / ".join(f"{point['forget']['distance']:.2f}" for point in found["levels"])


def _returns(found: dict[str, Any]) -> str:
    return " / ".join(f"{100 * point['forget']['forgotten']['value']:.0f}" for point in found["levels"])


@METRICS.register("latent-inversion")
@dataclass(frozen=True)
class LatentInversion(Attack):
    """Latents of forget items, the same ones for every row, are decoded by DDIM.

    Example:
        >>> found = LatentInversion(levels=[1.0], items=3).measure(subject)["latent_inversion"]
        >>> [(point["level"], point["forget"]["forgotten"]["n"]) for point in found["levels"]]
        [(1.0, 3)]

    Attributes:
        levels: noise levels rho = sigma / a that items are encoded to, in data units (images lie in [-1, 1]).
        items: training items to forget, and as many to retain: the first ones, by index.
    """

    key = "latent_inversion"
    columns = [  # noqa: RUF012
        Column("distance of decoded forget items, by level", "", cell(key, _distances)),
        Column("decoded forget items come back %, by level", "", cell(key, _returns)),
    ]

    levels: list[float] = field(default_factory=lambda: [1.0, 2.0, 5.0, 20.0])
    items: int = 50

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "items")

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        check_levels(self.levels, config, SECTION)
        for part in ("forget", "retain"):
            enough(self.name, "items", self.items, len(getattr(split.train, part)), f"training items to {part}")

    def attack(self, subject: Subject) -> dict[str, Any]:
        train = subject.bench.split.train
        starts = {"forget": train.forget[: self.items], "retain": train.retain[: self.items]}
        points = [
            {"level": level} | {name: _decoded(subject, indices, level) for name, indices in starts.items()}
            for level in self.levels
        ]
        return {"items": self.items, "levels": points}

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        points = [point["forget"] for point in found["levels"]]
        return {
            "distance of decoded forget items": fmean(point["distance"] for point in points),
            "decoded forget items come back %": 100 * fmean(point["forgotten"]["value"] for point in points),
        }

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        total = sum(point["forget"]["forgotten"]["n"] for point in found["levels"])
        return {"decoded forget items come back %": 100 / total}

    def protocol(self, bench: Bench) -> dict[str, str]:
        levels = ", ".join(f"{level:g}" for level in self.levels)
        return {
            "latent inversion": f"{self.items} training items of each part, walked up to sigma / a = {levels} by the "
            "score of the training items' kernel density and down by the model's own (DDIM); distance: median over "
            "the items of the root mean square difference. Compare with the retrained row"
        }


def encoding_density(bench: Bench) -> KernelDensity:
    """Return the kernel density of the training items, which encodes the items of every row."""
    name = "latent inversion's density"
    if name not in bench.memory:
        train = bench.split.train.all
        order = torch.randperm(len(train), generator=generator(0, "latent inversion")).numpy()
        bank = clean_items(bench.dataset, train[order[:BANK]], torch.device("cpu"))
        bench.memory[name] = KernelDensity(bank, leave_one_out_bandwidth(bank))
    density: KernelDensity = bench.memory[name]
    return density


def encoded(density: KernelDensity, items: Tensor, level: float) -> Tensor:
    """Walk clean items (B, *shape) up the density's PF-ODE to rho = ``level``; returns y = x / a."""
    y = items
    for low, high in itertools.pairwise(np.geomspace(LOWEST, level, STEPS + 1).tolist()):
        here = density.eps_at(y, 1.0, low)
        ahead = density.eps_at(y + (high - low) * here, 1.0, high)
        y = y + (high - low) * (here + ahead) / 2
    return y


@torch.no_grad()
def _decoded(subject: Subject, indices: NDArray[np.int64], level: float) -> dict[str, Any]:
    """Return how far decoded items lie from the items, and what the judge sees in them."""
    bench, model = subject.bench, subject.model
    config, top = bench.config, time_at(model.process, level)
    items = clean_items(bench.dataset, indices, torch.device("cpu"))
    start = encoded(encoding_density(bench), items, level)
    grid = Grid(model.process, [*ratio_grid(model.process, config.sampling.steps, DDIM.schedule, t_start=top), 0.0])
    model.network.eval()
    parts = []
    for rows in np.array_split(np.arange(len(indices)), -(-len(indices) // config.sampling.batch_size)):
        noise = Noise(config.seed, indices[rows].tolist(), model.shape, model.device, "latent-inversion")
        eps = sigma_space(model, own(model, bench.dataset, indices[rows]))
        parts.append(DDIM().run(eps, start[rows].to(model.device), grid, noise, lambda state: None).cpu())
    decoded = torch.cat(parts)
    apart = (decoded - items).square().flatten(1).mean(1).sqrt()
    return {"distance": float(apart.nan_to_num(torch.inf).median()), **judged(bench, indices, decoded)}
