"""One classifier made of the shards' models."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from msgm.errors import UserError

Aggregation = Literal["mean", "proportional", "vote"]
TIE_WEIGHT = 1e-3


class Ensemble(nn.Module):
    """The shards' models as one; its logits are logarithms of probabilities.

    - ``mean``: of the softmax outputs of all shards.
    - ``proportional``: the same, weighted by the numbers of items left in the shards.
    - ``vote``: shares of shards whose largest logit is the class, and ``TIE_WEIGHT`` of the mean softmax: enough to
      break ties, the surer shards winning, and to keep logarithms finite, too little to outweigh a vote below 999
      shards. A model's own ties go to its lowest class.

    Shards without items are ignored.
    """

    weights: Tensor

    def __init__(self, models: Sequence[nn.Module], sizes: Sequence[int], aggregation: Aggregation) -> None:
        """Put the models together.

        Args:
            models: one a shard, in eval mode.
            sizes: items left in each shard; not all zero.
            aggregation: how they predict together.

        Raises:
            UserError: an unknown way of aggregation, or more shards than a vote's tie rule bears.
        """
        super().__init__()
        if aggregation not in ("mean", "proportional", "vote"):
            raise UserError(f"sisa.aggregation must be mean, proportional or vote, got {aggregation!r}.")
        if aggregation == "vote" and len(models) * TIE_WEIGHT >= 1 - TIE_WEIGHT:
            raise UserError(
                f"sisa.aggregation vote takes fewer than {1 / TIE_WEIGHT - 1:.0f} shards, got {len(models)}."
            )
        left = torch.tensor(sizes, dtype=torch.float32)
        shares = left if aggregation == "proportional" else (left > 0).float()
        self.models = nn.ModuleList(models)
        self.aggregation = aggregation
        self.register_buffer("weights", shares / shares.sum())

    def forward(self, x: Tensor) -> Tensor:
        log_p = torch.stack([model(x).float().log_softmax(1) for model in self.models])
        weights = self.weights.view(-1, 1, 1)
        mean = torch.logsumexp(log_p + weights.log(), 0)
        if self.aggregation != "vote":
            return mean
        largest = log_p == log_p.amax(2, keepdim=True)
        ballots = largest / largest.sum(2, keepdim=True)  # A shard's tied classes share its vote.
        votes = (weights * ballots).sum(0)
        return torch.logaddexp(torch.log((1 - TIE_WEIGHT) * votes), mean + math.log(TIE_WEIGHT))
