"""What a model makes of real items that it has to restore: inpainting and reconstruction, retain and forget apart.

A model that forgot a class should fill a forgotten item's hole with something else, and leave retained items as they
were (arXiv 2412.07229, tables 3 and 4, whose accuracy is ``accuracy`` here). PSNR and SSIM (Wang et al., "Image Quality
Assessment", 2004) are those of torchmetrics over images scaled to [0, 1], data range 1: the PSNR of the mean squared
error over all pixels of all images, the SSIM with its Gaussian window of 11 pixels, borders reflected. Those of the
removed pixels alone stand beside them, as the known ones are exact: with half an image known, 3 dB are free.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.data import dequantise
from msgm.diffusion import SamplingSettings, ScoreModel
from msgm.diffusion.restoration import decode, encode, fitting_mask, inpaint, perturb, sdedit
from msgm.errors import UserError
from msgm.evaluation.bench import Bench
from msgm.evaluation.metrics.unlearning_ratio import sample_numbers
from msgm.evaluation.rates import rate, total
from msgm.evaluation.reality import to_items
from msgm.splits import Split

SSIM_PIXELS = 6
"""Smallest side of an image that the SSIM's window can be reflected into."""

Method = Literal["encode", "sdedit"]
Restore = Callable[[Tensor, Sequence[int]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Restored:
    """Real items of one kind and what became of them; all tensors are float32 on the CPU.

    Attributes:
        indices: (n,) the items' places in the data set.
        originals: (n, *shape) the items as models see them, images in [-1, 1].
        given: (n, *shape) what they were restored from: removed parts are 0; noised items; or noised latents over the
            prior's standard deviation.
        restored: (n, *shape) what the model made of it, not clipped.
        numbers: of ``restoration_numbers``, and ``part``: ``test``, or ``train`` for forget items where the request
            names no test item.
    """

    indices: NDArray[np.int64]
    originals: Tensor
    given: Tensor
    restored: Tensor
    numbers: dict[str, Any]


def items_to_restore(split: Split, count: int | None) -> dict[str, NDArray[np.int64]]:
    """Return the first ``count`` test items to retain and to forget, all of them when None.

    Where fewer are to be forgotten, it is all of those; where the request names no test item, training items are taken.

    Raises:
        UserError: ``count`` is below 1, or above the number of test items to retain.
    """
    retain, forget = split.test.retain, split.test.forget if len(split.test.forget) else split.train.forget
    if count is not None and not 1 <= count <= len(retain):
        raise UserError(f"-n {count}: the test part has 1 to {len(retain)} items to retain.")
    return {"retain": retain[:count], "forget": forget[:count]}


def inpainting(
    model: ScoreModel,
    bench: Bench,
    known: Tensor,
    count: int | None = 100,
    settings: SamplingSettings | None = None,
    resamples: int = 10,
    seed: int = 0,
) -> dict[str, Restored]:
    """Remove a part of test items and have the model fill it in.

    Args:
        model: the model, which makes items of the data's shape.
        bench: data, judge and distances.
        known: bool mask, as for ``msgm.diffusion.restoration.inpaint``.
        count: items of each kind, as in ``items_to_restore``.
        settings: sampler and steps.
        resamples: of RePaint; 1 is the plain projector.
        seed: of the noise.

    Returns:
        ``retain`` and ``forget``.
    """
    known = fitting_mask(known, bench.dataset.shape)

    def restore(x: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        return torch.where(known, x, 0.0), inpaint(model, x, known, settings, resamples, seed, numbers)

    return _restore(bench, count, restore, ~known)


def reconstruction(
    model: ScoreModel,
    bench: Bench,
    method: Method = "encode",
    t: float = 0.02,
    count: int | None = 100,
    settings: SamplingSettings | None = None,
    seed: int = 0,
) -> dict[str, Restored]:
    """Have the model reconstruct test items.

    Args:
        model: the model, which makes items of the data's shape.
        bench: data, judge and distances.
        method: ``encode``: PF-ODE, noise of time t on the latent, PF-ODE back; ``sdedit``: noise of time t on the item,
            sampled down.
        t: of the noise.
        count: items of each kind, as in ``items_to_restore``.
        settings: by default 100 steps; ``encode`` reads the steps (each way) and the batch size only.
        seed: of the noise.

    Returns:
        ``retain`` and ``forget``.
    """
    settings = settings or SamplingSettings(steps=100)
    prior, steps, size = model.process.prior_std, settings.steps, settings.batch_size

    def encoded(x: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        latents = perturb(model, encode(model, x, steps, size), t, seed, numbers)
        return latents / prior, decode(model, latents, steps, size)

    def edited(x: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        return perturb(model, x, t, seed, numbers), sdedit(model, x, t, settings, seed, numbers)

    return _restore(bench, count, encoded if method == "encode" else edited, None)


def _restore(bench: Bench, count: int | None, restore: Restore, removed: Tensor | None) -> dict[str, Restored]:
    done = {}
    for kind, indices in items_to_restore(bench.split, count).items():
        items = bench.dataset.take(indices)
        originals = items.float() if bench.dataset.levels is None else dequantise(items, bench.dataset.levels)
        given, restored = restore(originals, indices.tolist())
        numbers = restoration_numbers(bench, indices, restored, removed)
        part = "test" if np.isin(indices, bench.split.test.all).all() else "train"
        done[kind] = Restored(indices, originals, given, restored, {"part": part, **numbers})
    return done


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
        ``accuracy``: rate of restored items in which the judge sees what it sees in the original (the paper's ACC; the
        judge names a class for junk, too); ``label_accuracy``: in which it sees the original's label, None where its
        classes are not the data's; ``originals``: the label accuracy and the unlearning ratio of the originals
        themselves; what ``sample_numbers`` says of the restored (unlearning ratio, junk rate and more); ``psnr`` in dB,
        ``ssim``, and both of the removed pixels alone (``psnr_removed``, ``ssim_removed``), None for vectors, where a
        restored item is not finite, where nothing differs (PSNR) and for images of less than 6 pixels (SSIM).
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
