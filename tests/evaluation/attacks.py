"""What the tests of the attacks share: digits, a judge of seconds, and models of known behaviour."""

import functools

import torch

from msgm.config import Config, JudgeSettings, load_config
from msgm.diffusion import ScoreModel
from msgm.evaluation import Bench, Reality, Subject, train_judge
from msgm.training.run import load_data, new_model

SETTINGS = [
    "request.labels=[3,7]",
    "network.channels=[8]",
    "network.mid_attention=false",
    "sampling.steps=8",
    "evaluation.samples=40",
    "finetune.batch_size=32",
    "finetune.lr=2e-3",
]


def config_of(*overrides: str) -> Config:
    return load_config(None, [*SETTINGS, *overrides])


@functools.cache
def _digits():
    config = config_of()
    dataset, split = load_data(config)
    judge = train_judge(dataset, split, config.request, JudgeSettings(epochs=6, width=8), seed=0)
    return dataset, split, judge, Reality.of(dataset, split)


def bench_of(*overrides: str) -> Bench:
    return Bench(config_of(*overrides), *_digits())


class Empirical(ScoreModel):
    """The exact model of the items in ``bank`` (K, *shape), each blurred by ``width``: it returns nothing else."""

    def __init__(self, process, bank, width=0.02):
        super().__init__(torch.nn.Linear(1, 1), process, tuple(bank.shape[1:]))
        self.bank, self.width = bank.double(), width

    def eps(self, x, t, condition=None):
        signal, noise = self.process.signal(t.double()), self.process.noise(t.double())
        variance = (signal * self.width) ** 2 + noise**2
        points, centres = x.double().flatten(1), self.bank.flatten(1)
        gaps = points[:, None] - signal[:, None, None] * centres
        share = (-0.5 * gaps.square().sum(2) / variance[:, None]).softmax(1)
        pull = (share[:, :, None] * gaps).sum(1)
        return (pull * (noise / variance)[:, None]).view_as(x).to(x.dtype)


def fresh(bench: Bench) -> ScoreModel:
    return new_model(bench.config, bench.dataset)


def subject_of(bench: Bench, model: ScoreModel | None = None, **more) -> Subject:
    return Subject("model", model or fresh(bench), bench, **more)


def tensors(model: ScoreModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
