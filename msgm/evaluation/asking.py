"""What a class-conditional model is asked for while it is measured; an unconditional one is asked for nothing.

- Real items (likelihood, membership, partial noise, restoration): every item is asked for under its own class.
- Samples of a model are asked for nothing, the null condition; the metric ``conditions`` asks for every class in turn.
- Samples of an attacked copy are asked for the classes of the items to forget in turn, as an attacker would ask.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import Condition, ScoreModel
from msgm.diffusion.conditions import NULL
from msgm.splits import Split

PROTOCOL = (
    "the model is class-conditional: samples are asked for no class but where it is said; likelihoods, losses and "
    "restorations of real items are asked for under the item's own class; samples of attacked copies are asked for the "
    "classes of the items to forget in turn"
)


def is_conditional(config: Config) -> bool:
    """Return whether the models of an experiment can be asked for classes."""
    return bool(config.network.get("classes", 0))


def own(model: ScoreModel, dataset: Dataset, indices: NDArray[np.int64]) -> Condition | None:
    """Return what the items at ``indices`` are asked for, on the model's device; None for an unconditional model."""
    labels = dataset.conditions
    if not model.classes or labels is None:
        return None
    return Condition(torch.from_numpy(labels[indices])).to(model.device)


def in_turn(model: ScoreModel, labels: Sequence[int], count: int) -> Condition | None:
    """Return the condition of ``count`` samples that ask for ``labels`` in turn; None for an unconditional model."""
    if not model.classes or not labels:
        return None
    return Condition(torch.as_tensor(labels)[torch.arange(count) % len(labels)])


def known_classes(model: ScoreModel, dataset: Dataset) -> range:
    """Return the classes of the data, or their prompts, that a conditional model can be asked for.

    A network of another make may have one more, a null class that its files do not tell.
    """
    if dataset.prompts:
        return range(min(model.classes, len(dataset.prompts)))
    if dataset.labels is None:
        return range(model.classes)
    return range(min(model.classes, len(dataset.classes or range(int(dataset.labels.max()) + 1))))


def nothing(model: ScoreModel, dataset: Dataset, count: int) -> Condition | None:
    """Return the condition of ``count`` samples that are asked for no class.

    That is None, the null condition; a model that knows none is asked for every class of the data in turn.
    """
    knows_null = getattr(model.network, "has_null", True)
    return None if knows_null else in_turn(model, known_classes(model, dataset), count)


def classes_of(dataset: Dataset, indices: NDArray[np.int64]) -> list[int]:
    """Return the classes of the items at ``indices``, or the numbers of their first captions, in order."""
    labels = dataset.conditions
    return [] if labels is None else [label for label in np.unique(labels[indices]).tolist() if label != NULL]


def forgotten(dataset: Dataset, split: Split, indices: NDArray[np.int64]) -> list[int]:
    """Return the classes of the items at ``indices`` that no training item to retain has, in order."""
    kept = classes_of(dataset, split.train.retain)
    return [label for label in classes_of(dataset, indices) if label not in kept]
