"""Captions as numbers: a row of positions in a list of prompts for each item, -1 behind them where it has fewer."""

import numpy as np
from numpy.typing import NDArray

from msgm.concepts import Concept

NOTHING = -1


def packed(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return rows with their -1 last and the others in their order; without columns of nothing but -1.

    Example:
        >>> packed(np.array([[-1, 4, 2], [-1, -1, 3]])).tolist()
        [[4, 2], [3, -1]]
    """
    order = np.argsort(rows == NOTHING, axis=1, kind="stable")
    found = np.take_along_axis(rows, order, axis=1)
    return found[:, : max(1, int((found != NOTHING).sum(1).max(initial=0)))]


def drawn(captions: NDArray[np.int64], draws: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return (B,) one of each row's captions, by (B,) numbers in [0, 1); -1 of a row without captions.

    Example:
        >>> drawn(np.array([[4, 2], [3, -1], [3, -1]]), np.array([0.5, 0.0, 0.99], dtype=np.float32)).tolist()
        [2, 3, 3]
    """
    counts = np.maximum((captions != NOTHING).sum(1), 1)
    return np.asarray(captions[np.arange(len(captions)), (draws * counts).astype(np.int64)])


def with_prompts(prompts: list[str], concept: Concept) -> list[str]:
    """Return the prompts with those of a concept that are not among them behind, so that each has a number."""
    asked = [*concept.forget, *concept.keep, concept.anchor]
    return list(dict.fromkeys([*prompts, *(prompt for prompt in asked if prompt.strip())]))


def forget_captions(
    prompts: list[str], captions: NDArray[np.int64], named: list[tuple[int, ...]], concept: Concept
) -> NDArray[np.int64]:
    """Return (N, F) the numbers, in ``with_prompts``, of the prompts to forget that each item's captions mention."""
    table = with_prompts(prompts, concept)
    numbers = np.array([table.index(prompt) for prompt in concept.forget])
    mentioned = np.vstack([concept.mentioned(prompts, named), np.zeros((1, len(numbers)), dtype=bool)])
    return packed(np.where(mentioned[captions].any(1), numbers, NOTHING))
