"""Moments of gradients, compared with those of a linear model, whose gradients are known."""

import pytest
import torch
from torch import nn

from msgm.diffusion import VP, ScoreModel
from msgm.objectives import moments
from msgm.seeding import generator

ITEMS = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
LEVELS = 4


class Linear(nn.Module):
    """Puts out w * x, element by element, for which d loss / d w = 2 (w x - eps) x / D."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, -0.2, 0.9]))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x, label):
        return self.dropout(self.weight * x)


def model():
    return ScoreModel(Linear(), VP(), (3,))


def gradients():
    """The gradient of each item's mean loss, computed by hand."""
    found, process, weight = [], VP(), model().network.weight.detach()
    for place, item in enumerate(ITEMS):
        draws = generator(0, "moments", place)
        t = process.training_times((torch.arange(LEVELS) + torch.rand(LEVELS, generator=draws)) / LEVELS)
        eps = torch.randn(LEVELS, 3, generator=draws)
        x = process.signal(t)[:, None] * item + process.noise(t)[:, None] * eps
        found.append((2 * (weight * x - eps) * x / 3).mean(0))
    return torch.stack(found)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_moments_are_those_of_the_gradients_of_items_or_batches(batch):
    made = moments(model(), ITEMS, LEVELS, batch)
    expected = torch.stack([group.mean(0) for group in gradients().split(batch)])
    torch.testing.assert_close(made.mean["weight"], expected.mean(0))
    torch.testing.assert_close(made.square["weight"], expected.square().mean(0))
    assert made.count == len(expected)


def test_the_fisher_of_batches_is_smaller_than_that_of_items():
    assert (
        moments(model(), ITEMS, LEVELS, 5).square["weight"] < moments(model(), ITEMS, LEVELS).square["weight"]
    ).all()


def test_the_pass_leaves_the_network_as_it_was():
    made = model()
    made.network.train().weight.requires_grad_(False)
    first, second = moments(made, ITEMS, LEVELS), moments(made, ITEMS, LEVELS)
    assert torch.equal(first.square["weight"], second.square["weight"])  # dropout is off
    assert made.network.training
    assert not made.network.weight.requires_grad
    assert made.network.weight.grad is None
