"""``check_guidance``: what sampling and comparisons rely on in every guidance."""

import copy
import json
from typing import Any

import torch
from torch import Tensor

from msgm.curvature import weights_of
from msgm.diffusion import Condition, Guidance, SamplingSettings, ScoreModel, sample
from msgm.errors import UserError
from msgm.objectives import Drawn, Setup
from msgm.seeding import generator
from msgm.testing.rules import Refused, check_settings, check_texts, made, own_randomness, repeated, require

SHAPE = (1, 8, 8)
CLASSES = 10
FEW = {"steps": 2, "items": 8}
"""Settings of preparation that are lowered for speed, where a guidance has them."""
SAMPLING = SamplingSettings(sampler="ancestral", steps=3)


def check_guidance(guidance: Guidance | type[Guidance]) -> None:
    """Check that a guidance keeps every rule that sampling and comparisons rely on.

    - It is a dataclass whose settings round-trip through a config, and wrong settings are UserErrors.
    - It has a name, a formula, a source and deviations, and says why no flow gives its samples, or that one does.
    - The model that it guides stays as it is. ``prepare`` tunes a copy of it if, and only if, ``tunes`` says so.
    - Its eps is finite and shaped like x. A sample depends neither on the others of its batch nor on an earlier walk.
    - It draws nothing from a global generator, and is the same again; from its ``state`` the same guidance is recalled.

    It is tried on an unconditional model, or on one of ten classes where it refuses the former.

    Example:
        >>> from msgm.diffusion.guidance import Spell
        >>> from msgm.testing import check_guidance
        >>> check_guidance(Spell)

    Args:
        guidance: guidance with its settings, or a class, which is tried with its defaults; ``steps`` and ``items``,
            where it has such settings, are lowered for speed.

    Raises:
        Refused: a rule is broken; the message says which in one sentence.
    """
    found = made(guidance, Guidance)
    name = type(found).__name__
    check_settings(found)
    check_texts(name, type(found), "name", "formula", "source", "deviations")
    require(
        found.no_density is None or bool(str(found.no_density).strip()),
        f"{name}.no_density is empty; say why no flow gives its samples, or leave it None.",
    )
    for key, few in FEW.items():
        if isinstance(getattr(found, key, None), int):
            setattr(found, key, min(getattr(found, key), few))
    model = _model(found)
    before = weights_of(copy.deepcopy(model.network))
    repeated(f"{name}.prepare", lambda: _prepared(found, model).state())
    ready = _prepared(found, model)
    _check_eps(ready, model)
    samples = _check_walks(ready, model)
    again = copy.deepcopy(found)
    with own_randomness(f"{name}.recall"):
        again.recall(ready.state(), model)
    same = all(torch.equal(value, before[key]) for key, value in weights_of(model.network).items())
    require(same, f"{name} changes the weights of the model that it guides.")
    recalled = torch.equal(_samples(again, model, 4), samples)
    require(recalled, f"{name}: what is recalled from its state guides otherwise.")
    _check_told(ready)


def _model(guidance: Guidance) -> ScoreModel:
    """Return a model that the guidance takes.

    Raises:
        Refused: it takes neither.
    """
    for classes in (0, CLASSES):
        try:
            guidance.check(classes)
        except UserError as error:
            refusal = error
            continue
        return ScoreModel.new("unet", "vp", shape=SHAPE, channels=[8], classes=classes)
    raise Refused(
        f"{type(guidance).__name__}.check refuses an unconditional model and one of {CLASSES} classes: {refusal}"
    )


def _prepared(guidance: Guidance, model: ScoreModel) -> Guidance:
    tuned = list[int]()

    def tune(steps: int) -> ScoreModel:
        tuned.append(steps)
        found = copy.deepcopy(model)
        with torch.no_grad():
            for number, weight in enumerate(found.network.parameters()):
                weight.add_(0.01 * torch.randn(weight.shape, generator=generator(1, "tuned", number)))
        return found

    def drawn(part: str, count: int) -> Drawn:
        return Drawn(2 * torch.rand(count, *SHAPE, generator=generator(0, part)) - 1)

    ready = copy.deepcopy(guidance)
    ready.prepare(
        Setup(
            lambda: copy.deepcopy(model),
            lambda count: drawn("retain", count).items,
            tune,
            lambda count: drawn("forget", count),
            forget_share=0.25,
            forgotten=(CLASSES - 1,) if model.classes else (),
        )
    )
    says = "does not say so" if tuned else "says so and tunes none"
    require(
        bool(tuned) == guidance.tunes,
        f"{type(guidance).__name__}.tunes: whether it prepares by tuning a copy of the model; it {says}.",
    )
    return ready


def _check_eps(guidance: Guidance, model: ScoreModel) -> None:
    name, x = type(guidance).__name__, torch.randn(2, *SHAPE, generator=generator(2))
    asked = Condition(torch.tensor([3, -1])) if model.classes else None
    view = guidance.wrap(model)
    t = torch.full((2,), 0.5)
    found = repeated(f"{name}.eps", lambda: {"eps": view.for_walk().eps(x, t, asked).detach()})["eps"]
    require(found.shape == x.shape, f"{name}.eps has shape {tuple(found.shape)} where x has {tuple(x.shape)}.")
    require(bool(found.isfinite().all()), f"{name}.eps is not finite.")
    kept = guidance.accepts(x)
    require(
        kept is None or (kept.dtype == torch.bool and kept.shape == (2,)),
        f"{name}.accepts: expected None or one bool for each sample.",
    )


def _samples(guidance: Guidance, model: ScoreModel, count: int, first: int = 0) -> Tensor:
    asked = list(range(first, first + count)) if model.classes else None
    return sample(guidance.wrap(model), count, SAMPLING, seed=0, first=first, condition=asked)


def _check_walks(guidance: Guidance, model: ScoreModel) -> Tensor:
    """Return four samples, the same after another walk and in a batch of two."""
    name = type(guidance).__name__
    whole = repeated(f"a walk guided by {name}", lambda: {"samples": _samples(guidance, model, 4)})["samples"]
    part = _samples(guidance, model, 2, 2)
    same = torch.allclose(whole[2:], part, rtol=1e-3, atol=1e-4)
    require(same, f"{name}: a sample depends on the other samples of its batch.")
    return whole


def _check_told(guidance: Guidance) -> None:
    name = type(guidance).__name__
    found: dict[str, Any] = guidance.state()
    require(
        all(isinstance(value, Tensor) for value in found.values()), f"{name}.state holds something that is no tensor."
    )
    try:
        json.dumps(guidance.effective(), allow_nan=False)
    except (TypeError, ValueError) as error:
        require(False, f"{name}.effective holds what a report cannot: {error}.")
