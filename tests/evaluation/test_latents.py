"""Samples of a model of latents are decoded before any judge sees them."""

import torch
from torch import nn

from msgm.diffusion import VP, ScoreModel, sample
from msgm.diffusion.networks import Network
from msgm.evaluation import Subject
from msgm.evaluation.attacks.base import shown
from msgm.evaluation.bench import decoded
from tests.evaluation.canvases import canvas_bench


class Latent(Network):
    """A network of (1, 4, 8) latents, whose images are twice as large and of the other sign."""

    name = "latent"

    def __init__(self):
        super().__init__()
        self.weight, self.sizes = nn.Parameter(torch.tensor(0.5)), []

    def forward(self, x, label, condition=None):
        return self.weight * x

    def decode(self, items):
        self.sizes.append(len(items))
        return -items.repeat_interleave(2, 2).repeat_interleave(2, 3)


def subject():
    return Subject("latent", ScoreModel(Latent(), VP(), (1, 4, 8)), canvas_bench("sampling.batch_size=25"))


def test_samples_are_the_images_of_latents():
    made = subject()
    latents = sample(made.model, 60, made.bench.config.sampling, made.bench.config.seed)
    assert made.items.shape == (60, 1, 8, 16)
    assert torch.equal(made.samples[:, :, ::2, ::2], -latents)
    assert made.model.network.sizes == [25, 25, 10]


def test_an_attacked_copy_is_judged_by_its_images():
    made = subject()
    assert shown(made.model, made.bench, 10)["junk_rate"]["n"] == 10
    assert made.model.network.sizes == [10]


def test_other_samples_stay_as_they_are():
    items = torch.randn(3, 1, 8, 8)
    assert torch.equal(decoded(ScoreModel.new("unet", "vp", channels=[8]), items, 2), items)
