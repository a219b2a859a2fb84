"""``check_objective``: what the trainer relies on in every objective.

The rules are tried on vectors and images, on VP and VE, with a network of two weights whose gradient is known to be
there, and on batches of different sizes, so that no rule holds by accident of a shape.
"""

import copy
import itertools
import json
import math
from dataclasses import fields, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from msgm.diffusion import VE, VP, Condition, Process, ScoreModel
from msgm.diffusion.conditions import NULL
from msgm.objectives import Drawn, Moments, Noised, Objective, Setup, Term, moments, noised
from msgm.objectives.base import Data
from msgm.seeding import generator
from msgm.testing.rules import Refused, check_settings, check_texts, made, own_randomness, repeated, require

STEPS = 1000
"""Steps among which one with and one without a forget batch is looked for."""
RETAIN, FORGET = 6, 4
FEW = {"classifier_steps": 2}
"""Settings of preparation that are lowered for speed, where an objective has them."""
CLASSES = 3
"""Of the network of an objective that needs classes, of which the last is forgotten."""
SHAPES = ((3,), (2, 4, 4))
PROCESSES = (VP(), VE())
DATA = get_args(Data)
Terms = dict[str, Term]


def check_objective(objective: Objective | type[Objective]) -> None:
    """Check that an objective keeps every rule that the trainer relies on.

    - It is a dataclass whose settings round-trip through a config, and wrong settings are UserErrors.
    - It has a name and a card, and declares the data that it needs; it asks for forget batches if, and only if, it
      declares them, counts them right, and its loss depends on them.
    - Its terms are named, with finite weights and finite per-sample losses of shape (B,), which depend on no other
      sample; at least one of them has a gradient in the network.
    - It draws nothing from a global generator, gives the same loss again, and leaves its batches as they are.
    - ``prepare`` is deterministic; ``merge``, where the objective asks for it, merges gradients weight by weight.

    Example:
        >>> from msgm.testing import check_objective
        >>> check_objective(msgm.Redirect)
        >>> check_objective(msgm.Obtuse(alpha=0.9, every=1))

    Args:
        objective: an objective with its settings, or a class, which is tried with its defaults; ``classifier_steps``,
            where it has such a setting, is lowered for speed.

    Raises:
        Refused: a rule is broken; the message says which in one sentence.
    """
    found = made(objective, Objective)
    check_settings(found)
    _check_card(found)
    _check_steps(found)
    fewer: dict[str, Any] = {key: few for key, few in FEW.items() if hasattr(found, key)}
    found = replace(found, **fewer)
    for process, shape in itertools.product(PROCESSES, SHAPES):
        world = _World(found, process, shape)
        for forget in world.steps:
            _check_terms(world, forget)
            _check_gradient(world, forget)
            _check_samples_apart(world, forget)
        _check_prepare(world, found)
        if "forget" in found.needs:
            _check_forget_data_matter(world)
        if found.merges:
            _check_combine(world)


