"""Restoration of real items, retain and forget separately: inpainting and reconstruction.

A model that forgot a class should fill a forgotten item's hole with something else, and leave retained items as they
were (arXiv 2412.07229, tables 3 and 4, whose accuracy is ``accuracy`` here). PSNR and SSIM (Wang et al., "Image Quality
Assessment", 2004) are those of torchmetrics over images scaled to [0, 1], data range 1: the PSNR of the mean squared
error over all pixels of all images, the SSIM with its Gaussian window of 11 pixels, borders reflected. Both are also
reported on the removed pixels alone, because known pixels are exact: with half an image known, PSNR rises by 3 dB.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.data import Dataset, dequantise
from msgm.diffusion import Condition, Process, SamplingSettings, ScoreModel
from msgm.diffusion.restoration import (
    check_resamples,
    check_time,
    decode,
    encode,
    fitting_mask,
    inpaint,
    inpainting_evaluations,
    perturb,
    sdedit,
)
from msgm.errors import UserError
from msgm.evaluation.asking import in_turn, own
from msgm.evaluation.bench import Bench
from msgm.evaluation.metrics.unlearning_ratio import sample_numbers
from msgm.evaluation.rates import rate, total
from msgm.evaluation.reality import to_items
from msgm.masks import parse_mask
from msgm.splits import Split

SSIM_PIXELS = 6
"""Smallest side of an image that the SSIM's window can be reflected into."""

Method = Literal["encode", "sdedit"]

TIMES: dict[Method, float] = {"encode": 0.02, "sdedit": 0.3}
"""Default t of each method: the paper's, and one at which digits show what was forgotten."""

PROTOCOL = {
    "accuracy": "share in which the judge sees what it sees in the original (ACC of arXiv 2412.07229); 95% Wilson "
    "interval; the judge names a class for junk, too",
    "label": "share in which the judge sees the original's label",
    "UR": "unlearning ratio: share judged a forgotten class, junk being none",
    "junk rate": "share farther from the training items than 99% of validation items are, in pixels",
    "PSNR, SSIM": "torchmetrics, images in [0, 1], data range 1, not quantised; PSNR of the mean squared error over "
    "all pixels of all images; SSIM with a Gaussian window of 11 pixels",
    "hole": "PSNR and SSIM of the masked pixels alone",
}
"""What the numbers of restored items are, by name."""


@dataclass(frozen=True)
class Restored:
    """Real items of one kind and their restorations; all tensors are float32 on the CPU.

    Attributes:
        indices: (n,) the items' places in the data set.
        originals: (n, *shape) the items as models see them, images in [-1, 1].
        given: (n, *shape) the inputs of restoration: items with removed parts set to 0; noised items; or noised latents
            divided by the prior's standard deviation.
        restored: (n, *shape) the model's outputs, not clipped.
        numbers: of ``restoration_numbers``, and ``part``: ``test``, or ``train`` for forget items where the request
            names no test item.
    """

    indices: NDArray[np.int64]
    originals: Tensor
    given: Tensor
    restored: Tensor
    numbers: dict[str, Any]


def items_to_restore(dataset: Dataset, split: Split, count: int | None) -> dict[str, NDArray[np.int64]]:
    """Return the first ``count`` test items to retain and to forget, all of them when None.

    Where fewer are to be forgotten, it is all of those; where the request names no test item, training items are taken.

    Raises:
        UserError: ``count`` is below 1, or above the number of test items to retain.
    """
    retain, forget = split.test.retain, split.test.forget
    if not len(forget):
        forget = dataset.distinct(split.train.forget)
    if count is not None and not 1 <= count <= len(retain):
        raise UserError(f"-n {count}: the test part has 1 to {len(retain)} items to retain.")
    return {"retain": retain[:count], "forget": forget[:count]}


