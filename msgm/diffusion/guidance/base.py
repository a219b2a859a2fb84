"""Base of guidance: another score at sampling time, of a model whose weights stay as they are.

A guided model is a view, itself a ``ScoreModel``: whatever samples, integrates or restores with a model does so with
its view. Nothing is unlearnt by it: who has the weights has the model without guidance.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from msgm.diffusion.conditions import Asked, Condition
from msgm.diffusion.model import ScoreModel, per_item
from msgm.errors import UserError
from msgm.registry import Registry, plain, shown

if TYPE_CHECKING:
    from msgm.diffusion.samplers import Sampler


class Preparation(Protocol):
    """What a guidance may ask for before the first sample; ``msgm.objectives.Setup`` has it all.

    Attributes:
        retain: ``retain(n)`` draws up to n clean retain items.
        forget: ``forget(n)`` draws up to n forget items, as ``items`` of what it returns.
        tune_on_forget: ``tune_on_forget(steps)`` fine-tunes a copy of the model on the forget set alone.
        forget_share: share of the forget set in the training items.
        forgotten: the labels of the items to forget, in order.
    """

    @property
    def retain(self) -> Callable[[int], Tensor]: ...
    @property
    def forget(self) -> Callable[[int], Any]: ...
    @property
    def tune_on_forget(self) -> Callable[[int], ScoreModel]: ...
    @property
    def forget_share(self) -> float: ...
    @property
    def forgotten(self) -> tuple[int, ...]: ...


class Guidance(ABC):
    """A change of a model's score while it is walked. Subclasses are dataclasses whose fields are its settings.

    Example:
        >>> from dataclasses import dataclass
        >>> from msgm.diffusion.guidance import Guidance
        >>> @dataclass
        ... class Cooler(Guidance):
        ...     "Shrinks the predicted noise."
        ...     name, formula, source, deviations = "cooler-example", "f eps", "this example", "none"
        ...     factor: float = 0.9
        ...     def eps(self, model, x, t, condition):
        ...         return self.factor * model.eps(x, t, condition)
        >>> Cooler().wrap(base).sample(2, steps=3).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        formula: the guided eps, or the guided denoised item.
        source: paper and equation.
        deviations: from it.
        no_density: why the flow of its eps gives no likelihood of its samples; None where it does: eps depends on x, t
            and what is asked for alone, and samples stand as they are drawn.
        by_levels: whether it follows a walk from level to level, so that a sampler needs a grid.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]
    deviations: ClassVar[str]
    no_density: ClassVar[str | None] = None
    by_levels: ClassVar[bool] = False

    @abstractmethod
    def eps(self, model: ScoreModel, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        """Return the guided eps (B, *shape); the arguments are those of ``model.eps``, whose guidance it is."""

    @property
    def tunes(self) -> bool:
        """Whether it prepares by tuning a copy of the model, with training settings."""
        return False

    def check(self, classes: int) -> None:  # noqa: B027 - most guide any model
        """Raise a UserError where a model of so many classes, 0 if unconditional, cannot be guided so."""

    def prepare(self, setup: Preparation) -> None:  # noqa: B027 - some need nothing
        """Do one-off work before the first sample; it must be deterministic."""

    def state(self) -> dict[str, Tensor]:
        """Return what ``prepare`` found, as tensors by name, of which ``recall`` makes the same guidance."""
        return {}

    def recall(self, state: Mapping[str, Tensor], model: ScoreModel) -> None:  # noqa: B027 - some need nothing
        """Take the state of a guidance of the same settings that was prepared for ``model``, in place of preparing."""

    def to(self, device: torch.device | str) -> None:  # noqa: B027 - some hold nothing
        """Move what it holds to a device."""

    def effective(self) -> dict[str, Any]:
        """Return the settings, by name, for reports."""
        return {f.name: plain(getattr(self, f.name)) for f in shown(self)}

    def walk(self) -> "Guidance":
        """Return what guides one walk of a batch: a fresh copy, where a walk has a memory."""
        return self

    def accepts(self, items: Tensor) -> Tensor | None:
        """Return which samples (B, *shape) may stand, (B,) bool; None is all. Others are drawn anew."""
        return None

    def wrap(self, model: ScoreModel) -> "Guided":
        """Return a view of ``model`` that is guided; the model itself stays as it is."""
        parts = {f.name: getattr(model, f.name) for f in fields(ScoreModel) if f.init}
        return Guided(**parts, base=model, guidance=self)

    @classmethod
    def describe(cls) -> str:
        """Return the card as text."""
        settings = ", ".join(f"{f.name}={f.default}" for f in fields(cls))  # type: ignore[arg-type]
        lines = {
            "formula": cls.formula,
            "source": cls.source,
            "defaults": settings or "none",
            "deviations": cls.deviations,
        }
        return "\n".join(f"{key}: {value}" for key, value in lines.items())


@dataclass(repr=False)
class Guided(ScoreModel):
    """A view of a model whose walks are guided.

    Example:
        >>> from msgm.diffusion.guidance import ClassifierFree
        >>> model = msgm.ScoreModel.new("unet", "vp", channels=[8], classes=10)
        >>> ClassifierFree(scale=2.0).wrap(model).sample(2, steps=3, condition=[3, 7]).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        base: the model itself.
        guidance: what guides it.
    """

    base: ScoreModel | None = None
    guidance: Guidance | None = None

    def eps(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return the guided eps; arguments as of ``ScoreModel.eps``."""
        assert self.base is not None
        assert self.guidance is not None
        return self.guidance.eps(self.base, x, t, condition)

    def denoise(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return the denoised item that the guided eps means."""
        noise, signal = (per_item(c(t), x) for c in (self.process.noise, self.process.signal))
        return (x - noise * self.eps(x, t, condition)) / signal

    def asked(self, condition: Asked, count: int) -> Condition | None:
        """Return what is asked for, as the model itself does."""
        assert self.base is not None
        return self.base.asked(condition, count)

    def for_walk(self, seeds: Sequence[int] | None = None) -> "Guided":
        """Return the view with a fresh memory, and those below it."""
        assert self.base is not None
        assert self.guidance is not None
        return replace(self, base=self.base.for_walk(seeds), guidance=self.guidance.walk())

    def check_sampler(self, sampler: "Sampler") -> None:
        """Raise a UserError where the model itself cannot be sampled so."""
        assert self.base is not None
        self.base.check_sampler(sampler)

    def for_rows(self, rows: Tensor) -> "Guided":
        """Return the view for some trajectories of a walk."""
        assert self.base is not None
        return replace(self, base=self.base.for_rows(rows))

    def accepts(self, items: Tensor) -> Tensor | None:
        """Return which samples may stand: those that this guidance and those below accept."""
        assert self.base is not None
        assert self.guidance is not None
        both = [kept for kept in (self.base.accepts(items), self.guidance.accepts(items)) if kept is not None]
        return torch.stack(both).all(0) if both else None

    def to(self, device: torch.device | str) -> "Guided":
        """Move the network and what guides it; returns self."""
        assert self.base is not None
        assert self.guidance is not None
        self.base.to(device)
        self.guidance.to(device)
        return self

    def with_network(self, network: nn.Module) -> "Guided":
        """Return the same guidance of another (wrapped) network."""
        assert self.base is not None
        return replace(self, network=network, base=self.base.with_network(network))

    def save(self, folder: Path | str) -> None:
        """Refuse: guidance is no part of a model's files.

        Raises:
            UserError: always.
        """
        raise UserError(
            "save: a guided view has the model's own weights; save the model itself, and the guidance by save_guidance."
        )

    def save_pretrained(self, folder: Path | str, card: Any = None) -> None:
        """Refuse, as ``save`` does.

        Raises:
            UserError: always.
        """
        self.save(folder)


GUIDANCE: Registry[Guidance] = Registry("guidance")


def views(model: ScoreModel) -> Iterator[Guided]:
    """Yield the views that a model is seen through, the outermost first; none of a model that is not guided.

    Example:
        >>> from msgm.diffusion.guidance import Reject, views
        >>> [view.guidance.name for view in views(Reject().wrap(base))]
        ['reject']
    """
    while isinstance(model, Guided):
        yield model
        assert model.base is not None
        model = model.base


def unguided(model: ScoreModel) -> ScoreModel:
    """Return the model that a view guides, the model itself without a view: what who holds the weights has.

    Example:
        >>> msgm.diffusion.guidance.unguided(msgm.diffusion.guidance.Reject().wrap(base)) is base
        True
    """
    for view in views(model):
        assert view.base is not None
        model = view.base
    return model


def frozen(model: ScoreModel) -> ScoreModel:
    """Return a copy of a model in evaluation mode that takes no gradients."""
    kept = copy.copy(model)
    kept.network = copy.deepcopy(model.network).eval().requires_grad_(False)
    return kept
