"""Classifiers on disk: ``model.safetensors`` with the weights, ``network.json`` with what network they are of.

``chain.json`` has the model's forget requests so far. An ensemble of shards has the folder ``shards`` in place of the
weights, which ``msgm.classifier.sisa`` reads and continues from.
"""

from pathlib import Path
from typing import Any, NotRequired, TypedDict

import safetensors.torch
from torch import Tensor, nn

from msgm.chain import FILE as CHAIN
from msgm.chain import Chain
from msgm.classifier.foreign import unwrapped
from msgm.classifier.networks import CLASSIFIERS, build
from msgm.classifier.sisa import Ensemble, load_ensemble
from msgm.errors import UserError
from msgm.folders import write_bytes, write_json
from msgm.plugins import Plugin, load_recorded, note_changed, plugins_of, refuse_foreign
from msgm.reading import read_json, read_tensors
from msgm.shapes import Positive

WEIGHTS = "model.safetensors"
NETWORK = "network.json"
SHARDS = "shards"


class Stored(TypedDict):
    """Contents of ``network.json``."""

    network: dict[str, Any]
    shape: list[Positive]
    classes: Positive
    plugins: NotRequired[list[Plugin]]


def save_classifier(
    model: nn.Module,
    folder: Path,
    network: dict[str, Any],
    shape: tuple[int, ...],
    classes: int,
    chain: Chain | None = None,
) -> None:
    """Write a model, its weights last, so that no weights lie there without their chain.

    Args:
        model: of the network that the settings describe.
        folder: where to; made if need be.
        network: the network's settings.
        shape: of one input.
        classes: the number of logits.
        chain: forget requests of the model so far; None if unknown.
    """
    (folder / WEIGHTS).unlink(missing_ok=True)
    if chain is not None:
        write_json(folder / CHAIN, chain.to_json())
    plugins = plugins_of(CLASSIFIERS.entries[network["name"]])
    facts = {"network": network, "shape": list(shape), "classes": classes, "plugins": plugins}
    write_json(folder / NETWORK, facts)
    if isinstance(model, Ensemble):
        return  # its shards are in their folder already
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    write_bytes(folder / WEIGHTS, safetensors.torch.save(tensors))


def load_classifier(folder: Path, own: dict[str, Any] | None = None) -> nn.Module:
    """Read a model, in eval mode on the CPU.

    Args:
        folder: what ``save_classifier`` wrote.
        own: settings of the network that the user's own config names, if he named one.

    Raises:
        UserError: a file is missing or damaged, the weights are not finite or not the network's, or the network is of
            the maker's own code, which the user does not trust.
    """
    facts: Stored = read_json(folder / NETWORK, Stored)
    plugins = facts.get("plugins", [])
    refuse_foreign(facts["network"], folder / NETWORK, own)
    if str(facts["network"].get("name")) not in CLASSIFIERS.entries:
        load_recorded(plugins, folder / NETWORK)
    network = CLASSIFIERS.build(facts["network"])
    note_changed(plugins, plugins_of(type(network)), folder)

    def made() -> nn.Module:
        try:
            return build(network, tuple(facts["shape"]), facts["classes"], seed=0)
        except RuntimeError as error:
            raise UserError(f"{folder / NETWORK}: no such network can be made: {_first_line(error)}.") from error

    if (folder / SHARDS).is_dir():
        return load_ensemble(folder / SHARDS, made)
    model = made()
    model.load_state_dict(read_tensors(folder / WEIGHTS, model.state_dict()))
    return model.eval()


def filled(model: nn.Module, state: dict[str, Tensor], source: str) -> nn.Module:
    """Return ``model`` in eval mode with the weights ``state``, all of them, under its own names or a wrapper's.

    Raises:
        UserError: they are of another network.
    """
    try:
        model.load_state_dict(unwrapped(state, model.state_dict()))
    except RuntimeError as error:
        raise UserError(f"{source} holds weights of another network: {_detail(error)}.") from error
    return model.eval()


def _first_line(error: RuntimeError) -> str:
    return str(error).splitlines()[0].rstrip(".")[:200]


def _detail(error: RuntimeError) -> str:
    lines = [line.strip().rstrip(".") for line in str(error).splitlines()[1:]]
    return "; ".join(lines)[:200]
