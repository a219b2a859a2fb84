r"""Stereotypicality obfuscation: before training, drop interactions with items that are typical of the user's class.

With p_i the share of users who have item i and p_ci = (n_ci + a p_i) / (n_c + a) that among class c's users, drawn to
p_i as by a users more, the typicality of item i for class c is

    t_ci = log p_ci - log (mean of p_bi over the other classes b).

A cell with t > 0 is kept with probability exp(-strength t), or its value multiplied by that. With two classes and
strength 1 every item is then as common in one class as in the other, up to the smoothing. Any model is fitted to what
is left. After the idea of obfuscation by stereotypicality (Escobedo et al., "Making Alice Appear Like Bob", RecSys
2024). Deviations: the log-ratio in place of their score; nothing is added to a profile; several attributes add up; and
cells are dropped at random. Dropping the most typical cells of each profile until it is neutral would itself reveal the
class: freshly trained attackers then guess it better than before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.checks import positive
from msgm.errors import UserError
from msgm.ranges import Range, ranges
from msgm.recommender.attributes.labels import UNKNOWN, Labels, encode
from msgm.recommender.sparse import kept, ones, rows_of
from msgm.seeding import derive_seed


@dataclass(frozen=True)
class Obfuscation:
    """How much to obfuscate.

    Attributes:
        strength: factor of the typicality; 1 equalises the classes in this sample, which overshoots the population's
            difference where there are few users, so that attackers learn the opposite relation.
        prior: a, in users.
        way: ``remove`` cells by chance, or ``weigh`` down their values; models that count every cell as 1 do not see
            weights.
        seed: of the draw.
    """

    search: ClassVar[Mapping[str, Range]] = ranges(strength=Range(0.05, 5.0, log=True))

    strength: float = 0.5
    prior: float = 20.0
    way: Literal["remove", "weigh"] = "remove"
    seed: int = 0

    def __post_init__(self) -> None:
        positive(self, "obfuscation", "strength", "prior")

    def apply(self, matrix: csr_array, attributes: Mapping[str, NDArray[np.str_]]) -> csr_array:
        """Return a new (U, I) matrix; profiles of users without a value are unchanged, and no profile becomes empty.

        Raises:
            UserError: no attribute, one with fewer than two values, or of another number of users.
        """
        labels = encode(attributes)
        for each in labels:
            if len(each.codes) != matrix.shape[0]:
                raise UserError(f"attribute {each.name!r} has {len(each.codes)} users; the data {matrix.shape[0]}.")
        rows = rows_of(matrix)
        excess = sum(np.maximum(_of_cells(matrix, rows, each, self.prior), 0) for each in labels)
        share = np.exp(-self.strength * excess)
        if self.way == "weigh":
            values = (share * matrix.data).astype(matrix.data.dtype)
            return csr_array((values, matrix.indices.copy(), matrix.indptr.copy()), matrix.shape)
        chance = np.random.default_rng(derive_seed(self.seed, "obfuscation")).random(matrix.nnz)
        # The cell most likely to stay does: a user without a cell would be lost to the model.
        most = np.lexsort((chance - share, rows))[matrix.indptr[:-1][np.diff(matrix.indptr) > 0]]
        stays = chance < share
        stays[most] = True
        return kept(matrix, stays)


def typicality(matrix: csr_array, labels: Labels, prior: float) -> NDArray[np.float64]:
    """Return (C, I) typicality of every item for every class, in nats; above 0 is more common there than elsewhere.

    It is 0 for items that no user with a known value has.
    """
    seen = ones(matrix)
    indicators = labels.one_hot()
    counts, sizes = (seen.T @ indicators).T, indicators.sum(0)[:, None]
    overall = counts.sum(0) / sizes.sum()
    shares = np.where(overall > 0, (counts + prior * overall) / (sizes + prior), 1)
    others = (shares.sum(0) - shares) / (len(labels.values) - 1)
    return np.asarray(np.log(shares) - np.log(others))


def _of_cells(matrix: csr_array, rows: NDArray[np.int64], labels: Labels, prior: float) -> NDArray[np.float64]:
    """Return the typicality of every stored cell for its user's class; 0 where the class is not known."""
    codes = labels.codes[rows]
    return np.where(codes == UNKNOWN, 0, typicality(matrix, labels, prior)[codes, matrix.indices])
