"""Adapters: low-rank changes of a network's layers (LoRA), trained in place of its weights.

An adapted layer's weights are W + s B A. W stands still, A starts at random and B at 0. The package peft makes the
layers. A network that has them names W ``LAYER.base_layer.weight``, A and B as below, and holds s as a buffer, so that
its state alone says what the weights come to.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from msgm.config import AdapterSettings, TrainingSettings
from msgm.diffusion import ScoreModel
from msgm.diffusion.networks import Library
from msgm.errors import UserError, nearest
from msgm.folders import whole_folder
from msgm.seeding import derive_seed

DOWN, UP = ".lora_A.default.weight", ".lora_B.default.weight"
"""Ends of the names of A and B."""
OWN = ".base_layer."
SCALE = "adapter_scale"
"""The buffer of s; a network without it has no adapter."""


def refuse_from_scratch(settings: TrainingSettings) -> None:
    """Refuse an adapter of a model with random weights."""
    if settings.adapter is not None:
        raise UserError(
            "training.adapter: an adapter is of a trained model, and this one starts from random weights; set "
            "finetune.adapter for runs that start from it."
        )


def check_installed(settings: TrainingSettings) -> None:
    """Refuse an adapter where the package that makes it is not installed."""
    if settings.adapter is not None:
        try:
            import peft  # noqa: F401
        except ImportError as error:
            raise UserError(
                "training.adapter: an adapter needs peft, which is not installed: pip install 'msgm[adapters]'."
            ) from error


def adapted(base: ScoreModel, settings: TrainingSettings, seed: int) -> ScoreModel:
    """Return the model with an adapter, the only part of it that is trained; the model itself where none is asked for.

    It shares the storage of its weights with ``base``, which stays as it is.

    Args:
        base: the trained model.
        settings: how to train.
        seed: of the run.

    Raises:
        UserError: peft is not installed, or a target that no layer has.
    """
    if settings.adapter is None:
        return base
    check_installed(settings)
    from peft import LoraConfig, inject_adapter_in_model

    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in base.network.parameters()}
    network = copy.deepcopy(base.network, shared)
    body, rank = _body(network), settings.adapter.rank
    alpha = rank if settings.adapter.alpha is None else settings.adapter.alpha
    layers = "|".join(map(re.escape, _layers(body, settings.adapter)))
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "adapter"))
        inject_adapter_in_model(config, body)
    network.register_buffer(SCALE, torch.tensor(alpha / rank, device=base.device))
    return base.with_network(network)


def _body(network: nn.Module) -> nn.Module:
    """Return the network as its library knows it: peft reads an adapter back into that."""
    return network.body if isinstance(network, Library) else network


def _layers(body: nn.Module, settings: AdapterSettings) -> list[str]:
    """Return the names of the layers to adapt.

    Raises:
        UserError: a target that no name fits.
    """
    kinds = nn.Linear, nn.Conv2d
    names = [name for name, layer in body.named_modules() if isinstance(layer, kinds)]
    for target in settings.targets:
        if not any(fnmatchcase(name, target) for name in names):
            raise UserError(
                f"training.adapter.targets: {target!r} fits the name of none of the {len(names)} linear and "
                f"convolutional layers.{nearest(target, names)}"
            )
    return [name for name in names if any(fnmatchcase(name, target) for target in settings.targets)]


class Merged(Mapping[str, Tensor]):
    """A state's tensors under their names without an adapter, which is added to them as they are read.

    Args:
        state: parameters and buffers of a network, with an adapter or without.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state
        self.names = {name.replace(OWN, "."): name for name in state if ".lora_" not in name and name != SCALE}

    def __getitem__(self, name: str) -> Tensor:
        own, layer = self.state[self.names[name]], name.removesuffix(".weight")
        if layer + DOWN not in self.state:
            return own
        change = self.state[layer + UP].flatten(1) @ self.state[layer + DOWN].flatten(1)
        return own + self.state[SCALE] * change.view_as(own)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def trained_weights(network: nn.Module) -> Mapping[str, Tensor]:
    """Return the weights that training changes, under their names without an adapter, which is added to them."""
    weights = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if not has_adapter(network):
        return weights
    found = Merged(dict(network.named_parameters()) | dict(network.named_buffers()))
    found.names = {name: own for name, own in found.names.items() if name.removesuffix(".weight") + DOWN in weights}
    return found


def has_adapter(network: nn.Module) -> bool:
    """Return whether the network has an adapter."""
    return hasattr(network, SCALE)


def plain(model: ScoreModel, base: ScoreModel) -> ScoreModel:
    """Return a copy of ``base`` with the weights of the model, its adapter added; a model without one is returned."""
    if not has_adapter(model.network):
        return model
    network = copy.deepcopy(base.network).eval()
    network.load_state_dict(dict(Merged(model.network.state_dict())))
    return base.with_network(network)


def save_adapter(folder: Path, model: ScoreModel) -> None:
    """Write the adapter that the model has, alone, as ``peft.PeftModel.from_pretrained`` reads it."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    body = _body(model.network)
    tensors = get_peft_model_state_dict(body, save_embedding_layers=False)
    with whole_folder(folder) as new:
        body.peft_config["default"].save_pretrained(str(new))  # type: ignore[index, union-attr]
        named = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in tensors.items()}
        save_file(named, new / "adapter_model.safetensors", metadata={"format": "pt"})
