"""Inputs for an objective's preparation: models, items, replays and moments, each drawn with seeds of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, NoReturn, Protocol

from torch import Tensor

from msgm.diffusion.model import ScoreModel
from msgm.objectives.gradient_moments import Moments
from msgm.requests import Concept


class Drawn(NamedTuple):
    """Clean items at bin centres in [-1, 1], and their labels.

    Example:
        >>> drawn = msgm.objectives.Drawn(torch.zeros(2, 1, 8, 8), torch.tensor([3, 7]))
        >>> len(drawn.items), drawn.labels.tolist()
        (2, [3, 7])
    """

    items: Tensor
    labels: Tensor | None = None


class TakeMoments(Protocol):
    """Returns the moments of the starting model's gradients at items of a part, drawn once and kept in the run folder.

    ``items`` of the part ``retain`` or ``forget`` (all when there are no more) take part, each at ``levels`` times;
    ``batch`` of them are squared together.
    """

    def __call__(self, part: Literal["retain", "forget"], items: int, levels: int = 10, batch: int = 1) -> Moments:
        """Return the moments."""


def absent(*given: object, **named: object) -> NoReturn:
    """Stand for what a setup does not have."""
    raise RuntimeError("this setup was made without what the objective asks of it; the trainer's has all")


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
            with their mirror images when training sees those. They are replays where the objective has these.
        tune_on_forget: ``tune_on_forget(steps)`` fine-tunes a copy of the model on the forget set alone.
        forget: ``forget(n)`` draws up to n forget items likewise, with their labels.
        sample: ``sample(n)`` returns n samples of the model that training starts from; the same ones on a resume. A
            class-conditional model is asked for each class of the retain set in turn.
        moments: the moments of that model's gradients at items of a part.
        steps: how many steps will be made.
        forget_share: share of the forget set in the training items.
        labels_alike: whether forget batches leave labels out as often as the others do, as of an unconditional model.
        labels_dropped: whether forget batches leave labels out at all; true of an unconditional model.
        sizes_alike: whether forget batches are of the size of the others.
        retained: the labels of the retain items, in order; empty without labels.
        forgotten: the labels of the items to forget, in order, whether the request names them or items alone.
        concept: the prompts that the request names; None where it names its items in another way.
    """

    model: Callable[[], ScoreModel]
    retain: Callable[[int], Tensor]
    tune_on_forget: Callable[[int], ScoreModel]
    forget: Callable[[int], Drawn] = absent
    sample: Callable[[int], Drawn] = absent
    moments: TakeMoments = absent
    steps: int = 0
    forget_share: float = 0.0
    labels_alike: bool = True
    labels_dropped: bool = True
    sizes_alike: bool = True
    retained: tuple[int, ...] = ()
    forgotten: tuple[int, ...] = ()
    concept: Concept | None = None

    def base(self) -> ScoreModel:
        """Return the model that training starts from, frozen and in eval mode; the same object each time."""
        return self._base

    @cached_property
    def _base(self) -> ScoreModel:
        model = self.model()
        model.network.eval().requires_grad_(False)
        return model
