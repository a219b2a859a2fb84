"""P(forget | x_t) by a classifier of real noised items: trained once a comparison, and kept beside its references."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.data import Dataset
from msgm.diffusion.guidance.posterior import Posterior, trained_posterior
from msgm.digests import short_digest
from msgm.evaluation.attacks.levels import clean_items
from msgm.evaluation.bench import Bench
from msgm.evaluation.reference import kept_arrays
from msgm.reading import Arrays

ITEMS = 16384
"""Items of each part that the classifier is trained on, at most: evenly over the part."""
WIDTH = 256
"""Its hidden units."""


def real_posterior(bench: Bench, steps: int, device: torch.device) -> Posterior:
    """Return the posterior by a classifier of the real training items; the same for every row and seed.

    Args:
        bench: whose training items and folder are used.
        steps: of its training, at most.
        device: where it is to be used.
    """
    train = bench.split.train
    share = len(train.forget) / (len(train.forget) + len(train.retain))

    def made() -> Arrays:
        parts = [_items(bench.dataset, part, device) for part in (train.forget, train.retain)]
        found = trained_posterior(parts[0], parts[1], share, steps, WIDTH)
        tensors = {name: tensor.cpu().numpy() for name, tensor in found.state().items()}
        return tensors | {"loss": np.array(found.loss)}

    asked = short_digest([bench.dataset.digest().encode(), train.forget.tobytes(), train.retain.tobytes()])
    arrays = kept_arrays(bench, f"noisy-classifier-{steps}x{WIDTH}-{asked}", made)
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return Posterior.of(state, float(arrays["loss"])).to(device)


def _items(dataset: Dataset, indices: NDArray[np.int64], device: torch.device) -> Tensor:
    chosen = np.linspace(0, len(indices) - 1, min(ITEMS, len(indices))).round().astype(np.int64)
    return clean_items(dataset, indices[chosen], device)
