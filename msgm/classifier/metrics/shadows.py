"""Shadow models that metrics train, cached as logits: each is trained once, and an interrupted run resumes."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msgm.classifier.metrics.base import Live
from msgm.classifier.outputs import Outputs, load_outputs
from msgm.seeding import derive_seed

if TYPE_CHECKING:
    from torch import nn

    from msgm.classifier.data import Split
    from msgm.classifier.methods.base import Method


def trained_then_unlearned(live: Live, method: "Method", split: "Split", seed: int) -> "nn.Module":
    """Return a model trained on ``split.train`` from weights of ``seed`` and then unlearned by the method."""
    from msgm.classifier.training import fit

    settings = replace(live.settings, seed=derive_seed(seed, "unlearn"), original_seed=seed)
    model = fit(settings.fresh(live.original, seed), split.train, settings.training, seed, settings.device)
    return method.unlearn(model, split, settings).model


def retrained(live: Live, seed: int) -> "nn.Module":
    """Return a model trained on the retain items alone, from weights of ``seed``."""
    from msgm.classifier.training import fit

    settings = live.settings
    return fit(settings.fresh(live.original, seed), live.split.retain, settings.training, seed, settings.device)


def cached(folder: str, live: Live, part: tuple[str, ...], make: "Callable[[], nn.Module]") -> Outputs:
    """Return the outputs on ``live.split`` of what ``make`` returns, or those of the file that an earlier call left.

    The file's name hashes ``part`` with the training's settings, the network, the data and the request, so that a
    changed experiment never reads another one's models. Without a folder nothing is kept.
    """
    from msgm.classifier.measuring import outputs_of

    if not folder:
        return outputs_of(make(), live.split, live.settings.device)
    path = Path(folder) / f"{part[0]}-{_key(live, part)}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        outputs_of(make(), live.split, live.settings.device).save(path)
    return load_outputs(path)


def _key(live: Live, part: tuple[str, ...]) -> str:
    digest = blake2b(digest_size=12)
    settings = (live.settings.training, live.settings.seed, str(live.original), live.split.retain.dataset.digest())
    for text in (*part, *map(repr, settings)):
        digest.update(text.encode() + b"\0")
    for name, examples in live.split.parts().items():
        digest.update(
            name.encode() + np.ascontiguousarray(examples.indices).tobytes() + examples.labels.numpy().tobytes()
        )
    return digest.hexdigest()
