"""Base of objectives: per-sample losses by name from a view of the network and noised batches.

Losses are means over an item's D dimensions, so that the weights between terms do not depend on the image size; the
trainer averages over the batch. ``eps_theta`` is the network's prediction of the noise, ``eps`` the noise drawn.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from msgm.checks import at_least, at_most_one
from msgm.diffusion.conditions import Condition
from msgm.errors import UserError
from msgm.fields import Settings
from msgm.objectives.anchors import Anchor
from msgm.objectives.masks import Mask
from msgm.objectives.matching import MATCHING, Matching
from msgm.objectives.noising import Noised as Noised
from msgm.objectives.noising import Predict as Predict
from msgm.objectives.noising import Term as Term
from msgm.objectives.noising import mean_square as mean_square
from msgm.objectives.noising import noised as noised
from msgm.objectives.setup import Setup as Setup
from msgm.objectives.surgery import SURGERY, Surgery
from msgm.ranges import Range, ranges
from msgm.registry import Registry, defaults, plain, shown


@dataclass(frozen=True)
class Card:
    """Facts on an objective that a reader needs to interpret its numbers.

    Example:
        >>> msgm.Unseen.card.formula
        'mean (eps_theta - eps)^2 over the retain set'
    """

    formula: str
    source: str
    deviations: str


Data = Literal["all", "retain", "forget", "retain+forget", "all+forget"]
"""Where an objective's batches come from: at most one batch of all or of retain items, and one of forget items."""


class Phase(NamedTuple):
    """One update of a step; each kind of batches that a step's updates take has an optimiser of its own.

    Example:
        >>> msgm.objectives.Phase("forget", rate=0.5).masked
        True

    Attributes:
        batches: the batches that its terms are computed from; the others are None to ``terms``.
        rate: factor of the learning rate. A factor of the terms would cancel in the update's own Adam.
        masked: whether the mask holds for it, if there is one.
    """

    batches: Literal["both", "retain", "forget"] = "both"
    rate: float = 1.0
    masked: bool = True


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
        return {f.name: plain(getattr(self, f.name)) for f in shown(self)}

    @classmethod
    def describe(cls) -> str:
        """Return the card as text."""
        settings = ", ".join(f"{name}={plain(value)}" for name, value in defaults(cls).items())
        lines = {
            "formula": cls.card.formula,
            "source": cls.card.source,
            "data": cls.data,
            "defaults": settings or "none",
            "deviations": cls.card.deviations,
        }
        return "\n".join(f"{key}: {value}" for key, value in lines.items())


@dataclass
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
        data: where the batches come from: ``all`` training items or ``retain`` items, ``forget`` items, or one of the
            former and the latter, ``retain+forget`` say. ``needs`` is what these settings need of it.
        conditional: whether it teaches what labels give, so that a network without classes is refused.
        combines: whether ``merge`` is to merge the gradient of the term "forget" with that of the others.
        combine: how to merge them instead: a name in ``SURGERY``, or ``{"name": ..., ...}`` with its settings.
        mask: which weights may change; None lets all.
        anchor: what holds the model near the one it starts from.
        replay: how many samples of that model take the place of the retain items, of which none is read then; 0 reads
            the retain items.
    """

    data: ClassVar[Data]
    conditional: ClassVar[bool] = False
    combines = False  # without an annotation, so that it is no setting
    combine: str | Settings | None = field(default=None, kw_only=True)
    mask: Mask | None = field(default=None, kw_only=True)
    anchor: Anchor | None = field(default=None, kw_only=True)
    replay: int = field(default=0, kw_only=True)

    def __init_subclass__(cls) -> None:
        if callable(vars(cls).get("combine")):
            raise TypeError(f"{cls.__name__}.combine: the method that merges gradients is called merge since 0.4.")

    def __post_init__(self) -> None:
        at_least(0, self, "objective", "replay")
        if self.surgery is not None and fields(self.surgery):  # type: ignore[arg-type]
            self.combine = SURGERY.resolve(_named(self.combine))
        apart = any(phase.batches != "both" for phase in self.phases(0))
        if self.surgery is not None and (self.combines or apart or "+" not in self.needs):
            why = "merges them itself" if self.combines else f"reads {self.needs} items alone"
            why = "steps along each by itself" if apart else why
            raise UserError(f"objective.combine: it merges the gradients of two terms, and this objective {why}.")
        if self.replay and self.needs.startswith("all"):
            raise UserError(f"objective.replay: replays take the place of retain items, and it reads {self.needs}.")
        if self.needs == "forget" and self.anchor is not None and self.anchor.by == "base":
            raise UserError("objective.anchor.by: base is a target at retain items, and it reads forget items alone.")

    def check(self, classes: int) -> None:
        """Raise a UserError where a model of so many classes, 0 if unconditional, cannot be taught so."""
        if self.conditional and not classes:
            raise UserError(
                f"objective.name: {self.name} teaches under one label what another gives, and the network is "
                "unconditional; set network.classes, or take esd or redirect."
            )

    @property
    def needs(self) -> Data:
        """What ``data`` comes to with these settings."""
        return self.data

    @property
    def surgery(self) -> Surgery | None:
        """What ``combine`` names."""
        return None if self.combine is None else SURGERY.build(_named(self.combine))

    def wrappers(self) -> dict[str, Any]:
        """Return what ``combine``, ``mask`` and ``anchor`` stand for, by their names, where they are set."""
        found = {"combine": self.surgery, "mask": self.mask, "anchor": self.anchor}
        return {name: part for name, part in found.items() if part is not None}

    def effective(self) -> dict[str, Any]:
        parts = {"mask": self.mask, "anchor": self.anchor}
        return super().effective() | {name: part.effective() for name, part in parts.items() if part is not None}

    @property
    def merges(self) -> bool:
        """Whether ``merge`` is to merge the gradients of two terms."""
        return self.combines or self.combine is not None

    @abstractmethod
    def terms(self, predict: Predict, retain: Noised, forget: Noised | None) -> dict[str, Term]:
        """Return the loss's terms.

        ``forget`` is None on steps that ask for no forget batch. ``retain`` holds the batch of retain items, or of all;
        it is None, and to be annotated so, in an objective that reads forget items alone.
        """

    def phases(self, step: int) -> tuple[Phase, ...]:
        """Return the updates of step 0, 1, ...: those of the same batches on every step."""
        return (Phase(),)

    def uses_forget(self, step: int) -> bool:
        """Return whether step 0, 1, ... needs a forget batch."""
        return "forget" in self.needs

    def forget_batches(self, step: int) -> int:
        """Return the number of steps before ``step`` that used a forget batch."""
        return step if "forget" in self.needs else 0

    def prepare(self, setup: Setup) -> None:
        """Do one-off work before the first step. Called again on resume, so it must be deterministic."""

    def found(self) -> dict[str, float]:
        """Return what ``prepare`` found, by name, for reports: a bandwidth, say. Read after it."""
        return {}

    def merge(self, retain: Sequence[Tensor], forget: Sequence[Tensor]) -> list[Tensor]:
        """Merge the gradients of the forget term and of the others, one tensor a weight."""
        if self.surgery is None:
            raise NotImplementedError(f"{type(self).__name__} does not combine gradients")
        return self.surgery.merge(retain, forget)

    def penalty(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return scalars of the trained weights that are added to the loss once a step, by name."""
        return {}

    def update_mask(self) -> Mapping[str, Tensor]:
        """Return which weights an update may change, by name; weights that are not named may. Read after ``prepare``.

        It holds together with that of the setting ``mask``.
        """
        return {}


