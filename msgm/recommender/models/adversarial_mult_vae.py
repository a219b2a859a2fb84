r"""Adversarial MultVAE: an adversary guesses users' attributes from their codes, and the encoder learns to fool it.

With z the code of user u, G_lambda the gradient reversal (the identity forwards; backwards it multiplies by -lambda)
and y the user's value,

    loss_u = loss_u of MultVAE + sum over attributes, mean over heads of w_y CE(head(drop(G_lambda(z))), y),

so that one step of one optimiser lowers the adversary's loss in the heads and raises it, lambda times, in the encoder
(Ganin and Lempitsky, ICML 2015; Ganhor et al., "Unlearning protected user attributes in recommendations with
adversarial training", SIGIR 2022: Adv-MultVAE). A head is a hidden tanh layer and a linear one. Deviations: classes
weigh alike, w_y = n / (C n_y), where the source oversamples for the attacker only; three heads, not ten; no early stop
on the adversary's accuracy; the heads' dropout is a setting; and lambda is 0 in steps where the heads do no better than
chance, CE >= log C, as the encoder would otherwise learn to mark the classes with reversed labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from msgm.checks import at_least, below_one
from msgm.errors import UserError
from msgm.recommender.attributes.labels import UNKNOWN, Labels, encode
from msgm.recommender.models.base import MODELS
from msgm.recommender.models.mult_vae import MultVAE
from msgm.recommender.requests import Deletion
from msgm.seeding import generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LABELS = "labels."


@MODELS.register("adversarial-mult-vae")
@dataclass
class AdversarialMultVAE(MultVAE):
    """MultVAE that hides attributes: ``model.hiding(attributes).fit(matrix)``.

    Users without a value take part in the MultVAE's loss alone. The class numbers of users are saved with the model, as
    a fit after a request needs them; those of a forgotten user are wiped. ``losses`` of single cells, for methods that
    work with gradients, are the MultVAE's, without the adversary.

    Example:
        >>> model = msgm.recommender.AdversarialMultVAE(epochs=2).hiding({"plan": plans}).fit(matrix)
        >>> ids, scores = model.recommend(0, N=5)
        >>> answer = model.forget(users=[3])

    Attributes:
        reversal: lambda, what the reversed gradient is multiplied by.
        heads: adversaries of an attribute, side by side.
        head_hidden: width of their layer.
        head_dropout: share of z that they do not see, [0, 1).
    """

    reversal: float = 10.0
    heads: int = 3
    head_hidden: int = 50
    head_dropout: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "model", "reversal")
        at_least(1, self, "model", "heads", "head_hidden")
        below_one(self, "model", "head_dropout")
        self.labels: list[Labels] = []

    def hiding(self, attributes: Mapping[str, NDArray[np.str_]]) -> Self:
        """Set the attributes that the next fits hide: name to (U,) text, empty where it is not known; return self.

        Raises:
            UserError: no attribute, or one with fewer than two values.
        """
        self.labels = encode(dict(sorted(attributes.items())))
        return self

    def _fit(self) -> None:
        if not self.labels:
            raise UserError(f"{self.name} needs attributes to hide; give them by hiding(attributes) before fit.")
        for each in self.labels:
            if len(each.codes) != self.seen.shape[0]:
                raise UserError(f"attribute {each.name!r} has {len(each.codes)} users; the data {self.seen.shape[0]}.")
        super()._fit()

    def initial_tables(self) -> "dict[str, Tensor]":
        """Return the MultVAE's tables and, as ``NAME.hidden`` and ``NAME.out``, the heads of every attribute."""
        import torch

        tables = super().initial_tables()
        draws = generator(self.seed, self.name, "heads")
        for each in self.labels:
            sizes = {"hidden": (self.latent, self.head_hidden), "out": (self.head_hidden, len(each.values))}
            for layer, (wide, high) in sizes.items():
                drawn = torch.randn(self.heads, wide, high, generator=draws)
                tables[f"head.{each.name}.{layer}.weight"] = (2 / (wide + high)) ** 0.5 * drawn
                tables[f"head.{each.name}.{layer}.bias"] = torch.zeros(self.heads, 1, high)
        return tables

    def user_losses(
        self, tables: "Mapping[str, Tensor]", users: NDArray[np.int64], draws: "torch.Generator", beta: float
    ) -> "Tensor":
        rows = self.rows(users)
        latent, logs, divergence = self.sample(tables, rows, draws)
        guesses = [self._fooling_losses(tables, latent, each, users, draws) for each in self.labels]
        return beta * divergence - (rows * logs).sum(1) + sum(guesses)

    def _fooling_losses(
        self,
        tables: "Mapping[str, Tensor]",
        latent: "Tensor",
        labels: Labels,
        users: NDArray[np.int64],
        draws: "torch.Generator",
    ) -> "Tensor":
        """Return (n,) losses of the heads, with the gradient reversed while they guess better than blindly."""
        import torch

        with torch.no_grad():
            blind = self._guess_losses(tables, latent, labels, users, draws).mean() >= np.log(len(labels.values))
        return self._guess_losses(tables, reverse(latent, 0.0 if blind else self.reversal), labels, users, draws)

    def _guess_losses(
        self,
        tables: "Mapping[str, Tensor]",
        seen: "Tensor",
        labels: Labels,
        users: NDArray[np.int64],
        draws: "torch.Generator",
    ) -> "Tensor":
        """Return (n,) weighted cross-entropies, the mean over heads; 0 for users without a value."""
        import torch

        kept = torch.rand((self.heads, *seen.shape), generator=draws) >= self.head_dropout
        hidden = torch.tanh(_layer(tables, f"head.{labels.name}.hidden", seen * kept / (1 - self.head_dropout)))
        logs = _layer(tables, f"head.{labels.name}.out", hidden).log_softmax(2).mean(0)
        codes = labels.codes[users]
        sizes = np.bincount(labels.codes[labels.known], minlength=len(labels.values))
        weights = np.where(codes == UNKNOWN, 0, sizes.sum() / (len(sizes) * np.maximum(sizes, 1))[codes])
        picked = logs.gather(1, torch.from_numpy(np.maximum(codes, 0))[:, None])[:, 0]
        return -torch.from_numpy(weights).float() * picked

    def mark(self, deletion: Deletion) -> None:
        super().mark(deletion)
        for each in self.labels:
            each.codes[deletion.users] = UNKNOWN

    def arrays(self) -> dict[str, NDArray[Any]]:
        return super().arrays() | {LABELS + each.name: each.codes for each in self.labels}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().restore(arrays)
        self.labels = []
        for name, codes in sorted(arrays.items()):
            if name.startswith(LABELS):
                attribute = name.removeprefix(LABELS)
                width = self.tables[f"head.{attribute}.out.bias"].shape[2]
                self.labels.append(Labels(attribute, tuple(map(str, range(width))), np.array(codes)))


def _layer(tables: "Mapping[str, Tensor]", name: str, rows: "Tensor") -> "Tensor":
    return rows @ tables[f"{name}.weight"] + tables[f"{name}.bias"]


def reverse(rows: "Tensor", strength: float) -> "Tensor":
    """Return ``rows`` as they are, whose gradient is multiplied by -``strength``."""
    # The bracket is zero forwards and gives rows' own gradient, times -(1 + strength), backwards.
    return rows - (1 + strength) * (rows - rows.detach())
