r"""P(forget | x_t) by a small classifier of noised items, and the direction in which it grows.

With the logit l = log P(forget | x_t) - log P(retain | x_t) and w = sigmoid(l), the scores of both parts differ by
grad l, and that of the whole lies between them: s_b - w grad l is the score of the retain set, and
s_b + (1 - w) grad l that of the forget set. At x_t = a x_0 + sigma eps,

    sigma grad l = (E[x_0 | x_t, forget] - E[x_0 | x_t, retain]) / rho,  rho = sigma / a,

so that it is never longer than the longest distance from a forget item to a retain item over rho. A classifier says
nothing of its slope where one part has no mass, so its own slope is held to that length.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msgm.diffusion.model import per_item
from msgm.diffusion.processes import Process
from msgm.seeding import derive_seed

LOWEST, HIGHEST = 0.02, 20.0
"""Range of rho that a classifier is trained on, evenly in its logarithm."""
HALF = 64
"""Items of each part in a batch."""
HELD_OUT = 0.2
"""Share of each part that is held out, to choose the step at which training stops."""
LEAST = 10
"""Items below which a part is too small to hold any out."""
LOOK = 50
"""Steps from one look at the held-out items to the next."""
BLOCK = 2048
"""Items whose distances to the other part are held in memory at a time."""


class NoisyClassifier(nn.Module):
    """The logit of "to forget" of y = x / a at rho: an MLP of y / sqrt(1 + rho^2) and ln rho, shifted to a share."""

    def __init__(self, dims: int, width: int, share: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dims + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )
        self.shift: Tensor
        self.register_buffer("shift", torch.tensor(log_odds(share), dtype=torch.float64))

    def balanced(self, y: Tensor, ratio: Tensor) -> Tensor:
        """Map y (B, *shape) and rho (B,) to the (B,) logits of parts of equal shares."""
        level = ratio.clamp(LOWEST, HIGHEST)
        scaled = y.flatten(1) / torch.sqrt(1 + ratio**2)[:, None]
        out: Tensor = self.layers(torch.cat([scaled, level.log()[:, None]], 1))
        return out[:, 0]

    def forward(self, y: Tensor, ratio: Tensor) -> Tensor:
        """Map y (B, *shape) and rho (B,) to (B,) logits."""
        return self.balanced(y, ratio) + self.shift


@dataclass(frozen=True)
class Posterior:
    """P(forget | x_t) by a logit.

    Attributes:
        logit: maps y = x_t / a (B, *shape) and rho (B,) to (B,).
        reach: longest distance from a forget item to a retain item, to which the slope is held.
        loss: binary cross-entropy of the logit at held-out noised items of both parts in equal shares; NaN where none
            was held out.
    """

    logit: Callable[[Tensor, Tensor], Tensor]
    reach: float = math.inf
    loss: float = math.nan

    def pull(self, process: Process, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return l (B,) and sigma grad l (B, *shape) at x_t (B, *shape); differentiable where ``x`` is."""
        wanted = torch.is_grad_enabled() and x.requires_grad  # a likelihood asks for the divergence of eps
        signal, ratio = process.signal(t), process.ratio(t)
        with torch.enable_grad():
            y = (x if wanted else x.detach()) / per_item(signal, x)
            y = y if wanted else y.requires_grad_(True)
            logit = self.logit(y, ratio)
            (slope,) = torch.autograd.grad(logit.sum(), y, create_graph=wanted)
        pull = per_item(ratio, x) * slope
        length = pull.flatten(1).norm(dim=1).clamp_min(1e-12)
        held = (self.reach / ratio / length).clamp_max(1)
        return (logit if wanted else logit.detach()), per_item(held, x) * pull

    def state(self) -> dict[str, Tensor]:
        """Return the weights of a trained classifier and the reach, by name."""
        return {**self._classifier.state_dict(), "reach": torch.tensor(self.reach, dtype=torch.float64)}

    @classmethod
    def of(cls, state: Mapping[str, Tensor], loss: float = math.nan) -> "Posterior":
        """Return what ``state`` returned as a posterior again.

        Raises:
            KeyError, RuntimeError: it is the state of something else.
        """
        width, read = state["layers.0.weight"].shape
        with torch.random.fork_rng(devices=[]):
            logit = NoisyClassifier(read - 1, width)
        logit.load_state_dict({name: state[name] for name in logit.state_dict()})
        return cls(logit.eval().requires_grad_(False), float(state["reach"]), loss)

    def to(self, device: torch.device | str) -> "Posterior":
        """Move the classifier; returns self."""
        self._classifier.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Device of the classifier."""
        return self._classifier.shift.device

    @property
    def _classifier(self) -> NoisyClassifier:
        assert isinstance(self.logit, NoisyClassifier), "the posterior is of no trained classifier"
        return self.logit


def trained_posterior(
    forget: Tensor, retain: Tensor, share: float, steps: int, width: int, highest: float = HIGHEST, seed: int = 0
) -> Posterior:
    """Return the posterior by a classifier of noised items, frozen, trained on both parts in equal shares.

    A fifth of each part is held out, and the weights of the look at which these, noised, are classified best are kept.

    Args:
        forget: (N, *shape) clean items to forget.
        retain: (M, *shape) clean items to retain.
        share: of forget items in the data; the logit is shifted to it.
        steps: of its training, at most.
        width: its hidden units.
        highest: rho of the noise at most; it is drawn evenly in its logarithm.
        seed: of its weights and draws.
    """
    draws = torch.Generator().manual_seed(derive_seed(seed, "guidance classifier"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "guidance classifier", "init"))
        logit = NoisyClassifier(forget[0].numel(), width, share).to(forget.device)
    optimiser = torch.optim.AdamW(logit.parameters(), lr=1e-3, weight_decay=1e-2)
    (held_forget, forget_seen), (held_retain, retain_seen) = (_parted(part, draws) for part in (forget, retain))
    held = None
    if len(held_forget) and len(held_retain):
        held = _noised(held_forget, held_retain, 512, highest, draws)
    best, kept = math.inf, copy.deepcopy(logit)
    for step in range(1, steps + 1):
        loss = _loss(logit, _noised(forget_seen, retain_seen, HALF, highest, draws))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if held is not None and (step % LOOK == 0 or step == steps):
            with torch.no_grad():
                found = float(_loss(logit, held))
            if found < best:
                best, kept = found, copy.deepcopy(logit)
    chosen = (logit if held is None else kept).eval().requires_grad_(False)
    return Posterior(chosen, longest_distance(forget, retain), math.nan if held is None else best)


def log_odds(share: float) -> float:
    """Return the logarithm of a share's odds."""
    return float(torch.logit(torch.tensor(share, dtype=torch.float64)))