@dataclass(frozen=True)
class RestorationTask(ABC):
    """How items are restored.

    Attributes:
        name: of the task.
        command: its name on the command line.
        given: a word for the input of restoration.
        settings: sampler, steps and batch size.
    """

    name: ClassVar[str]
    command: ClassVar[str]
    given: ClassVar[str]

    settings: SamplingSettings

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The settings, by name, as they are recorded."""

    @abstractmethod
    def describe(self, shape: tuple[int, ...], process: Process) -> str:
        """Return a description of how items of this shape are restored.

        Raises:
            UserError: an option that does not fit shape or process.
        """

    @abstractmethod
    def restore(
        self, model: ScoreModel, x: Tensor, seed: int, numbers: Sequence[int], condition: Condition | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the degraded input of x (B, *shape) and its restoration; ``numbers`` seed each item's noise."""

    def hole(self, shape: tuple[int, ...]) -> Tensor | None:
        """Return a bool mask, true where an item of this shape is masked; None where nothing is."""
        return None

    def measured(
        self, model: ScoreModel, bench: Bench, count: int = 100, seed: int = 0, ask: Sequence[int] = ()
    ) -> dict[str, Restored]:
        """Return ``retain`` and ``forget``: ``count`` test items of each, as in ``items_to_restore``, restored.

        A class-conditional model is asked for the classes ``ask`` in turn; without them for each item's own.
        """
        done, hole = {}, self.hole(model.shape)
        removed = None if hole is None else fitting_mask(hole, model.shape)
        for kind, indices in items_to_restore(bench.dataset, bench.split, count).items():
            items = bench.dataset.take(indices)
            originals = items.float() if bench.dataset.levels is None else dequantise(items, bench.dataset.levels)
            asked = in_turn(model, ask, len(indices)) if ask else own(model, bench.dataset, indices)
            given, restored = self.restore(model, originals, seed, indices.tolist(), asked)
            numbers = restoration_numbers(bench, indices, restored, removed)
            part = "test" if np.isin(indices, bench.split.test.all).all() else "train"
            done[kind] = Restored(indices, originals, given, restored, {"part": part, **numbers})
        return done


@dataclass(frozen=True)
class InpaintingTask(RestorationTask):
    """A part is masked and filled in.

    Attributes:
        mask: what is masked, as ``msgm.masks.parse_mask`` reads it.
        resamples: RePaint's U; 1 is the plain projector.
    """

    name, command, given = "inpainting", "inpaint", "masked"

    mask: str
    resamples: int = 10

    @property
    def options(self) -> dict[str, Any]:
        return {"mask": self.mask}

    def describe(self, shape: tuple[int, ...], process: Process) -> str:
        hole = self.hole(shape)
        check_resamples(self.resamples)
        evaluations = inpainting_evaluations(self.settings, self.resamples)
        return (
            f"{self.mask} masked, {int(hole.sum())} of {hole.numel()} places; {self.settings.sampler}, "
            f"{self.settings.steps} steps taken {self.resamples} times, "
            f"{'adaptive' if evaluations is None else f'{evaluations} network evaluations'}"
            f"{self.settings.describe_guidance()}"
        )

    def hole(self, shape: tuple[int, ...]) -> Tensor:
        return ~parse_mask(self.mask, shape)

    def restore(
        self, model: ScoreModel, x: Tensor, seed: int, numbers: Sequence[int], condition: Condition | None = None
    ) -> tuple[Tensor, Tensor]:
        known, settings = ~self.hole(model.shape), self.settings
        filled = inpaint(model, x, known, settings, self.resamples, seed, numbers, condition)
        return torch.where(known, x, 0.0), filled


