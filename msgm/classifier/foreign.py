"""Classifiers that were trained elsewhere: their weights under other names, and the items they were trained on."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from msgm.classifier.data import Shares
from msgm.data import Dataset
from msgm.errors import UserError
from msgm.itemlists import lists_names
from msgm.requests import ForgetRequest

WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before the names of weights."""


def unwrapped(state: dict[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Return weights under the names of a network, without what wrappers put before all of them.

    Args:
        state: weights by name.
        names: the network's own, which may begin like a wrapper's.
    """
    while state and state.keys() != set(names):
        prefix = next((p for p in WRAPPERS if all(name.startswith(p) for name in state)), None)
        if prefix is None:
            return state
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def trained_on(path: Path, dataset: Dataset) -> NDArray[np.bool_]:
    """Return an (N,) mask of the items that a model was trained on.

    Args:
        path: a file with one position a line, or one file name a line for data of files; as ``request.file``.
        dataset: the data.

    Raises:
        UserError: as for ``request.file``.
    """
    try:
        mask = dataset.forget_mask(ForgetRequest(file=str(path)))
    except UserError as error:
        raise UserError(str(error).replace("request.file", "original.trained_on")) from error
    found = np.flatnonzero(mask)
    by = "by file name" if dataset.names and lists_names(path) else f"by position, {found[0]} to {found[-1]}"
    print(f"original.trained_on: {path} names {len(found)} of {len(dataset)} items, {by}", flush=True)
    return mask


def parts_around(trained: NDArray[np.bool_], shares: Shares, seed: int) -> dict[str, NDArray[np.int64]]:
    """Return sorted positions of ``train``, ``tuning``, ``nonmembers`` and ``test`` for a model trained elsewhere.

    The items that it was not trained on are held out: they are shared by the seed in the proportions of ``shares``,
    whether the data set publishes some of them as test items or not.

    Args:
        trained: (N,) mask of the items that it was trained on.
        shares: of which ``tuning``, ``nonmembers`` and ``test`` count, in proportion.
        seed: of the draw.

    Raises:
        UserError: fewer than three items are held out.
    """
    rest = np.random.default_rng(seed).permutation(np.flatnonzero(~trained))
    if len(rest) < 3:
        raise UserError(
            f"original.trained_on: {len(rest)} items are left that the model was not trained on; tuning, nonmembers "
            "and test need one each at least."
        )
    weights = np.array([shares.tuning, shares.nonmembers, shares.test])
    counts = np.maximum(1, np.floor(weights / weights.sum() * len(rest)).astype(int))
    cuts = np.cumsum(counts)[:2]
    held = dict(zip(("tuning", "nonmembers", "test"), np.split(rest, cuts), strict=True))
    return {name: np.sort(found) for name, found in ({"train": np.flatnonzero(trained)} | held).items()}