OBJECTIVES: Registry[Objective] = Registry("objective")


def _named(settings: Any) -> Any:
    return {"name": settings} if isinstance(settings, str) else settings


@dataclass
class Matched(Objective):
    """An objective whose loss on the items that it keeps can match the score in several ways.

    Example:
        >>> objective = msgm.Obtuse(matching="finite-difference")
        >>> request = msgm.ForgetRequest(labels=[3, 7])
        >>> made = msgm.fit(base, "digits", objective, request, steps=2, batch_size=8)
        fit: obtuse, 2 steps on ...

    Attributes:
        matching: None regresses onto the drawn noise; else a name in ``MATCHING``, or ``{"name": ..., ...}`` with its
            settings.
    """

    matching: str | Settings | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.matching, Mapping):
            self.matching = MATCHING.resolve(self.matching)
        if self.matched is not None and self.anchor is not None and self.anchor.by == "base":
            raise UserError(
                "objective.anchor.by: base takes the place of the drawn noise, which matching does not use."
            )

    @property
    def matched(self) -> Matching | None:
        """What ``matching`` names."""
        if self.matching is None:
            return None
        return MATCHING.build({"name": self.matching} if isinstance(self.matching, str) else self.matching)

    def kept_loss(self, predict: Predict, batch: Noised) -> Tensor:
        """Return the (B,) loss on items to keep."""
        if self.matched is not None:
            return self.matched.losses(predict, batch)
        return mean_square(predict(batch.x, batch.t, batch.condition) - batch.eps)


@dataclass
class Mixed(Matched):
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
        super().__post_init__()
        at_most_one(self, "objective", "alpha")
        at_least(1, self, "objective", "every")

    @abstractmethod
    def forget_loss(self, predicted: Tensor, forget: Noised) -> Tensor:
        """Return the (B,) forget loss from eps_theta (B, *shape) on the forget batch."""

    def uses_forget(self, step: int) -> bool:
        return (step + 1) % self.every == 0

    def forget_batches(self, step: int) -> int:
        return step // self.every

    def terms(self, predict: Predict, retain: Noised, forget: Noised | None) -> dict[str, Term]:
        if forget is None:
            return {"retain": Term(self.alpha, self.kept_loss(predict, retain))}
        kept, forgotten = self.both_losses(predict, retain, forget)
        return {"retain": Term(self.alpha, kept), "forget": Term(1 - self.alpha, forgotten)}

    def both_losses(self, predict: Predict, retain: Noised, forget: Noised) -> tuple[Tensor, Tensor]:
        """Return the (B,) losses on retain and on forget items, from one pass where the retain loss needs no more."""
        if self.matching is None:
            on_retain, on_forget = predict_both(predict, retain, forget)
            return mean_square(on_retain - retain.eps), self.forget_loss(on_forget, forget)
        on_forget = predict(forget.x, forget.t, forget.condition)
        return self.kept_loss(predict, retain), self.forget_loss(on_forget, forget)


def predict_both(predict: Predict, retain: Noised, forget: Noised) -> tuple[Tensor, Tensor]:
    """Run both batches through the network in one pass, each with its conditions."""
    condition = Condition.cat([retain.condition, forget.condition], [len(retain.x), len(forget.x)])
    both = predict(torch.cat([retain.x, forget.x]), torch.cat([retain.t, forget.t]), condition)
    return both[: len(retain.x)], both[len(retain.x) :]
