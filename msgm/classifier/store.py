"""Classifiers on disk: ``model.safetensors`` with the weights, ``network.json`` with what network they are of."""

from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from msgm.classifier.networks import CLASSIFIERS, build
from msgm.errors import UserError
from msgm.folders import write_bytes, write_json
from msgm.reading import read_json

WEIGHTS = "model.safetensors"
NETWORK = "network.json"


def save_classifier(
    model: nn.Module, folder: Path, network: dict[str, Any], shape: tuple[int, ...], classes: int
) -> None:
    """Write a model.

    Args:
        model: of the network that the settings describe.
        folder: where to; made if need be.
        network: the network's settings.
        shape: of one input.
        classes: the number of logits.
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    write_bytes(folder / WEIGHTS, safetensors.torch.save(tensors))
    write_json(folder / NETWORK, {"network": network, "shape": list(shape), "classes": classes})


def drop_classifier(folder: Path) -> None:
    """Delete a model's files, if there are any."""
    for name in (WEIGHTS, NETWORK):
        (folder / name).unlink(missing_ok=True)


def load_classifier(folder: Path) -> nn.Module:
    """Read a model, in eval mode on the CPU.

    Raises:
        UserError: a file is missing or damaged, or the weights are not the network's.
    """
    facts = read_json(folder / NETWORK)
    try:
        settings, shape, classes = facts["network"], tuple(facts["shape"]), facts["classes"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / NETWORK} is damaged: it needs network, shape and classes.") from error
    model = build(CLASSIFIERS.build(settings), shape, classes, seed=0)
    try:
        tensors = safetensors.torch.load_file(folder / WEIGHTS)
    except OSError as error:
        raise UserError(f"cannot read {folder / WEIGHTS}: {error}.") from error
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS} is damaged: {error}.") from error
    return filled(model, tensors, str(folder / WEIGHTS))


def filled(model: nn.Module, state: dict[str, Tensor], source: str) -> nn.Module:
    """Return ``model`` in eval mode with the weights ``state``, all of them.

    Raises:
        UserError: they are of another network.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{source} holds weights of another network: {_detail(error)}.") from error
    return model.eval()


def _detail(error: RuntimeError) -> str:
    lines = [line.strip().rstrip(".") for line in str(error).splitlines()[1:]]
    return "; ".join(lines)[:200]
