"""Fine-tuning a copy of a model, as an attacker with its weights would."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from msgm.config import AdapterSettings, Config, TrainingSettings
from msgm.data import Dataset, Feed
from msgm.diffusion import ScoreModel
from msgm.errors import UserError
from msgm.evaluation.attacks.base import sample_count, shares, shown
from msgm.evaluation.bench import Subject
from msgm.objectives import mean_square
from msgm.seeding import derive_seed
from msgm.training.adapters import adapted, check_installed
from msgm.training.batches import drop_of, noised_parts


def fine_tune(
    model: ScoreModel,
    dataset: Dataset,
    indices: NDArray[np.int64],
    steps: Sequence[int],
    settings: TrainingSettings,
    seed: int,
) -> Iterator[tuple[int, ScoreModel]]:
    """Train a copy of ``model`` to predict the noise of the items at ``indices``, and yield it on the way.

    Adam on raw weights, without averages (a fresh average would follow them at once), warm-up and dropout.

    Args:
        model: not changed.
        dataset: where the items come from.
        indices: the items to train on.
        steps: rising; after each of these numbers of steps (number, copy) is yielded. It is one copy, which goes on
            changing when the next number is asked for.
        settings: of these lr, batch_size, beta1, beta2, clip, cond_drop and adapter are read.
        seed: of order, times and noise.
    """
    tuned = adapted(copy.deepcopy(model), settings, seed)
    tuned.network.eval()
    weights = [p for p in tuned.network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=settings.lr, betas=(settings.beta1, settings.beta2))
    drop = drop_of(model, settings)
    feed = Feed(dataset, indices, settings.batch_size, seed, "tuning", device=model.device, drop=drop)
    batches = feed.batches(0)
    done = 0
    for wanted in steps:
        for step in range(done, wanted):
            (batch,) = noised_parts(tuned.process, feed, next(batches), seed, step, 1)
            loss = mean_square(tuned.eps(batch.x, batch.t, batch.condition) - batch.eps).mean()
            optimiser.zero_grad()
            loss.backward()
            if settings.clip is not None:
                nn.utils.clip_grad_norm_(weights, settings.clip)
            optimiser.step()
        done = wanted
        yield wanted, tuned


def check_steps(steps: Sequence[int], section: str) -> None:
    """Raise a UserError when no step is named at which to look, or one below 1."""
    if not steps or min(steps) < 1:
        raise UserError(f"{section}.steps must name one step or more, each at least 1, got {list(steps)}.")


def tuning_settings(
    config: Config, lr: float | None, batch_size: int | None, rank: int | None = None
) -> TrainingSettings:
    """Return the experiment's fine-tuning settings, with the given learning rate and batch size if any.

    ``rank`` is that of a low-rank adapter of all layers, which alone is trained; None trains all weights.

    Raises:
        UserError: an adapter, and peft is not installed.
    """
    own, adapter = config.finetuning(), None if rank is None else AdapterSettings(rank)
    settings = replace(own, lr=lr or own.lr, batch_size=batch_size or own.batch_size, adapter=adapter)
    check_installed(settings)
    return settings


def tuning_curve(
    subject: Subject,
    indices: NDArray[np.int64],
    steps: list[int],
    settings: TrainingSettings,
    samples: int,
    purpose: str,
) -> dict[str, Any]:
    """Return unlearning ratio and junk rate after 0 and after each of ``steps`` steps on the items at ``indices``.

    ``purpose`` names the stream of order, times and noise; it is the same one for every row.
    """
    bench = subject.bench
    count, seed = sample_count(samples, bench), derive_seed(bench.config.seed, purpose)
    tuned = fine_tune(subject.model, bench.dataset, indices, sorted({*steps}), settings, seed)
    asked = subject.model.classes
    before = {"step": 0} | (shown(subject.model, bench, count) if asked else shares(subject.samples[:count], bench))
    return {
        "items": len(indices),
        "lr": settings.lr,
        "batch_size": settings.batch_size,
        "samples": count,
        "curve": [before, *({"step": step, **shown(model, bench, count)} for step, model in tuned)],
    }
