"""Small models and data on which edits have closed forms."""

import copy
from dataclasses import dataclass, field

import torch
from torch import nn

from msgm.diffusion import VP, ScoreModel
from msgm.objectives import Drawn, mean_square
from msgm.objectives.edits import EditSetup
from msgm.objectives.edits.base import Noisings

DIMS, FEATURES = 3, 7
FORGET_SHARE = 0.3


class Head(nn.Module):
    """Puts out a linear layer of fixed random features of (x, label)."""

    def __init__(self, dims=DIMS, features=FEATURES):
        super().__init__()
        draws = torch.Generator().manual_seed(3)
        self.register_buffer("mix", torch.randn(dims + 1, features, generator=draws))
        self.leave = nn.Linear(features, dims)
        with torch.no_grad():
            self.leave.weight.copy_(torch.randn(dims, features, generator=draws))
            self.leave.bias.copy_(torch.randn(dims, generator=draws))

    def features(self, x, label):
        return torch.tanh(torch.cat([x, label[:, None].to(x.dtype) / 1000], 1) @ self.mix)

    def forward(self, x, label):
        return self.leave(self.features(x, label))


class AskedHead(Head):
    """The same, of features that depend on the class too."""

    classes = 2

    def forward(self, x, label, condition=None):
        asked = 0 if condition is None else condition.labels[:, None].to(x.dtype)
        return self.leave(self.features(x + asked, label))


def linear_model(head=Head, **parts):
    """A score model whose prediction is linear in its weights, in double precision."""
    return ScoreModel(head().double(), VP(), (DIMS,), **parts)


def items_of(part, count):
    """Items of two clouds."""
    draws = torch.Generator().manual_seed({"retain": 1, "forget": 2}[part])
    centre = {"retain": -0.5, "forget": 0.8}[part]
    return Drawn((centre + 0.4 * torch.randn(count, DIMS, generator=draws)).double())


def labelled(part, count):
    """Items of two clouds, with labels: classes 0 and 1, and none."""
    return Drawn(items_of(part, count).items, torch.arange(count) % 3 - 1)


@dataclass
class World:
    """What an edit is given, for a model; ``tuned`` counts the steps that were asked for."""

    model: ScoreModel
    lr: float = 0.1
    items: object = items_of
    asked: list = field(default_factory=list)

    def tune(self, steps):
        """Full-batch gradient descent on the forget loss."""
        self.asked.append(steps)
        tuned = copy.deepcopy(self.model)
        descend(tuned, self.batches("forget"), steps, -self.lr)
        return tuned

    def batches(self, part, count=16, levels=2):
        return Noisings(self.model.process, self.items(part, count), levels, seed=5)

    @property
    def setup(self):
        return EditSetup(
            model=lambda: copy.deepcopy(self.model),
            retain=lambda count: self.items("retain", count).items,
            tune_on_forget=self.tune,
            items=self.items,
            forget_share=FORGET_SHARE,
            seed=5,
        )


def loss(model, batches):
    return torch.cat(
        [mean_square(model.eps(batch.x, batch.t, batch.condition) - batch.eps) for batch in batches]
    ).mean()


def descend(model, batches, steps, rate):
    """Move the weights by ``rate`` times the gradient of the loss, so many times: a positive rate ascends."""
    weights = list(model.network.parameters())
    for _ in range(steps):
        for weight, gradient in zip(weights, torch.autograd.grad(loss(model, batches), weights), strict=True):
            weight.data += rate * gradient


def vector(model):
    return torch.cat([weight.detach().flatten() for weight in model.network.parameters()])