class _Network(nn.Module):
    """Puts out w x + v, each item by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([0.5, 0.1]))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.weights[0] * x + self.weights[1]


class _Asked(_Network):
    """The same, with a slope that each class moves."""

    classes = CLASSES

    def forward(self, x: Tensor, label: Tensor, condition: Condition | None = None) -> Tensor:
        labels = torch.full((len(x),), NULL, device=x.device) if condition is None else condition.labels
        assert labels is not None
        moved = self.weights[0] * (1 + 0.1 * (labels + 1).to(x.dtype))
        return moved.view(-1, *[1] * (x.dim() - 1)) * x + self.weights[1]


class _World:
    """A prepared copy of an objective, with a model and batches to try it on."""

    def __init__(self, objective: Objective, process: Process, shape: tuple[int, ...]) -> None:
        self.name, self.conditional = type(objective).__name__, objective.conditional
        self.model = ScoreModel(_Asked() if self.conditional else _Network(), process, shape)
        self.objective = self.prepared(objective)
        self.retain = None if objective.needs == "forget" else self._asked(_batch(process, RETAIN, shape, 0), 0)
        self.forget, self.other = (self._asked(_batch(process, FORGET, shape, seed), CLASSES - 1) for seed in (1, 2))
        uses = {objective.uses_forget(step) for step in range(STEPS)}
        self.steps = [self.forget if used else None for used in sorted(uses)]
        """The forget batch of each kind of step that there is, None of those without one."""

    def _asked(self, batch: Noised, label: int) -> Noised:
        """Return a batch with its labels, where the network reads labels: ``label`` and none in turn."""
        labels = torch.where(torch.arange(len(batch.x)) % 2 == 0, label, NULL)
        return replace(batch, condition=Condition(labels)) if self.conditional else batch

    def prepared(self, objective: Objective) -> Objective:
        """Return a copy of ``objective`` that did its one-off work."""
        items = torch.randn(32, *self.model.shape, generator=torch.Generator().manual_seed(9))
        labels = torch.full((len(items),), CLASSES - 1)
        setup = Setup(
            lambda: copy.deepcopy(self.model),
            lambda count: items[:count].clone(),
            self._tuned,
            lambda count: Drawn(items[:count] + 1, labels[:count] if self.conditional else None),
            lambda count: Drawn(items.repeat(count // len(items) + 1, *[1] * len(self.model.shape))[:count]),
            self._moments,
            STEPS,
            0.25,
            retained=tuple(range(CLASSES - 1)) if self.conditional else (),
            forgotten=(CLASSES - 1,) if self.conditional else (),
        )
        prepared = copy.deepcopy(objective)
        with own_randomness(f"{self.name}.prepare"):
            prepared.prepare(setup)
        return prepared

    def _tuned(self, steps: int) -> ScoreModel:
        tuned = copy.deepcopy(self.model)
        with torch.no_grad():
            tuned.network.get_parameter("weights").add_(0.25)
        return tuned

    def _moments(self, part: str, items: int, levels: int = 10, batch: int = 1) -> Moments:
        given = torch.randn(min(items, 8), *self.model.shape, generator=torch.Generator().manual_seed(len(part)))
        return moments(self.model, given, levels, batch)

    def terms(self, retain: Noised | None, forget: Noised | None, objective: Objective | None = None) -> Terms:
        return (objective or self.objective).terms(self.model.eps, retain, forget)  # type: ignore[arg-type]

    def values(self, forget: Noised | None, objective: Objective | None = None) -> dict[str, Tensor]:
        """Return the per-sample losses by the term's name."""
        found = self.terms(self.retain, forget, objective)
        return {name: term.values.detach() for name, term in found.items()}


def _batch(process: Process, count: int, shape: tuple[int, ...], seed: int) -> Noised:
    """Return noised items at times from the start of the path to its end."""
    draws = torch.Generator().manual_seed(seed)
    x0, eps = torch.randn(2, count, *shape, generator=draws)
    whole = int(torch.randint(2**31, (), generator=draws))

    def uniform(name: str = "") -> Tensor:
        return torch.rand(count, *shape, generator=generator(whole, name))

    return noised(process, x0, torch.linspace(process.t_min, 1.0, count), eps, uniform)


def _first(batch: Noised, count: int) -> Noised:
    """Return the first items of a batch."""
    kept = {f.name: getattr(batch, f.name) for f in fields(Noised) if f.name != "uniform"}
    parts: dict[str, Any] = {name: None if part is None else part[:count] for name, part in kept.items()}
    return Noised(**parts, uniform=lambda name="": batch.uniform(name)[:count])


