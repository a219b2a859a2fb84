"""Base of objectives: per-sample losses by name from a view of the network and noised batches.

Losses are means over an item's D dimensions, so that the weights between terms do not depend on the image size; the
trainer averages over the batch. ``eps_theta`` is the network's prediction of the noise, ``eps`` the noise drawn.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from msgm.diffusion.conditions import Condition
from msgm.diffusion.model import ScoreModel, per_item
from msgm.diffusion.processes import Process
from msgm.errors import UserError
from msgm.ranges import Range, ranges
from msgm.registry import Registry


class Predict(Protocol):
    """The network's prediction of the noise, eps_theta (B, *shape); arguments as of ``ScoreModel.eps``."""

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return eps_theta."""


@dataclass(frozen=True)
class Noised:
    """A batch on the process's path: x = a x0 + sigma eps.

    Example:
        >>> x0, t = torch.zeros(4, 2), torch.full((4,), 0.5)
        >>> batch = msgm.objectives.noised(msgm.VP(), x0, t, torch.ones(4, 2))
        >>> torch.allclose(batch.x, batch.signal * x0 + batch.noise * batch.eps)
        True

    Attributes:
        x: (B, *shape) noised items.
        t: (B,) times.
        eps: (B, *shape) the noise in them.
        signal: a(t), shaped to broadcast over x.
        noise: sigma(t), likewise.
        uniform: returns fresh U(0, 1) numbers shaped like x, drawn for the global batch.
        clean: (B, *shape) the items x0.
        condition: of the items; None is the null condition of all of them.
    """

    x: Tensor
    t: Tensor
    eps: Tensor
    signal: Tensor
    noise: Tensor
    uniform: Callable[[], Tensor]
    clean: Tensor
    condition: Condition | None = None


def noised(
    process: Process,
    x0: Tensor,
    t: Tensor,
    eps: Tensor,
    uniform: Callable[[], Tensor] | None = None,
    condition: Condition | None = None,
) -> Noised:
    """Put clean items ``x0`` (B, *shape) on the path at times ``t`` (B,) with noise ``eps``.

    Example:
        >>> times = torch.tensor([0.1, 0.9])
        >>> batch = msgm.objectives.noised(msgm.VE(), torch.zeros(2, 3), times, torch.ones(2, 3))
        >>> torch.allclose(batch.x[:, 0], msgm.VE().noise(times))
        True
    """
    signal, noise = per_item(process.signal(t), x0), per_item(process.noise(t), x0)
    drawn = uniform or (lambda: torch.rand_like(x0))
    return Noised(signal * x0 + noise * eps, t, eps, signal, noise, drawn, x0, condition)


class Term(NamedTuple):
    """One named part of a loss: its weight and its (B,) per-sample values.

    Example:
        >>> term = msgm.objectives.Term(0.5, torch.tensor([1.0, 3.0]))
        >>> float(term.weight * term.values.mean())
        1.0
    """

    weight: float
    values: Tensor


@dataclass(frozen=True)
class Card:
    """Facts on an objective that a reader needs to interpret its numbers.

    Example:
        >>> msgm.Redirect.card.source
        'this package; kin to ReTrack, arXiv 2509.13007'
    """

    formula: str
    source: str
    deviations: str


@dataclass(frozen=True)
class Setup:
    """Inputs for an objective's preparation before the first step.

    Example:
        >>> setup = msgm.objectives.Setup(lambda: base, lambda n: torch.rand(16, 1, 8, 8), lambda steps: base)
        >>> objective = msgm.Redirect()
        >>> objective.prepare(setup)  # keeps a bank of retain items

    Attributes:
        model: returns a copy of the model that training starts from.
        retain: ``retain(n)`` draws up to n clean retain items, all when there are no more, at bin centres in [-1, 1],
            with their mirror images when training sees those.
        tune_on_forget: ``tune_on_forget(steps)`` fine-tunes a copy of the model on the forget set alone.
    """

    model: Callable[[], ScoreModel]
    retain: Callable[[int], Tensor]
    tune_on_forget: Callable[[int], ScoreModel]


class Described:
    """A part with a card whose settings stand in reports; its subclasses are dataclasses.

    Example:
        >>> msgm.Redirect(alpha=0.5).effective()["alpha"]
        0.5
        >>> print(msgm.Unseen.describe().splitlines()[2])
        data: retain
    """

    name: ClassVar[str]
    card: ClassVar[Card]
    data: ClassVar[str]

    def effective(self) -> dict[str, Any]:
        """Return the settings that have an effect, by name, for reports."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def describe(cls) -> str:
        """Return the card as text."""
        settings = ", ".join(f"{f.name}={f.default}" for f in fields(cls))  # type: ignore[arg-type]
        lines = {
            "formula": cls.card.formula,
            "source": cls.card.source,
            "data": cls.data,
            "defaults": settings or "none",
            "deviations": cls.card.deviations,
        }
        return "\n".join(f"{key}: {value}" for key, value in lines.items())


