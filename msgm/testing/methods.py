"""``check_method``: what comparisons and ``forget`` rely on in every method of classifiers.

Rules are tried on a small network with batch normalisation and dropout that was trained on four clouds of vectors, with
every kind of request that the method's card names: a whole class, some items, and a single one.
"""

import copy
import json
import math
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msgm.classifier.data import Split, split_by
from msgm.classifier.methods import Ledger, Method, Settings, Unlearned
from msgm.classifier.modules import fresh_weights
from msgm.classifier.networks import Standardise
from msgm.classifier.training import TrainingSettings, fit, logits
from msgm.data import Dataset
from msgm.errors import RunError, UserError
from msgm.seeding import generator
from msgm.testing.rules import Refused, check_settings, check_texts, made, repeated, require

CLASSES, EACH, DIMENSIONS = 4, 30, 5
CPU = torch.device("cpu")
TRAINING = TrainingSettings(lr=0.05, epochs=4, batch_size=16)
PARTS = ("forget", "retain", "tuning")
HELD = ("nonmembers", "test")
"""Parts that no method may read: they are the attacks' and the report's."""
FAMILIES = ("exact", "approximate update", "distillation", "mask", "edit", "none")
SCOPES = ("instances", "class")


def check_method(method: Method | type[Method]) -> None:
    """Check that a classifier method keeps every rule that comparisons rely on.

    - It is a dataclass whose settings round-trip through a config, and wrong settings are UserErrors.
    - Its card names formula, source, family, the data that it needs and the requests that it answers; it reads no other
      data, and refuses other requests with a UserError.
    - The given module stays as it is. The new one shares no storage with it, is in eval mode, holds no gradients, has
      one finite number for each class, and differs from the given one unless the family is ``none``.
    - A single item to forget, and batches of one item, give finite numbers.
    - It draws nothing from a global generator, and the seed decides everything.
    - Its cost is finite, and its artefacts are JSON but for those whose name starts with an underscore.

    Example:
        >>> from msgm.testing import check_method
        >>> check_method(msgm.classifier.NegGrad)

    Args:
        method: a method with its settings, or a class, which is tried with its defaults.

    Raises:
        Refused: a rule is broken; the message says which in one sentence.
    """
    found = made(method, Method)
    check_settings(found)
    _check_card(found)
    for scope in SCOPES:
        if scope not in found.card.scopes:
            _check_refusal(found, _split(scope))
    splits = [_split(scope) for scope in found.card.scopes]
    single = [_one_item(_split("instances"))] if "instances" in found.card.scopes else []
    changed = [_check_answer(found, split) for split in splits + single]
    for split in splits:
        _check_reads(found, split)
    if found.card.family == "none":
        require(not any(changed), f"{type(found).__name__} is of the family none and changes the module.")
    else:
        require(any(changed), f"{type(found).__name__} changes no weight; a control like that is of the family none.")


@cache
def _data() -> Dataset:
    """Return clouds of vectors, one a class."""
    labels = np.repeat(np.arange(CLASSES), EACH)
    centres = 4 * torch.randn(CLASSES, DIMENSIONS, generator=generator("testing", "centres"))
    items = centres[torch.from_numpy(labels)] + torch.randn(
        len(labels), DIMENSIONS, generator=generator("testing", "items")
    )
    return Dataset("clouds", items, (DIMENSIONS,), None, labels, [f"class {k}" for k in range(CLASSES)])


def _split(scope: str) -> Split:
    """Return a request for a class, or for some items of every class."""
    data, position = _data(), np.arange(CLASSES * EACH)
    parts = {name: position[position % 9 == k] for k, name in enumerate(("tuning", *HELD))}
    forget = data.labels == CLASSES - 1 if scope == "class" else position % 10 == 3
    return split_by(data, parts | {"train": position[position % 9 >= 3]}, np.asarray(forget))


def _one_item(split: Split) -> Split:
    """Return a request for a single item, with retain items of which one is left over in the last batch."""
    count = (len(split.retain) - 1) // TRAINING.batch_size * TRAINING.batch_size + 1
    first: NDArray[np.int64] = np.arange(count)
    return replace(split, forget=split.forget.subset(first[:1]), retain=split.retain.subset(first))


@cache
def _network(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [Standardise(DIMENSIONS), nn.Linear(DIMENSIONS, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2)]
        return fresh_weights(nn.Sequential(*layers, nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, CLASSES)))(seed)


def _settings(seed: int = 7) -> Settings:
    return Settings(TRAINING, seed, CPU, lambda number: copy.deepcopy(_network(number)), original_seed=0)