def longest_distance(some: Tensor, others: Tensor) -> float:
    """Return the longest Euclidean distance from an item of (N, *shape) to one of (M, *shape)."""
    return max(float(torch.cdist(block.flatten(1), others.flatten(1)).max()) for block in some.split(BLOCK))


def _parted(part: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the items of a part that are held out, none of a small part, and those to train on."""
    order = torch.randperm(len(part), generator=draws).to(part.device)
    held = int(HELD_OUT * len(part)) if len(part) >= LEAST else 0
    return part[order[:held]], part[order[held:]]


def _noised(
    forget: Tensor, retain: Tensor, count: int, highest: float, draws: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y (2 count, *shape), rho and the label of as many noised items of each part."""
    x0 = torch.cat([part[torch.randint(len(part), (count,), generator=draws)] for part in (forget, retain)])
    span = math.log(highest / LOWEST)
    ratio = (LOWEST * (span * torch.rand(2 * count, generator=draws)).exp()).to(x0)
    y = x0 + per_item(ratio, x0) * torch.randn(x0.shape, generator=draws).to(x0)
    return y, ratio, torch.tensor([1.0] * count + [0.0] * count).to(x0)


def _loss(logit: NoisyClassifier, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    y, ratio, wanted = batch
    return F.binary_cross_entropy_with_logits(logit.balanced(y, ratio), wanted)