class Objective(Described, ABC):
    """A loss with the data it needs. Subclasses are dataclasses whose fields are its settings.

    Example:
        >>> import torch
        >>> model = msgm.ScoreModel.new("mlp", "vp", shape=(2,))
        >>> points, times = torch.randn(8, 2), torch.linspace(0.1, 1.0, 8)
        >>> retain = noised(model.process, points, times, torch.randn(8, 2))
        >>> forget = noised(model.process, points + 3, times, torch.randn(8, 2))
        >>> terms = msgm.Obtuse(alpha=0.9, every=1).terms(model.eps, retain, forget)
        >>> sorted(terms)
        ['forget', 'retain']
        >>> sum(term.weight * term.values.mean() for term in terms.values()).backward()

    Attributes:
        data: source of the batches: ``all`` training items, ``retain``, or ``retain+forget`` for a retain and a forget
            batch.
        combines: whether ``combine`` is to merge the gradients of the terms "retain" and "forget".
    """

    data: ClassVar[Literal["all", "retain", "retain+forget"]]
    combines: bool = False

    @abstractmethod
    def terms(self, predict: Predict, retain: Noised, forget: Noised | None) -> dict[str, Term]:
        """Return the loss's terms; ``forget`` is None on steps that ask for no forget batch."""

    def uses_forget(self, step: int) -> bool:
        """Return whether step 0, 1, ... needs a forget batch."""
        return False

    def forget_batches(self, step: int) -> int:
        """Return the number of steps before ``step`` that used a forget batch."""
        return 0

    def prepare(self, setup: Setup) -> None:
        """Do one-off work before the first step. Called again on resume, so it must be deterministic."""

    def combine(self, retain: Sequence[Tensor], forget: Sequence[Tensor]) -> list[Tensor]:
        """Merge the gradients of the two terms, one tensor a weight."""
        raise NotImplementedError(f"{type(self).__name__} does not combine gradients")


OBJECTIVES: Registry[Objective] = Registry("objective")


def mean_square(x: Tensor) -> Tensor:
    """Return the mean of squares over an item's dimensions, (B,).

    Example:
        >>> msgm.objectives.mean_square(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
        tensor([5., 4.])
    """
    return x.square().flatten(1).mean(1)


@dataclass
class Mixed(Objective):
    """alpha L_r on every step, plus (1 - alpha) L_f on each ``every``-th; a subclass defines L_f.

    L_r is noise prediction on the retain set. Retain and forget items go through the network in one pass.

    Example:
        >>> from dataclasses import dataclass
        >>> from msgm.objectives import Card, Mixed, mean_square
        >>> @dataclass
        ... class NegativeGradient(Mixed):
        ...     name, card = "negative", Card("L_f = -mean (eps_theta - eps)^2", "NegGrad+", "none")
        ...     def forget_loss(self, predicted, forget):
        ...         return -mean_square(predicted - forget.eps)
        >>> NegativeGradient(alpha=0.9, every=2).uses_forget(1)
        True

    Attributes:
        alpha: weight of the retain term.
        every: the forget term joins on steps every-1, 2 every-1, ... (1: always, the paper's "simultaneous"; 4: its
            "alternating").
    """

    data = "retain+forget"
    alpha: float = 0.99
    every: int = 4

    search = ranges(alpha=Range(0.5, 0.999))

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UserError(f"objective.alpha must lie in [0, 1], got {self.alpha}.")
        if self.every < 1:
            raise UserError(f"objective.every must be at least 1, got {self.every}.")

    @abstractmethod
    def forget_loss(self, predicted: Tensor, forget: Noised) -> Tensor:
        """Return the (B,) forget loss from eps_theta (B, *shape) on the forget batch."""

    def uses_forget(self, step: int) -> bool:
        return (step + 1) % self.every == 0

    def forget_batches(self, step: int) -> int:
        return step // self.every

    def terms(self, predict: Predict, retain: Noised, forget: Noised | None) -> dict[str, Term]:
        if forget is None:
            return {"retain": Term(self.alpha, mean_square(predict(retain.x, retain.t, retain.condition) - retain.eps))}
        on_retain, on_forget = predict_both(predict, retain, forget)
        return {
            "retain": Term(self.alpha, mean_square(on_retain - retain.eps)),
            "forget": Term(1 - self.alpha, self.forget_loss(on_forget, forget)),
        }


def predict_both(predict: Predict, retain: Noised, forget: Noised) -> tuple[Tensor, Tensor]:
    """Run both batches through the network in one pass, each with its conditions."""
    condition = Condition.cat([retain.condition, forget.condition], [len(retain.x), len(forget.x)])
    both = predict(torch.cat([retain.x, forget.x]), torch.cat([retain.t, forget.t]), condition)
    return both[: len(retain.x)], both[len(retain.x) :]
