"""Inpainting and reconstruction of held-out items, in the layout of Tables 3 and 4 of arXiv 2412.07229.

A model that forgot should restore retained items as before and fill forgotten ones with something else: accuracies
(judge before = judge after) are of both kinds, and of the retained items also FID and CLIP distance to the originals,
PSNR and SSIM, all of them over whole images (``restored``).
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from typing import Any, ClassVar

from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import PROCESSES, SamplingSettings
from msgm.errors import UserError
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.extractors import check_extractor, load_features
from msgm.evaluation.metrics.base import METRICS, Column, Metric, Report, Row
from msgm.evaluation.metrics.clip_distance import pair_distances
from msgm.evaluation.metrics.frechet import frechet_distance
from msgm.evaluation.metrics.unlearning_ratio import percent
from msgm.evaluation.reality import to_items
from msgm.evaluation.reference import Moments
from msgm.evaluation.restored import (
    PROTOCOL,
    TIMES,
    InpaintingTask,
    Method,
    ReconstructionTask,
    RestorationTask,
    Restored,
    items_to_restore,
)
from msgm.fields import Settings
from msgm.splits import Split

NOT_TESTED = "NOT TESTED"
UNKNOWN = "not known"


@dataclass(frozen=True)
class Restoration(Metric):
    """Base of the inpainting and the reconstruction metric.

    Attributes:
        n: test items of each kind, the first ones.
        steps: grid steps of the sampler, or steps each way of the PF-ODE.
        extractor: feature extractor of the Frechet distance (``msgm.evaluation.extractors``).
        clip: the CLIP of the CLIP distance, such as ``{name: clip, weights: FILE}``; None does not test it.
    """

    key: ClassVar[str]

    n: int = 100
    steps: int = 100
    extractor: Settings = field(default_factory=lambda: {"name": "judge"})
    clip: Settings | None = None

    @abstractmethod
    def task(self, config: Config) -> RestorationTask:
        """Return how the items are restored."""

    def sampling(self, config: Config, **sampler: Any) -> SamplingSettings:
        """Return the settings of the task."""
        own = config.sampling
        return SamplingSettings(**sampler, steps=self.steps, batch_size=own.batch_size, guidance=own.guidance)

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        setting = f"evaluation.options.{self.name}"
        if self.clip is not None and self.clip.get("name") != "clip":
            raise UserError(f"{setting}.clip.name must be clip, got {self.clip.get('name')}.")
        try:
            items_to_restore(dataset, split, self.n)
            self.task(config).describe(dataset.shape, PROCESSES.build(config.process))
        except UserError as error:
            raise UserError(f"{setting}: {error}") from error
        check_extractor(self.extractor, f"{setting}.extractor", dataset)
        if self.clip is not None:
            check_extractor(self.clip, f"{setting}.clip", dataset)

    def measure(self, subject: Subject) -> dict[str, Any]:
        config = subject.bench.config
        done = self.task(config).measured(subject.model, subject.bench, self.n, config.seed)
        numbers = {kind: part.numbers for kind, part in done.items()}
        return {self.key: numbers | self.distances(done["retain"], subject.bench)}

    def distances(self, retain: Restored, bench: Bench) -> dict[str, Any]:
        """Return FID and CLIP distance between the restored items to retain and their originals."""
        if not retain.restored.isfinite().all():
            return {"fid": None, "clip_distance": None}
        before, after = bench.dataset.take(retain.indices), to_items(retain.restored, bench.dataset.levels)
        features = load_features(bench, self.extractor)
        found: dict[str, Any] = {"fid": None, "clip_distance": NOT_TESTED}
        if len(after) > 1:
            one, other = (Moments.of(features(items).features) for items in (after, before))
            found["fid"] = {"value": frechet_distance(one, other), "extractor": features.text}
        if self.clip is not None:
            see = load_features(bench, self.clip)
            found["clip_distance"] = float(pair_distances(see(after).features, see(before).features).mean())
        return found

    def protocol(self, bench: Bench) -> dict[str, str]:
        items = {kind: len(indices) for kind, indices in items_to_restore(bench.dataset, bench.split, self.n).items()}
        training = "" if len(bench.split.test.forget) else "training items "
        lines = [
            self.task(bench.config).describe(bench.dataset.shape, PROCESSES.build(bench.config.process)),
            f"the first {items['retain']} test items to retain and {items['forget']} {training}to forget",
            f"ACC: {PROTOCOL['accuracy']}",
            f"FID of the retained to their originals through {load_features(bench, self.extractor).text}, biased "
            "upwards at small n",
            f"PSNR, SSIM: {PROTOCOL['PSNR, SSIM']}",
        ]
        if self.clip is None:
            lines.append(f"CLIP distance not tested: set evaluation.options.{self.name}.clip to {{name: clip}}")
        return {self.table: "; ".join(lines)}


def _columns(key: str) -> list[Column]:
    """Return the paper's columns in its order, then what must be read beside them."""

    def share(*path: str) -> Callable[[Row, Report], str]:
        return lambda row, _: percent(reduce(getitem, path, row[key]))

    def number(*path: str) -> Callable[[Row, Report], str]:
        return lambda row, _: _shown(reduce(getitem, path, row[key]))

    return [
        Column("ACC D_g %", "higher", share("retain", "accuracy", "value")),
        Column("ACC D_f %", "lower", share("forget", "accuracy", "value")),
        Column("FID D_g", "lower", number("fid")),
        Column("CLIP distance D_g", "lower", number("clip_distance")),
        Column("PSNR D_g", "higher", number("retain", "psnr")),
        Column("SSIM D_g", "higher", number("retain", "ssim")),
        Column("UR D_f %", "lower", share("forget", "unlearning_ratio", "value")),
        Column("junk D_f %", "lower", share("forget", "junk_rate")),
    ]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        value = value["value"]
    return UNKNOWN if value is None else value if isinstance(value, str) else f"{value:.4g}"


