"""Any torch module and any labelled torch Dataset, as the methods take them.

``asked`` turns them, with a request, into the ``Split`` that ``Method.unlearn`` takes.
"""

import copy
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset

from msgm.classifier.data import Examples, Split, scope_of
from msgm.classifier.training import outputs_shape
from msgm.data import Dataset
from msgm.errors import UserError
from msgm.fields import structured
from msgm.ids import shown
from msgm.requests import ForgetRequest
from msgm.seeding import derive_seed

Labelled: TypeAlias = TorchDataset[Any] | Dataset
"""Pairs (input, class number) with a length, such as a ``TensorDataset``; or one of msgm's own data sets."""
Build: TypeAlias = Callable[[int], nn.Module]


def read_labelled(data: Labelled, module: nn.Module) -> Dataset:
    """Return a data set with every item read once, in order, and as many classes as ``module`` has outputs.

    Example:
        >>> read_labelled(data, network).classes
        ['0', '1', '2']

    Inputs are kept as the data set returns them; a random transform is applied once per item.

    Raises:
        UserError: no length, no item, items that are no pairs of an array and a class number, shapes that differ, or
            classes that the module has no output for.
    """
    if isinstance(data, Dataset):
        return data
    if not hasattr(data, "__len__"):
        raise UserError(f"dataset: {type(data).__name__} has no length, so a request cannot name its items.")
    pairs = [_pair(data, number) for number in range(len(data))]
    if not pairs:
        raise UserError("dataset: it has no item.")
    shape = pairs[0][0].shape
    odd = next((number for number, (x, _) in enumerate(pairs) if x.shape != shape), None)
    if odd is not None:
        raise UserError(f"dataset: item {odd} has shape {tuple(pairs[odd][0].shape)}, item 0 has {tuple(shape)}.")
    items, labels = torch.stack([x for x, _ in pairs]), np.array([y for _, y in pairs], dtype=np.int64)
    outputs = outputs_shape(module, items[:1])
    if len(outputs) != 1:
        raise UserError(f"the module puts out {outputs} for an item; expected one number for each class.")
    width = outputs[0]
    if labels.min() < 0 or labels.max() >= width:
        wrong = int(np.flatnonzero((labels < 0) | (labels >= width))[0])
        raise UserError(f"dataset: item {wrong} is of class {labels[wrong]}; the module has outputs 0 to {width - 1}.")
    names = getattr(data, "classes", None)
    classes = [str(name) for name in names] if names and len(names) == width else [str(k) for k in range(width)]
    return Dataset(type(data).__name__, items, tuple(shape), None, labels, classes)


def _pair(data: Any, number: int) -> tuple[Tensor, int]:
    """Return input and class number of an item."""
    item = data[number]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise UserError(f"dataset: item {number} is no pair (input, class number), but {shown(item)[:80]}.")
    try:
        x = torch.as_tensor(item[0]).float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"dataset: the input of item {number} is a {type(item[0]).__name__}; expected a tensor or an array, as a "
            "transform such as torchvision's ToTensor makes it."
        ) from error
    try:
        return x, operator.index(item[1])
    except TypeError as error:
        raise UserError(f"dataset: item {number} has the class {shown(item[1])}; expected a whole number.") from error


def fresh_weights(module: nn.Module) -> Build:
    """Return ``build(seed)``, which copies ``module`` and draws every layer's weights anew by its ``reset_parameters``.

    Example:
        >>> build = fresh_weights(network)
        >>> torch.equal(build(1)[0].weight, build(1)[0].weight), torch.equal(build(1)[0].weight, build(2)[0].weight)
        (True, False)

    Raises:
        UserError: at ``build``, a layer holds weights of its own and has no such method.
    """

    def build(seed: int) -> nn.Module:
        made = copy.deepcopy(module)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "weights"))
            for name, layer in made.named_modules():
                reset: Callable[[], None] | None = getattr(layer, "reset_parameters", None)
                if callable(reset):
                    reset()
                elif any(True for _ in layer.parameters(recurse=False)):
                    raise UserError(
                        f"build: the weights of {name or 'the module'}, a {type(layer).__name__}, cannot be drawn "
                        "anew: it has no reset_parameters; give build, a function of a seed that returns a new module."
                    )
        return made

    return build


def asked(
    module: nn.Module,
    dataset: Labelled,
    request: ForgetRequest | Mapping[str, Any],
    held_out: Labelled | None = None,
) -> Split:
    """Return the split that a request makes of the items that ``module`` was trained on.

    Example:
        >>> split = asked(network, data, {"labels": ["2"]})
        >>> len(split.retain), len(split.forget)
        (200, 100)

    Args:
        module: gives (B, C) logits.
        dataset: its training data.
        request: which of these to forget; settings by name are read as a ``ForgetRequest``.
        held_out: items that it was not trained on; without them the part of tuning items is empty.

    Raises:
        UserError: data or a request that cannot be read, one that means a condition, or fewer than two classes left.
    """
    named = request if isinstance(request, ForgetRequest) else structured(ForgetRequest, request, "request")
    named.check_means(0)
    data = read_labelled(dataset, module)
    if data.labels is None:
        raise UserError(f"the {data.name} data have no class labels, which a classifier needs.")
    mask = data.forget_mask(named)
    none = Examples.of(data, np.empty(0, dtype=np.int64))
    unseen = none if held_out is None else _whole(read_labelled(held_out, module))
    return Split(
        Examples.of(data, np.flatnonzero(~mask)),
        Examples.of(data, np.flatnonzero(mask)),
        tuning=unseen,
        nonmembers=none,
        test=none,
        classes=list(data.classes),
        scope=scope_of(data.labels, mask),
    )


def _whole(data: Dataset) -> Examples:
    return Examples.of(data, np.arange(len(data)))
