"""Base of edits: a model's weights are changed at once, by a formula, where an objective takes many small steps.

An edit reads training items or a fine-tuned copy of the model, and writes new weights. It is cheap, and what it does to
the model's samples is nowhere guaranteed: measure it beside the other rows.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from msgm.curvature import Weights, weights_of
from msgm.devices import WITHOUT_FLOAT64
from msgm.diffusion.conditions import Condition
from msgm.diffusion.model import ScoreModel
from msgm.diffusion.processes import Process
from msgm.objectives.base import Described, Noised, Setup, noised
from msgm.objectives.setup import Drawn, absent
from msgm.registry import Registry
from msgm.requests import Concept
from msgm.seeding import generator

BATCH = 256
"""Noised items that go through the network at a time."""


@dataclass(frozen=True, kw_only=True)
class EditSetup(Setup):
    """Inputs of an edit: those of an objective's preparation, and items as training sees them.

    Example:
        >>> drawn = lambda part, n: msgm.objectives.Drawn(torch.rand(n, 1, 8, 8))
        >>> given = {"items": drawn, "forget_share": 0.2, "seed": 0}
        >>> setup = EditSetup(
        ...     model=lambda: base, retain=lambda n: torch.rand(n, 1, 8, 8), tune_on_forget=lambda steps: base, **given
        ... )
        >>> edited = msgm.objectives.edits.Dampen(items=4).apply(base, setup)

    Attributes:
        items: ``items("forget", n)`` returns n clean items of the part, dequantised and mirrored at random as in
            training, with the labels that a class-conditional model is trained under, -1 for none; the same again at
            every call. A smaller part is gone through several times.
        forget_share: share of the forget set among the items to retain and to forget, in (0, 1).
        seed: of an edit's own random choices.
    """

    items: Callable[[Literal["retain", "forget"], int], Drawn]
    forget_share: float
    seed: int

    @classmethod
    def of_prompts(cls, model: ScoreModel, concept: Concept, seed: int = 0) -> "EditSetup":
        """Return the inputs of an edit that reads prompts and no item."""
        return cls(
            model=lambda: copy.deepcopy(model),
            retain=absent,
            tune_on_forget=absent,
            items=absent,
            forget_share=0.0,
            seed=seed,
            concept=concept,
        )

    def generator(self, *stream: str) -> torch.Generator:
        """Return the generator, on the CPU, of one of an edit's random choices."""
        return generator(self.seed, "edit", *stream)


class Edit(Described, ABC):
    """A change of weights with the data it needs. Subclasses are dataclasses whose fields are its settings.

    Example:
        >>> from dataclasses import dataclass
        >>> from msgm.objectives import Card
        >>> @dataclass
        ... class Shrink(Edit):
        ...     name, data, card = "shrink", "forget", Card("theta *= 1 - by", "this example", "none")
        ...     by: float = 0.1
        ...     def change(self, model, setup):
        ...         with torch.no_grad():
        ...             for weight in model.network.parameters():
        ...                 weight *= 1 - self.by
        >>> edit = Shrink()
        >>> edited = edit.apply(base, setup=None)
        >>> round(edit.facts["distance"], 4)
        0.1

    Attributes:
        data: parts of the data that it reads: ``forget``, ``retain`` or ``retain+forget``; ``prompts`` where it reads
            those of the request and no item, so that it needs no data set.
        tunes: whether it fine-tunes a copy of the model, with the settings of ``finetune``.
        facts: numbers on the last edit, for reports: ``changed_share``, the share of weights with another value,
            ``distance``, how far they moved in lengths of the whole vector of weights, and the edit's own.
    """

    data: ClassVar[Literal["forget", "retain", "retain+forget", "prompts"]]
    tunes: ClassVar[bool] = False
    facts: dict[str, Any]

    def apply(self, model: ScoreModel, setup: EditSetup) -> ScoreModel:
        """Return an edited copy of ``model``, in eval mode.

        Raises:
            UserError: the edit cannot be made in this network.
        """
        self.facts = {}
        edited = replace(model, network=copy.deepcopy(model.network).eval())
        self.change(edited, setup)
        self.facts |= _moved(weights_of(model.network), weights_of(edited.network))
        return edited

    @abstractmethod
    def change(self, model: ScoreModel, setup: EditSetup) -> None:
        """Change the weights of ``model``, which is in eval mode, in place."""


EDITS: Registry[Edit] = Registry("edit")


def _moved(before: Weights, after: Weights) -> dict[str, float]:
    """Return the share of weights with another value, and how far all have moved, a tensor at a time."""
    changed = total = moved = length = 0.0
    for name, weight in before.items():
        old, new = in_double(weight), in_double(after[name])
        changed, total = changed + (old != new).sum().item(), total + old.numel()
        moved, length = moved + (new - old).square().sum().item(), length + old.square().sum().item()
    return {"changed_share": changed / total, "distance": (moved / length) ** 0.5}


def in_double(values: Tensor) -> Tensor:
    """Return ``values`` in float64, on the CPU where their device has no such numbers."""
    return (values.cpu() if values.device.type in WITHOUT_FLOAT64 else values).double()


@dataclass(frozen=True)
class Noisings:
    """Batches of noised items, each of them ``levels`` times, at one time from each of so many parts of the path.

    They are drawn when they are gone through, the same ones each time, so that one batch is held at a time.

    Example:
        >>> batches = Noisings(msgm.VP(), msgm.objectives.Drawn(torch.zeros(100, 2)), levels=4, seed=0)
        >>> [len(batch.x) for batch in batches], len(batches)
        ([256, 144], 400)

    Attributes:
        process: whose path they lie on.
        drawn: clean items, with their labels.
        levels: times of each item.
        seed: of times and noise.
    """

    process: Process
    drawn: Drawn
    levels: int
    seed: int

    def __len__(self) -> int:
        """Return the number of noised items in all batches."""
        return len(self.drawn.items) * self.levels

    def __iter__(self) -> Iterator[Noised]:
        """Yield batches of up to ``BATCH`` noised items."""
        items, labels = self.drawn
        draws = generator(self.seed, "noisings", device=items.device)
        numbers = torch.arange(len(self), device=items.device)
        parts = numbers % self.levels + torch.rand(len(self), generator=draws, device=items.device)
        times = self.process.training_times(parts / self.levels)
        for chosen in numbers.split(BATCH):
            which = chosen // self.levels
            x0 = items[which]
            eps = torch.randn(x0.shape, generator=draws, device=items.device)
            condition = None if labels is None else Condition(labels[which])
            yield noised(self.process, x0, times[chosen], eps, None, condition)
