"""A small classifier, trained on the run's own data."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msgm.config import JudgeSettings
from msgm.data import Feed, dequantise
from msgm.digests import short_digest
from msgm.evaluation.judge import (
    JUDGES,
    Judge,
    JudgeKind,
    Task,
    assess,
    recall_assessment,
    write_assessment,
)
from msgm.folders import write_bytes
from msgm.reading import read_tensors
from msgm.seeding import derive_seed, generator


@dataclass
class OwnJudge(Judge):
    """The judge trained here.

    Attributes:
        network: maps (B, *shape) items in [-1, 1] to (B, classes) logits; its last layer is linear.
    """

    network: nn.Sequential

    @property
    def kind(self) -> str:
        return "small classifier trained on this data"

    @property
    def digest(self) -> str:
        return short_digest(value.cpu().numpy().tobytes() for value in self.network.state_dict().values())

    @torch.no_grad()
    def outputs(self, items: Tensor) -> tuple[Tensor, Tensor]:
        self.network.eval()
        seen = _visible(items.to(next(self.network.parameters()).device), self.levels)
        features = self.network[:-1](seen)
        return features, self.network[-1](features)


@JUDGES.register("own")
@dataclass(frozen=True)
class Own(JudgeKind):
    """A convolutional network for images, an MLP for vectors; ``evaluation.judge`` says how it is trained.

    Example:
        >>> bench = subject.bench
        >>> asked = Task.of(bench.dataset, bench.split, bench.config.request)
        >>> judge = Own().make(asked, JudgeSettings(epochs=1, width=8), seed=0, folder=None, device="cpu")
        judge: training
        >>> judge.votes(subject.items).shape, judge.forgotten
        (torch.Size([20, 10]), [3, 7])
    """

    def make(
        self, task: Task, settings: JudgeSettings, seed: int, folder: Path | None, device: torch.device | str
    ) -> OwnJudge:
        training = {key: getattr(settings, key) for key in ("epochs", "width", "lr", "batch_size")}
        key = {**task.key(), "seed": seed, **training}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "judge"))
            network = _network(task.dataset.shape, len(task.classes), settings.width).to(device)
        judge = OwnJudge(task.classes, task.forgotten, task.dataset.levels, network)
        if recall_assessment(judge, folder, key):
            print("judge: already trained", flush=True)
            return _load(judge, folder)
        print("judge: training", flush=True)
        _fit(network, task, settings, seed, device)
        assess(judge, task)
        _save(judge, folder)
        write_assessment(judge, folder, key)
        return judge


def _save(judge: OwnJudge, folder: Path | None) -> None:
    from safetensors.torch import save

    if folder is not None:
        write_bytes(folder / "judge.safetensors", save(judge.network.state_dict()))


def _load(judge: OwnJudge, folder: Path | None) -> OwnJudge:
    if folder is not None:
        weights = read_tensors(folder / "judge.safetensors", judge.network.state_dict())
        judge.network.load_state_dict(weights)
    return judge


def _fit(network: nn.Module, task: Task, settings: JudgeSettings, seed: int, device: torch.device | str) -> None:
    train, levels = task.items("train"), task.dataset.levels
    feed = Feed(task.dataset, train, settings.batch_size, seed, "judge", device=device)
    steps = max(1, settings.epochs * len(train) // settings.batch_size)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.lr, total_steps=steps)
    draws = generator(seed, "judge-noise", device=device)
    answers = torch.from_numpy(task.targets)
    network.train()
    for step, (raw, _) in zip(range(steps), feed.batches(0), strict=False):
        u = torch.rand(raw.shape, generator=draws, device=raw.device)
        loss = F.cross_entropy(network(_visible(raw, levels, u)), answers[feed.indices(step)].to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval()


def _visible(raw: Tensor, levels: int | None, u: Tensor | float = 0.5) -> Tensor:
    return raw.float() if levels is None else dequantise(raw, levels, u)


def _network(shape: tuple[int, ...], classes: int, width: int) -> nn.Sequential:
    """Return a three-layer convolutional network for images, an MLP for vectors."""
    if len(shape) == 1:
        return nn.Sequential(
            nn.Linear(shape[0], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes)
        )
    return nn.Sequential(
        *_block(shape[0], width),
        *_block(width, 2 * width),
        nn.MaxPool2d(2),
        *_block(2 * width, 4 * width),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * width, classes),
    )


def _block(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
