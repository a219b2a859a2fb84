"""Which item lies in which shard and slice: a draw by the seed that reads no item."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError
from msgm.seeding import derive_seed


@dataclass(frozen=True)
class Layout:
    """The shards and slices of ``items`` positions; all are used, and sizes differ by one at most.

    Attributes:
        items: how many there are, N.
        shards: S.
        slices: R, of each shard.
        seed: of the draw.

    Raises:
        UserError: fewer than one shard or slice, or fewer items than slices.
    """

    items: int
    shards: int
    slices: int
    seed: int

    def __post_init__(self) -> None:
        for key in ("shards", "slices"):
            if getattr(self, key) < 1:
                raise UserError(f"sisa.{key} must be at least 1, got {getattr(self, key)}.")
        if self.items < self.shards * self.slices:
            raise UserError(
                f"sisa.shards {self.shards} times sisa.slices {self.slices} are more than the {self.items} items."
            )

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """(N, 2) shard and slice of every position, both from 0."""
        order = np.random.default_rng(derive_seed(self.seed, "sisa", "layout")).permutation(self.items)
        places = np.empty((self.items, 2), dtype=np.int64)
        for shard, members in enumerate(np.array_split(order, self.shards)):
            for number, positions in enumerate(np.array_split(members, self.slices)):
                places[positions] = shard, number
        return places

    def slice_positions(self, shard: int, number: int) -> NDArray[np.int64]:
        """Return the sorted positions of one slice."""
        return np.flatnonzero((self.places == (shard, number)).all(1))

    def stage_positions(self, shard: int, number: int) -> NDArray[np.int64]:
        """Return the sorted positions that the stage of a slice trains on: those of this slice and all before."""
        return np.flatnonzero((self.places[:, 0] == shard) & (self.places[:, 1] <= number))