@METRICS.register("inpainting")
@dataclass(frozen=True)
class Inpainting(Restoration):
    """A part of the item is masked and filled in: Table 3.

    Example:
        >>> found = Inpainting(n=2, steps=2, resamples=1, mask="rows:0-3").measure(subject)["inpainting"]
        >>> found["retain"]["accuracy"]["n"], found["forget"]["unlearning_ratio"]["n"]
        (2, 2)

    Attributes:
        mask: what is removed, as ``msgm inpaint --mask`` reads it; the paper's: the upper half (CIFAR-10, STL-10), rows
            32 to 47 of 64 (CelebA).
        resamples: how often a step is taken; 1 is the paper's projector, which is biased.
        sampler: its name.
    """

    table = "Inpainting"
    key = "inpainting"
    columns = _columns("inpainting")

    mask: str = "upper"
    resamples: int = 10
    sampler: str = "reverse-diffusion"

    def task(self, config: Config) -> InpaintingTask:
        return InpaintingTask(self.sampling(config, sampler=self.sampler), self.mask, self.resamples)


@METRICS.register("reconstruction")
@dataclass(frozen=True)
class Reconstruction(Restoration):
    """The item is encoded or noised and taken back: Table 4.

    Example:
        >>> found = Reconstruction(n=2, steps=2, method="sdedit", t=0.5).measure(subject)["reconstruction"]
        >>> found["retain"]["accuracy"]["n"], found["forget"]["unlearning_ratio"]["n"]
        (2, 2)

    Attributes:
        method: ``encode``, the paper's, puts the noise on the PF-ODE's latent; ``sdedit`` on the item.
        t: time of the noise; by default .02 for ``encode`` and .3 for ``sdedit``.
    """

    table = "Reconstruction"
    key = "reconstruction"
    columns = _columns("reconstruction")

    method: Method = "encode"
    t: float | None = None

    def task(self, config: Config) -> ReconstructionTask:
        return ReconstructionTask(self.sampling(config), self.method, self.t)

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"t": TIMES[self.method] if self.t is None else self.t}
