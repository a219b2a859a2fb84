"""Conditions: what a model is asked for, one row an item; None is the null condition of every row."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msgm.errors import UserError
from msgm.ids import shown

NULL = -1
"""The label of a row without a condition."""


@dataclass(frozen=True)
class Condition:
    """What each item of a batch is asked to be: class labels, or embeddings of a text say.

    A row of no condition, the **null** condition, has label -1, or an embedding whose mask is False throughout. Where
    a condition is optional, None stands for the null condition of every row; an unconditional model knows no other.

    Example:
        >>> from msgm.diffusion import Condition
        >>> asked = Condition(torch.tensor([3, 7, 3]))
        >>> asked[1:].labels
        tensor([7, 3])
        >>> asked.dropped(torch.tensor([True, False, False])).labels
        tensor([-1,  7,  3])

    Attributes:
        labels: (B,) class numbers, long; -1 is the null condition.
        embedding: (B, L, E) instead of labels.
        mask: (B, L) bool, with an embedding: which of its L places hold what is asked for.
        pooled: (B, P), with an embedding: one vector of the whole text, for networks that read it too.
    """

    labels: Tensor | None = None
    embedding: Tensor | None = None
    mask: Tensor | None = None
    pooled: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.labels is None) == (self.embedding is None):
            raise UserError("condition: give labels or an embedding, one of the two.")
        if self.labels is not None and (self.labels.dim() != 1 or self.labels.dtype != torch.long):
            kind = f"{tuple(self.labels.shape)} of {self.labels.dtype}"
            raise UserError(f"condition.labels: expected (B,) long integers, got {kind}.")
        if self.embedding is None:
            return
        if self.pooled is not None and len(self.pooled) != len(self.embedding):
            raise UserError(f"condition.pooled: expected {len(self.embedding)} rows, got {len(self.pooled)}.")
        if self.embedding.dim() != 3:
            raise UserError(f"condition.embedding: expected (B, L, E), got {tuple(self.embedding.shape)}.")
        if self.mask is None:
            whole = torch.ones(self.embedding.shape[:2], dtype=torch.bool, device=self.embedding.device)
            object.__setattr__(self, "mask", whole)
        elif self.mask.shape != self.embedding.shape[:2] or self.mask.dtype != torch.bool:
            kind = f"{tuple(self.mask.shape)} of {self.mask.dtype}"
            raise UserError(f"condition.mask: expected {tuple(self.embedding.shape[:2])} bool, got {kind}.")

    def __len__(self) -> int:
        return len(self._parts[0])

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> "Condition":
        """Return the condition of some rows."""
        return self._by_part(*(part[rows] for part in self._parts))

    @property
    def _parts(self) -> tuple[Tensor, ...]:
        """The labels, or the embedding, its mask and, where there is one, the pooled vector."""
        if self.labels is not None:
            return (self.labels,)
        assert self.embedding is not None
        assert self.mask is not None
        return (self.embedding, self.mask) if self.pooled is None else (self.embedding, self.mask, self.pooled)

    def _by_part(self, *parts: Tensor) -> "Condition":
        return Condition(*parts) if self.labels is not None else Condition(None, *parts)

    @property
    def null(self) -> Tensor:
        """(B,) bool: the rows of no condition."""
        return self.labels < 0 if self.labels is not None else ~self._parts[1].any(1)

    def dropped(self, rows: Tensor) -> "Condition":
        """Return the condition with the null condition at the rows where ``rows`` (B,) is True."""
        if self.labels is not None:
            return Condition(self.labels.masked_fill(rows, NULL))
        embedding, mask, *pooled = self._parts
        return Condition(None, embedding, mask & ~rows[:, None], *pooled)

    def to(self, device: torch.device | str) -> "Condition":
        """Return the condition on a device."""
        return self._by_part(*(part.to(device) for part in self._parts))

    @staticmethod
    def of(asked: "Asked", count: int) -> "Condition | None":
        """Return the condition of ``count`` items: one label for all of them, a label for each, or a condition.

        Example:
            >>> from msgm.diffusion import Condition
            >>> Condition.of(3, 2).labels, Condition.of([1, 2], 2).labels
            (tensor([3, 3]), tensor([1, 2]))

        Raises:
            UserError: another number of rows, or a label that is no whole number.
        """
        if asked is None:
            return None
        found = asked if isinstance(asked, Condition) else Condition(_whole(asked, count))
        if len(found) != count:
            raise UserError(f"condition: {len(found)} rows for {count} items.")
        return found

    @staticmethod
    def cat(parts: "Sequence[Condition | None]", sizes: Sequence[int]) -> "Condition | None":
        """Return one condition of several batches, of which ``sizes`` are the numbers of items.

        Example:
            >>> from msgm.diffusion import Condition
            >>> Condition.cat([Condition(torch.tensor([3, 7])), None], [2, 1]).labels
            tensor([ 3,  7, -1])

        Raises:
            UserError: some have labels and others embeddings.
        """
        given = [part for part in parts if part is not None]
        if not given:
            return None
        if len({part.labels is None for part in given}) == 2:
            raise UserError("condition: labels and embeddings do not go into one batch.")
        whole = [given[0].nothing(n) if part is None else part for part, n in zip(parts, sizes, strict=True)]
        return given[0]._by_part(*(torch.cat(same) for same in zip(*(part._parts for part in whole), strict=True)))

    def nothing(self, count: int) -> "Condition":
        """Return the null condition of ``count`` rows, of the same kind."""
        if self.labels is not None:
            return Condition(self.labels.new_full((count,), NULL))
        return Condition(None, *(part.new_zeros(count, *part.shape[1:]) for part in self._parts))


def _whole(asked: "int | Sequence[int] | Sequence[str] | str | Tensor", count: int) -> Tensor:
    """Return labels as long integers, one label as that of ``count`` items."""
    try:
        labels = torch.as_tensor(asked)
    except (TypeError, ValueError) as error:
        raise UserError(f"condition: expected whole numbers as labels, got {shown(asked)}.") from error
    if labels.is_floating_point() and bool((labels.frac() != 0).any()):
        raise UserError(f"condition: expected whole numbers as labels, got {labels.tolist()}.")
    return labels.long() if labels.dim() else labels.long().expand(count)


Asked = Condition | int | Sequence[int] | Tensor | str | Sequence[str] | None
"""What a caller may ask for: a condition, a label or a prompt for all items or for each, or nothing."""


def texts_of(asked: Asked) -> list[str] | None:
    """Return the prompts that are asked for; None where they are no texts."""
    if isinstance(asked, str):
        return [asked]
    if isinstance(asked, list | tuple) and asked and all(isinstance(one, str) for one in asked):
        return list(asked)
    return None
