r"""Rate distortion: a plug-in f(e) that hides class membership by equalising coding rates.

The coding rate of n rows Z of length d at precision eps,

    R(Z) = 1/2 logdet(I + d / (n eps^2) Z'Z),

is about the number of nats needed to code a row. Coding all rows together costs more than coding each class separately,

    Delta = R(Z) - sum_c n_c / n R(Z_c) >= 0,

with equality where, and only where, all classes have the same second moments Z_c'Z_c / n_c (log-determinants are
strictly concave). PAU (WWW 2025) trains a plug-in to lower Delta: to raise the rates within classes and lower the total
rate. Here Z is centred and Delta taken apart, with Z~ the rows less the means of their classes, into

    R(Z) - R(Z~),                              what the class means tell,
    R(Z~) - sum_c n_c / n R(Z~_c),             what the class covariances tell,

neither below 0: in their sum the covariances outweigh the means, which attackers read first. Rows are over their root
mean square. Adam minimises, over the weights of f, all users with a value in every step,

    mean over both parts of |part - b| + weight mean_i |f(e_i) - e_i|_M^2,      f(e) = e + V relu(W e + w) + v,

|.|_M as in ``closeness``; b, the flood level, is what the part is with shuffled labels, by chance alone: pressing it
lower would fit the noise of these very users, which an attacker can read too. V and v start at zero, f as the identity.

f is learned on the users with a value. It is applied to the others too, but may barely hide their class (on ml-100k,
with f learned on half of the users: not at all). LEACE generalises better to unseen users.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msgm.checks import at_least, positive
from msgm.ranges import Range, ranges
from msgm.recommender.attributes.base import ERASURES, Card, Context, PluginErasure
from msgm.recommender.attributes.closeness import Space, closeness
from msgm.recommender.attributes.concept import labelled
from msgm.recommender.attributes.labels import Labels, shuffled
from msgm.recommender.attributes.plugin import Plugin
from msgm.seeding import derive_seed, generator

if TYPE_CHECKING:
    from torch import Tensor

SHUFFLES = 5


@ERASURES.register("rate-distortion")
@dataclass(frozen=True)
class RateDistortion(PluginErasure):
    """A PAU-like plug-in; several attributes add up; users without a value pass through it too.

    Example:
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> erasure = RateDistortion(weight=0.5, steps=10)
        >>> erasure.erase(model.user_factors, {"plan": plans}, Context(model.item_factors)).shape
        (60, 8)

    Attributes:
        weight: of the penalty on the change; smaller erases, and changes, more.
        space: ``function`` penalises changed scores, ``parameter`` changed embeddings.
        precision: eps, in units of the rows' root mean square.
        hidden: width of the plug-in's layer.
        steps: of Adam.
        learning_rate: of Adam.
    """

    weight: float = 1.0
    space: Space = "function"
    precision: float = 0.5
    hidden: int = 128
    steps: int = 300
    learning_rate: float = 3e-3

    search = ranges(weight=Range(0.05, 50.0, log=True))
    card = Card(
        "plug-in f: least |Delta - b| + weight |change|_M^2, Delta = R(f(E)) - sum n_c/n R(f(E_c)) in two parts",
        "PAU, WWW 2025, from its abstract",
        deviations=(
            "the difference of rates is taken apart, so that class means count as much as covariances; the flood "
            "levels are on these parts and are those of shuffled labels; a penalty on changed scores keeps the utility"
        ),
    )

    def __post_init__(self) -> None:
        at_least(1, self, "erasure", "hidden", "steps")
        positive(self, "erasure", "weight", "precision", "learning_rate")

    def _plugin(self, embeddings: NDArray[Any], labels: list[Labels], context: Context) -> Plugin:
        import torch

        known = labelled(labels)
        rows = embeddings[known].astype(np.float64)
        centre, scale = rows.mean(0), float(rows.std()) or 1.0
        unit = torch.from_numpy((rows - centre) / scale).float()
        form = scale**2 * torch.from_numpy(closeness(rows, context.items, self.space)).float()
        groups = [_groups(each, known) for each in labels]
        flood = self._flood(unit, labels, known, context.seed)
        first, bias, second, shift = tables = self._start(unit.shape[1], context.seed)
        optimiser = torch.optim.Adam(tables, lr=self.learning_rate, fused=True)
        for _ in range(self.steps):
            optimiser.zero_grad()
            change = (unit @ first + bias).relu() @ second + shift
            gaps = torch.stack([rate_gaps(unit + change, of, self.precision) for of in groups])
            loss = (gaps - flood).abs().mean() + self.weight * ((change @ form) * change).sum(1).mean()
            loss.backward()
            optimiser.step()
        into, offset, out, move = (table.detach().numpy().astype(np.float64) for table in tables)
        # The map of unit rows, written as one of the rows themselves.
        return Plugin((into / scale, scale * out), (offset - centre @ into / scale, scale * move))

    def _start(self, width: int, seed: int) -> "tuple[Tensor, Tensor, Tensor, Tensor]":
        import torch

        draws = generator(seed, self.name, "tables")
        first = torch.randn(width, self.hidden, generator=draws) * (2 / width) ** 0.5
        zeros = (torch.zeros(size) for size in ((self.hidden,), (self.hidden, width), (width,)))
        bias, second, shift = (table.requires_grad_() for table in zeros)
        return first.requires_grad_(), bias, second, shift

    def _flood(self, unit: "Tensor", labels: list[Labels], known: NDArray[np.bool_], seed: int) -> "Tensor":
        """Return (attributes, 2) mean rate gaps under shuffled labels: the flood levels."""
        import torch

        draws = np.random.default_rng(derive_seed(seed, self.name, "flood"))
        dealt = [[_groups(shuffled(each, draws), known) for _ in range(SHUFFLES)] for each in labels]
        gaps = [[rate_gaps(unit, groups, self.precision) for groups in of] for of in dealt]
        return torch.stack([torch.stack(of).mean(0) for of in gaps])


def _groups(labels: Labels, known: NDArray[np.bool_]) -> "list[Tensor]":
    """Return the users of every class, by their place among the ``known``."""
    import torch

    codes = labels.codes[known]
    return [torch.from_numpy(np.flatnonzero(codes == code)) for code in range(len(labels.values))]


def rate_gaps(rows: "Tensor", groups: "list[Tensor]", precision: float) -> "Tensor":
    """Return (2,) rate gaps of the class means and of the class covariances, in nats, at least 0.

    Args:
        rows: (n, d); those in no group are left out.
        groups: the places of every class's rows.
        precision: eps, in units of the rows' root mean square.
    """
    import torch

    taken = rows[torch.cat(groups)]
    taken = taken - taken.mean(0)
    taken = taken / taken.square().mean().sqrt().clamp_min(1e-12)
    parts = [part - part.mean(0) for part in taken.split([len(group) for group in groups])]
    within = coding_rate(torch.cat(parts), precision)
    of_classes = sum(len(part) / len(taken) * coding_rate(part, precision) for part in parts)
    return torch.stack([coding_rate(taken, precision) - within, within - of_classes])


def coding_rate(rows: "Tensor", precision: float) -> "Tensor":
    """Return R in nats, from 0 on, of (n, d) rows."""
    import torch

    n, d = rows.shape
    return torch.logdet(torch.eye(d) + d / (n * precision**2) * rows.T @ rows) / 2