def _check_card(objective: Objective) -> None:
    cls = type(objective)
    check_texts(cls.__name__, cls, "name")
    check_texts(f"{cls.__name__}.card", getattr(cls, "card", None), "formula", "source", "deviations")
    data = getattr(cls, "data", None)
    require(data in DATA, f"{cls.__name__}.data is {data!r}; expected one of {', '.join(DATA)}.")
    try:
        json.dumps(objective.effective(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Refused(f"{cls.__name__}.effective holds what a report cannot: {error}.") from error


def _check_steps(objective: Objective) -> None:
    """Check when forget batches are asked for, and that the count of them follows."""
    name = type(objective).__name__
    used = [objective.uses_forget(step) for step in range(STEPS)]
    wants = "forget" in objective.needs
    require(wants or not any(used), f"{name} asks for forget batches, which its data, {objective.needs!r}, lack.")
    require(any(used) or not wants, f"{name} declares forget data and asks for none in the first {STEPS} steps.")
    for step, expected in enumerate(itertools.accumulate(used, initial=0)):
        counted = objective.forget_batches(step)
        require(
            counted == expected,
            f"{name}.forget_batches({step}) is {counted}, but {expected} of the steps before use a forget batch.",
        )


def _check_terms(world: _World, forget: Noised | None) -> None:
    """Check names, weights and losses, that they are the same again, and that the batches stay as they were."""
    name, step = world.name, "with" if forget else "without"
    batches = [batch for batch in (world.retain, forget) if batch]
    before = [batch.x.clone() for batch in batches]
    repeated(f"{name}.terms", lambda: world.values(forget))
    require(
        all(torch.equal(batch.x, x) for batch, x in zip(batches, before, strict=True)),
        f"{name}.terms changes the batch that it was given.",
    )
    terms = world.terms(world.retain, forget)
    require(bool(terms), f"{name}.terms gives no term on a step {step} a forget batch.")
    lengths = {len(batch.x) for batch in batches}
    for key, (weight, values) in terms.items():
        require(isinstance(key, str) and bool(key), f"{name}.terms: the name {key!r} of a term is no text.")
        require(math.isfinite(weight), f"{name}: the weight of the term {key!r} is {weight}.")
        require(
            values.dim() == 1 and len(values) in lengths,
            f"{name}: the term {key!r} has shape {tuple(values.shape)}; expected one loss for each sample, "
            f"{' or '.join(f'({n},)' for n in sorted(lengths))}.",
        )
        require(bool(values.isfinite().all()), f"{name}: the term {key!r} is not finite at every time of the path.")


def _check_gradient(world: _World, forget: Noised | None) -> None:
    terms = world.terms(world.retain, forget).values()
    loss = torch.stack([term.weight * term.values.mean() for term in terms]).sum()
    weights = list(world.model.network.parameters())
    found = torch.autograd.grad(loss, weights, allow_unused=True) if loss.requires_grad else ()
    finite = all(g is None or bool(g.isfinite().all()) for g in found)
    require(finite, f"{world.name}: the gradient of the loss is not finite.")
    moved = any(g is not None and bool(g.any()) for g in found)
    require(moved, f"{world.name}: no gradient of the loss reaches the network.")


def _check_samples_apart(world: _World, forget: Noised | None) -> None:
    """Check that a sample's loss is the same in a smaller batch, as it is when processes share a batch."""
    whole = world.terms(world.retain, forget)
    part = world.terms(world.retain and _first(world.retain, RETAIN // 2), forget and _first(forget, FORGET // 2))
    for key, term in part.items():
        same = torch.allclose(term.values, whole[key].values[: len(term.values)], rtol=1e-4, atol=1e-5)
        require(same, f"{world.name}: a sample's loss {key!r} depends on the other samples of its batch.")


def _check_forget_data_matter(world: _World) -> None:
    one, two = world.values(world.forget), world.values(world.other)
    differs = any(not torch.equal(one[key], two[key]) for key in one)
    require(differs, f"{world.name} declares forget data, but its loss does not depend on the forget batch.")


def _check_combine(world: _World) -> None:
    """Check that two terms are there whose gradients can be merged, and what becomes of them."""
    keys = sorted(world.values(world.forget))
    require(
        len(keys) > 1 and "forget" in keys,
        f"{world.name} combines gradients, for which its terms must be forget and another; they are {', '.join(keys)}.",
    )
    one, two = [torch.ones(2), torch.ones(2, 3)], [torch.full((2,), -0.5), torch.full((2, 3), 2.0)]
    merged = world.objective.merge(one, two)
    shapes = [tuple(g.shape) for g in merged]
    require(
        shapes == [(2,), (2, 3)] and all(bool(g.isfinite().all()) for g in merged),
        f"{world.name}.merge gives gradients of shapes {shapes} for weights of shapes [(2,), (2, 3)], or not finite.",
    )


def _check_prepare(world: _World, objective: Objective) -> None:
    again = world.prepared(objective)
    for forget in world.steps:
        one, two = world.values(forget), world.values(forget, again)
        same = all(torch.equal(one[key], two[key]) for key in one)
        require(same, f"{world.name}.prepare is not deterministic: a resumed run would go on with another loss.")
    try:
        json.dumps(again.found(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Refused(f"{world.name}.found holds what a report cannot: {error}.") from error