@dataclass(frozen=True)
class ReconstructionTask(RestorationTask):
    """Noise is put in and taken out again.

    Attributes:
        settings: ``encode`` reads the steps (each way), the batch size and the guidance only.
        method: ``encode``: PF-ODE, noise of time t on the latent, PF-ODE back; ``sdedit``: noise of time t on the item,
            sampled down.
        t: of the noise; by default that of ``TIMES``.
    """

    name, command, given = "reconstruction", "reconstruct", "noised"

    method: Method = "encode"
    t: float | None = None

    @property
    def time(self) -> float:
        """The time of the noise."""
        return TIMES[self.method] if self.t is None else self.t

    @property
    def options(self) -> dict[str, Any]:
        return {"method": self.method, "t": self.time}

    def describe(self, shape: tuple[int, ...], process: Process) -> str:
        t, evaluations = self.time, 8 * self.settings.steps
        check_time(t, process.t_sample if self.method == "sdedit" else 0.0)
        if self.method == "sdedit":
            return f"SDEdit, noise of t = {t:g} on the item, sampled down by {self.settings.describe(process)}"
        guided = self.settings.describe_guidance()
        return f"PF-ODE to the latent, noise of t = {t:g} on it, PF-ODE back; {evaluations} network evaluations{guided}"

    def restore(
        self, model: ScoreModel, x: Tensor, seed: int, numbers: Sequence[int], condition: Condition | None = None
    ) -> tuple[Tensor, Tensor]:
        if self.method == "sdedit":
            given = perturb(model, x, self.time, seed, numbers)
            return given, sdedit(model, x, self.time, self.settings, seed, numbers, condition)
        model, steps, size = self.settings.guided(model, condition), self.settings.steps, self.settings.batch_size
        latents = perturb(model, encode(model, x, steps, size, condition), self.time, seed, numbers)
        return latents / model.process.prior_std, decode(model, latents, steps, size, condition)


def restoration_numbers(
    bench: Bench, indices: NDArray[np.int64], restored: Tensor, removed: Tensor | None = None
) -> dict[str, Any]:
    """Return how the restored items compare with the originals, as a JSON tree.

    Args:
        bench: data, judge and distances.
        indices: (n,) the originals' places in the data set.
        restored: (n, *shape) in their order, images in [-1, 1].
        removed: bool mask shaped like an item, true where it was removed; None when nothing was.

    Returns:
        ``accuracy``: rate of restored items that the judge assigns to the same class as the original (the paper's ACC;
        junk is assigned to a class, too); ``label_accuracy``: to the original's label, None where its classes are not
        the data's; ``originals``: the label accuracy and the unlearning ratio of the originals themselves; the entries
        of ``sample_numbers`` for the restored items (unlearning ratio, junk rate and more); ``psnr`` in dB, ``ssim``,
        and both of the removed pixels alone (``psnr_removed``, ``ssim_removed``), None for vectors, where a restored
        item is not finite, where nothing differs (PSNR) and for images of less than 6 pixels (SSIM).
    """
    dataset, judge, n = bench.dataset, bench.judge, len(indices)
    raw, items = dataset.take(indices), to_items(restored, dataset.levels)
    before, after = judge.votes(raw), judge.votes(items)
    finite = restored.isfinite().flatten(1).all(1)
    labels = torch.from_numpy(dataset.labels[indices])[:, None] if judge.classes == dataset.classes else None  # type: ignore[index]
    return {
        "n": n,
        "accuracy": rate(total(after * before), n),
        "label_accuracy": None if labels is None else rate(total(after.gather(1, labels)), n),
        **sample_numbers(items, finite, bench),
        **_fidelity(raw, restored, dataset.levels, removed),
        "originals": {
            "label_accuracy": None if labels is None else rate(total(before.gather(1, labels)), n),
            "unlearning_ratio": rate(total(judge.forgotten_share(before)), n),
        },
    }


def _fidelity(raw: Tensor, restored: Tensor, levels: int | None, removed: Tensor | None) -> dict[str, float | None]:
    """Return PSNR and SSIM, and both of the removed pixels alone."""
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    names = ["psnr", "ssim"] + ([] if removed is None else ["psnr_removed", "ssim_removed"])
    if levels is None or not restored.isfinite().all():
        return dict.fromkeys(names)
    before, after = (((x + 1) / 2).clamp(0, 1) for x in (dequantise(raw, levels), restored))
    found: dict[str, float | None] = dict.fromkeys(names)
    found["psnr"] = _finite(peak_signal_noise_ratio(after, before, data_range=1.0))
    if removed is not None:
        found["psnr_removed"] = _finite(peak_signal_noise_ratio(after[:, removed], before[:, removed], data_range=1.0))
    if min(raw.shape[2:]) >= SSIM_PIXELS:
        _, similar = structural_similarity_index_measure(after, before, data_range=1.0, return_full_image=True)
        found["ssim"] = float(similar.mean())
        if removed is not None:
            found["ssim_removed"] = float(similar[:, removed].mean())
    return found


def _finite(value: Tensor) -> float | None:
    return float(value) if math.isfinite(value) else None