def _trained(split: Split) -> nn.Module:
    return fit(copy.deepcopy(_network(0)), split.train, TRAINING, 0)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _answered(method: Method, model: nn.Module, split: Split) -> Unlearned:
    try:
        return method.unlearn(model, split, _settings())
    except (RunError, UserError) as error:
        asked = "a whole class" if split.scope == "class" else f"{len(split.forget)} single items"
        raise Refused(f"{type(method).__name__} fails on a request for {asked}: {error}") from error


def _check_card(method: Method) -> None:
    cls = type(method)
    card = getattr(cls, "card", None)
    check_texts(cls.__name__, cls, "name")
    check_texts(f"{cls.__name__}.card", card, "formula", "source", "touches", "deviations")
    for key, given, known in (
        ("needs", method.card.needs, PARTS),
        ("reads", method.reads(), method.card.needs),
        ("scopes", method.card.scopes, SCOPES),
        ("family", (method.card.family,), FAMILIES),
    ):
        other = [one for one in given if one not in known]
        require(not other, f"{cls.__name__}: {key} has {', '.join(other)}; known: {', '.join(known) or 'none'}.")
    require(bool(method.card.scopes), f"{cls.__name__}.card names no kind of request that it answers.")


def _check_answer(method: Method, split: Split) -> bool:
    """Check one answer: the module that was given, the one that came back, and its cost; return whether they differ."""
    name, model = type(method).__name__, _trained(split)
    before, modes = _state(model), [module.training for module in model.modules()]
    found: list[Unlearned] = []

    def answer() -> dict[str, Tensor]:
        found.append(_answered(method, model, split))
        untouched = _same(before, _state(model)) and modes == [module.training for module in model.modules()]
        require(untouched, f"{name} changes the module that it was given.")
        return _state(found[-1].model)

    after = repeated(f"{name}.unlearn", answer)
    _check_model(name, model, found[-1].model, split)
    cost = asdict(found[-1].cost)
    wrong = [key for key, value in cost.items() if not (math.isfinite(value) and value >= 0)]
    require(not wrong, f"{name}: its cost has {', '.join(f'{key} {cost[key]}' for key in wrong)}.")
    try:
        json.dumps({key: value for key, value in found[-1].artefacts.items() if not key.startswith("_")})
    except TypeError as error:
        raise Refused(f"{name}: an artefact without an underscore first is no JSON value: {error}.") from error
    return not _same(before, after)


def _check_model(name: str, given: nn.Module, model: nn.Module, split: Split) -> None:
    old = {value.untyped_storage().data_ptr() for value in given.state_dict().values()}
    new = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}
    require(old.isdisjoint(new), f"{name} gives a module that shares storage with the one that was given.")
    require(not any(module.training for module in model.modules()), f"{name} gives a module that is not in eval mode.")
    require(
        all(weights.grad is None for weights in model.parameters()),
        f"{name} leaves gradients in the module, and with them what it computed on the items to forget.",
    )
    out = logits(model, split.train)
    require(
        out.shape == (len(split.train), CLASSES),
        f"{name} gives a module whose outputs have shape {tuple(out.shape[1:])} an item; expected ({CLASSES},).",
    )
    require(bool(out.isfinite().all()), f"{name} gives a module whose outputs are not finite.")


class _Unreadable(Dataset):
    """Data of which no item may be read; ``name`` says whose they are."""

    def resident(self, device: torch.device) -> Tensor | None:
        raise Refused(self.name)

    def take(self, indices: NDArray[np.int64]) -> Tensor:
        raise Refused(self.name)


def _check_reads(method: Method, split: Split) -> None:
    """Check that the method does without the items of every part that it does not declare."""
    data, hidden = _data(), {}
    for part in (*PARTS, *HELD):
        if part not in method.reads():
            sentence = f"{type(method).__name__} reads {part} items, which its card does not name."
            closed = _Unreadable(sentence, data.items, data.shape, None, data.labels, data.classes)
            hidden[part] = replace(getattr(split, part), dataset=closed)
    method._forget(_trained(split), replace(split, **hidden), _settings(), Ledger(CPU))


def _check_refusal(method: Method, split: Split) -> None:
    asked = "a whole class" if split.scope == "class" else "single items"
    try:
        method.unlearn(_trained(split), split, _settings())
    except UserError:
        return
    except RunError as error:
        raise Refused(
            f"{type(method).__name__} fails on a request for {asked}, which its card does not name, where a UserError "
            f"is expected: {error}"
        ) from error
    raise Refused(f"{type(method).__name__} answers a request for {asked}, which its card does not name.")
