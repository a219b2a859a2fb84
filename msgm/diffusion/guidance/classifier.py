r"""Guidance by a classifier of noised items: towards what is to be retained.

The score of what is to remain is s_b + grad log P(retain | x_t), an identity. With the classifier's logit
l = log P(f) - log P(r) the logarithm is -softplus(l) and its gradient -w grad l, w = sigmoid(l): where the classifier
is sure that nothing is to be forgotten, the model stays as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msgm.checks import at_least
from msgm.diffusion.conditions import Condition
from msgm.diffusion.guidance.base import GUIDANCE, Guidance, Preparation
from msgm.diffusion.model import ScoreModel, per_item
from msgm.diffusion.processes import Process
from msgm.ranges import Range, ranges
from msgm.seeding import derive_seed

LOWEST, HIGHEST = 0.02, 20.0
"""Range of rho that the classifier is trained on, evenly in its logarithm."""


class NoisyClassifier(nn.Module):
    """The logit of "to forget" of y = x / a at rho: an MLP of y / sqrt(1 + rho^2) and ln rho."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dims + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, y: Tensor, ratio: Tensor) -> Tensor:
        """Map y (B, *shape) and rho (B,) to (B,)."""
        level = ratio.clamp(LOWEST, HIGHEST)
        scaled = y.flatten(1) / torch.sqrt(1 + ratio**2)[:, None]
        out: Tensor = self.layers(torch.cat([scaled, level.log()[:, None]], 1))
        return out[:, 0]


def trained_classifier(
    forget: Tensor, retain: Tensor, steps: int, width: int, highest: float = HIGHEST, seed: int = 0
) -> NoisyClassifier:
    """Return a classifier of noised items, frozen, trained on both parts in equal shares.

    Args:
        forget: (N, *shape) clean items to forget.
        retain: (M, *shape) clean items to retain.
        steps: of its training.
        width: its hidden units.
        highest: rho of the noise at most; it is drawn evenly in its logarithm.
        seed: of its weights and draws.
    """
    draws = torch.Generator().manual_seed(derive_seed(seed, "guidance classifier"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "guidance classifier", "init"))
        logit = NoisyClassifier(forget[0].numel(), width).to(forget.device)
    optimiser = torch.optim.AdamW(logit.parameters(), lr=1e-3, weight_decay=1e-2)
    wanted = torch.tensor([1.0] * 64 + [0.0] * 64, device=forget.device)
    span = torch.tensor(highest / LOWEST).log()
    for _ in range(steps):
        halves = [part[torch.randint(len(part), (64,), generator=draws)] for part in (forget, retain)]
        x0 = torch.cat(halves)
        ratio = (LOWEST * (span * torch.rand(128, generator=draws)).exp()).to(x0)
        y = x0 + per_item(ratio, x0) * torch.randn(x0.shape, generator=draws).to(x0)
        loss = F.binary_cross_entropy_with_logits(logit(y, ratio), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return logit.eval().requires_grad_(False)


def log_odds(share: float) -> float:
    """Return the logarithm of a share's odds."""
    return float(torch.logit(torch.tensor(share, dtype=torch.float64)))


class Classifying(Guidance):
    """Guidance that has a classifier of its own, trained on both parts.

    Attributes:
        width: hidden units of the classifier.
        logit: the classifier, of items over their signal and of their noise ratio; None before it is trained.
        shift: what is added to its logit: the log-odds of the data's share of forget items.
    """

    width: int
    logit: nn.Module | None
    shift: float

    def state(self) -> dict[str, Tensor]:
        assert isinstance(self.logit, NoisyClassifier)
        return {**self.logit.state_dict(), "shift": torch.tensor(self.shift, dtype=torch.float64)}

    def recall(self, state: Mapping[str, Tensor], model: ScoreModel) -> None:
        with torch.random.fork_rng(devices=[]):
            logit = NoisyClassifier(state["layers.0.weight"].shape[1] - 1, self.width)
        logit.load_state_dict({name: state[name] for name in logit.state_dict()})
        self.logit, self.shift = logit.eval().requires_grad_(False), float(state["shift"])

    def to(self, device: torch.device | str) -> None:
        if self.logit is not None:
            self.logit.to(device)


@GUIDANCE.register("classifier")
@dataclass
class Classifier(Classifying):
    """Classifier guidance towards the retain set, by a small classifier trained on noised forget and retain items.

    Example:
        >>> guidance = Classifier(scale=1.0)
        >>> guidance.fit(torch.rand(8, 1, 8, 8) - 1, torch.rand(8, 1, 8, 8), share=0.5)
        >>> guidance.wrap(base).sample(2, steps=3).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        scale: gamma; 1 is exact for an exact classifier, more sharpens, 0 changes nothing, to the bit.
        steps: of the classifier's training.
        width: its hidden units.
        items: of each part that it is trained on, at most.
    """

    scale: float = 1.0
    steps: int = 1000
    width: int = 256
    items: int = 16384

    formula = "eps_b - gamma sigma grad log P(retain | x_t) = eps_b + gamma sigma w grad l, w = sigmoid(l)"
    source = "Dhariwal and Nichol, arXiv 2105.05233, eq. 14, for P(retain | x_t)"
    search: ClassVar[Mapping[str, Range]] = ranges(scale=Range(0.25, 8.0, log=True))
    deviations = (
        "the classifier is an MLP of its own, trained on both parts in equal shares; its logit is shifted to the "
        "data's share of forget items; deep inside one part its gradient is extrapolated"
    )

    def __post_init__(self) -> None:
        at_least(0, self, "guidance", "scale")
        at_least(1, self, "guidance", "steps", "width", "items")
        self.logit, self.shift = None, 0.0

    def prepare(self, setup: Preparation) -> None:
        """Train the classifier."""
        self.fit(setup.forget(self.items).items, setup.retain(self.items), setup.forget_share or 0.5)

    def fit(self, forget: Tensor, retain: Tensor, share: float, seed: int = 0) -> None:
        """Train the classifier on clean items of both parts.

        Args:
            forget: (N, *shape) items to forget.
            retain: (M, *shape) items to retain.
            share: of forget items in the data.
            seed: of its weights and draws.
        """
        self.logit = trained_classifier(forget, retain, self.steps, self.width, seed=seed)
        self.shift = log_odds(share)

    def log_retain(self, process: Process, x: Tensor, t: Tensor) -> Tensor:
        """Return log P(retain | x_t), (B,)."""
        if self.logit is None:
            raise RuntimeError("classifier: call prepare or fit first")
        y = x / per_item(process.signal(t), x)
        return -F.softplus(self.logit(y, process.ratio(t)) + self.shift)

    def eps(self, model: ScoreModel, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        found = model.eps(x, t, condition)
        if self.scale == 0:
            return found
        wanted = torch.is_grad_enabled() and x.requires_grad  # a likelihood asks for the divergence of eps
        with torch.enable_grad():
            point = x if wanted else x.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.log_retain(model.process, point, t).sum(), point, create_graph=wanted)
        return found - self.scale * per_item(model.process.noise(t), x) * slope
