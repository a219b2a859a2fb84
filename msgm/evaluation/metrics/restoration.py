"""Inpainting and reconstruction of held-out items, in the layout of Tables 3 and 4 of arXiv 2412.07229.

A model that forgot should restore retained items as before and fill forgotten ones with something else: accuracies
(judge before = judge after) are of both kinds, and of the retained items also FID and CLIP distance to the originals,
PSNR and SSIM, all of them over whole images (``restored``).
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import PROCESSES, SamplingSettings
from msgm.diffusion.restoration import check_resamples, check_time, inpainting_evaluations
from msgm.errors import UserError
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.extractors import EXTRACTORS, load_features
from msgm.evaluation.metrics.base import METRICS, Column, Metric, Report, Row
from msgm.evaluation.metrics.clip_distance import pair_distances
from msgm.evaluation.metrics.frechet import frechet_distance
from msgm.evaluation.metrics.unlearning_ratio import percent
from msgm.evaluation.reality import to_items
from msgm.evaluation.reference import Moments
from msgm.evaluation.restored import Method, Restored, inpainting, items_to_restore, reconstruction
from msgm.fields import Settings
from msgm.masks import parse_mask
from msgm.splits import Split

NOT_TESTED = "NOT TESTED"
UNKNOWN = "not known"


@dataclass(frozen=True)
class Restoration(Metric):
    """What both tables share.

    Attributes:
        n: test items of each kind, the first ones.
        steps: grid steps of the sampler, or steps each way of the PF-ODE.
        extractor: what the Frechet distance looks through (``msgm.evaluation.extractors``).
        clip: the CLIP of the CLIP distance, such as ``{name: clip, weights: FILE}``; None does not test it.
    """

    key: ClassVar[str]

    n: int = 100
    steps: int = 100
    extractor: Settings = field(default_factory=lambda: {"name": "judge"})
    clip: Settings | None = None

    @abstractmethod
    def restored(self, subject: Subject) -> dict[str, Restored]:
        """Return ``retain`` and ``forget`` items, restored."""

    @abstractmethod
    def how(self, bench: Bench) -> str:
        """Return how the items were restored, in words."""

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        try:
            items_to_restore(split, self.n)
            self.check_setting(config, dataset)
            EXTRACTORS.build(self.extractor).check(dataset)
        except UserError as error:
            raise UserError(f"evaluation.options.{self.name}: {error}") from error
        if self.clip is not None:
            self._check_clip(dataset)

    def _check_clip(self, dataset: Dataset) -> None:
        name = (self.clip or {}).get("name")
        if name != "clip":
            raise UserError(f"evaluation.options.{self.name}.clip.name must be clip, got {name}.")
        try:
            EXTRACTORS.build(self.clip or {}).check(dataset)
        except UserError as error:
            raise UserError(f"evaluation.options.{self.name}.clip: {error}") from error

    @abstractmethod
    def check_setting(self, config: Config, dataset: Dataset) -> None:
        """Raise a UserError when its own options do not fit the data."""

    def measure(self, subject: Subject) -> dict[str, Any]:
        done = self.restored(subject)
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
        items = {kind: len(indices) for kind, indices in items_to_restore(bench.split, self.n).items()}
        training = "" if len(bench.split.test.forget) else "training items "
        lines = [
            self.how(bench),
            f"the first {items['retain']} test items to retain and {items['forget']} {training}to forget",
            "ACC: share in which the judge sees what it sees in the original, junk being some class to it",
            f"FID of the retained to their originals through {load_features(bench, self.extractor).text}, biased "
            "upwards at small n",
            "PSNR and SSIM (window 11) by torchmetrics, images in [0, 1], of whole images",
        ]
        if self.clip is None:
            lines.append(f"CLIP distance not tested: set evaluation.options.{self.name}.clip to {{name: clip}}")
        return {self.table: "; ".join(lines)}


def _columns(key: str) -> list[Column]:
    """Return the paper's columns in its order, then what must be read beside them."""

    def share(kind: str, name: str) -> Callable[[Row, Report], str]:
        return lambda row, _: percent(row[key][kind][name]["value"])

    def retained(name: str) -> Callable[[Row, Report], str]:
        return lambda row, _: _shown(row[key]["retain"][name])

    def distance(name: str) -> Callable[[Row, Report], str]:
        return lambda row, _: _shown(row[key][name])

    return [
        Column("ACC D_g %", "higher", share("retain", "accuracy")),
        Column("ACC D_f %", "lower", share("forget", "accuracy")),
        Column("FID D_g", "lower", distance("fid")),
        Column("CLIP distance D_g", "lower", distance("clip_distance")),
        Column("PSNR D_g", "higher", retained("psnr")),
        Column("SSIM D_g", "higher", retained("ssim")),
        Column("UR D_f %", "lower", share("forget", "unlearning_ratio")),
        Column("junk D_f %", "lower", lambda row, _: percent(row[key]["forget"]["junk_rate"])),
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

    def check_setting(self, config: Config, dataset: Dataset) -> None:
        parse_mask(self.mask, dataset.shape)
        check_resamples(self.resamples)
        SamplingSettings(self.sampler, self.steps)

    def restored(self, subject: Subject) -> dict[str, Restored]:
        bench = subject.bench
        known = parse_mask(self.mask, bench.dataset.shape)
        settings = SamplingSettings(self.sampler, self.steps, batch_size=bench.config.sampling.batch_size)
        return inpainting(subject.model, bench, known, self.n, settings, self.resamples, bench.config.seed)

    def how(self, bench: Bench) -> str:
        count = inpainting_evaluations(SamplingSettings(self.sampler, self.steps), self.resamples)
        evaluations = "adaptive" if count is None else f"{count} network evaluations"
        return f"{self.mask} masked; {self.sampler}, {self.steps} steps taken {self.resamples} times, {evaluations}"


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
        t: time of the noise.
    """

    table = "Reconstruction"
    key = "reconstruction"
    columns = _columns("reconstruction")

    method: Method = "encode"
    t: float = 0.02

    def check_setting(self, config: Config, dataset: Dataset) -> None:
        check_time(self.t, PROCESSES.build(config.process).t_sample if self.method == "sdedit" else 0.0)
        SamplingSettings(steps=self.steps)

    def restored(self, subject: Subject) -> dict[str, Restored]:
        bench = subject.bench
        settings = SamplingSettings(steps=self.steps, batch_size=bench.config.sampling.batch_size)
        return reconstruction(subject.model, bench, self.method, self.t, self.n, settings, bench.config.seed)

    def how(self, bench: Bench) -> str:
        if self.method == "sdedit":
            return f"SDEdit: noise of t = {self.t:g} on the item, {SamplingSettings(steps=self.steps).describe()}"
        return f"PF-ODE to the latent, noise of t = {self.t:g} on it, PF-ODE back; {8 * self.steps} network evaluations"
