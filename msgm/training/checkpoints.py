"""Checkpoints without pickles: safetensors and JSON in a folder that is whole or absent."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import save, save_file
from torch import Tensor, nn

from msgm.errors import RunError, UserError
from msgm.folders import whole_folder, write_bytes
from msgm.reading import read_json, read_tensors
from msgm.shapes import Count, Seconds
from msgm.training.adapters import Merged
from msgm.training.ema import EMA
from msgm.training.sharding import gathered, part_of

KEPT = 2


class State(TypedDict):
    """Contents of ``state.json``."""

    step: Count
    seconds: Seconds
    ema_updates: Count


@dataclass
class Training:
    """State that a checkpoint saves and restores.

    Attributes:
        network: the bare network.
        optimiser: its Adam.
        ema: its averaged weights.
        step: steps done.
        seconds: time spent on them, over all resumes.
        others: optimisers of further updates within a step, by name.
    """

    network: nn.Module
    optimiser: torch.optim.Optimizer
    ema: EMA
    step: int = 0
    seconds: float = 0.0
    others: dict[str, torch.optim.Optimizer] = field(default_factory=dict)

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return all optimisers by the name of their file in a checkpoint."""
        return {"optimiser": self.optimiser} | {f"optimiser-{name}": other for name, other in self.others.items()}


def save_checkpoint(folder: Path, training: Training, writes: bool = True) -> Path:
    """Write ``folder/step-N``, N steps done, and drop all but the newest checkpoints.

    Args:
        folder: of the checkpoints.
        training: what is saved. Where its tensors are sharded, every process calls this, as they are gathered.
        writes: whether this process writes.

    Raises:
        RunError: the tensors could not be written, for want of space say.
    """
    final = folder / f"step-{training.step:08d}"
    files = {"network": gathered(training.network.state_dict(), writes), "ema": gathered(training.ema.state(), writes)}
    for name, optimiser in training.optimisers().items():
        files[name] = gathered(_optimiser_tensors(training.network, optimiser), writes)
    if not writes:
        return final
    try:
        with whole_folder(final) as new:
            for name, tensors in files.items():
                save_file(tensors, new / f"{name}.safetensors")
            state = {"step": training.step, "seconds": training.seconds, "ema_updates": training.ema.updates}
            (new / "state.json").write_text(json.dumps(state))
    except SafetensorError as error:
        raise RunError(f"could not write the checkpoint {final}: {error}.") from error
    for old in checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in ``folder``, oldest first."""
    return sorted(folder.glob("step-*"))


def load_checkpoint(path: Path, training: Training) -> None:
    """Restore ``training`` in place.

    Raises:
        UserError: the checkpoint is damaged or belongs to another network.
    """
    try:
        state: State = read_json(path / "state.json", State)
        network = read_tensors(path / "network.safetensors", training.network.state_dict())
        ema = read_tensors(path / "ema.safetensors", training.ema.state())
        for name, optimiser in training.optimisers().items():
            file = path / f"{name}.safetensors"
            _restore_optimiser(training.network, optimiser, read_tensors(file), file)
    except UserError as error:
        text = str(error).rstrip(".")
        raise UserError(f"cannot resume: {text}; delete the checkpoint {path} to go on from an older one.") from error
    own = training.network.state_dict()
    training.network.load_state_dict({name: part_of(tensor, own[name]) for name, tensor in network.items()})
    training.ema.load(ema, state["ema_updates"])
    training.step, training.seconds = state["step"], state["seconds"]


def save_weights(path: Path, network: nn.Module) -> None:
    """Write a network's tensors to a safetensors file, whole or not at all."""
    write_bytes(path, save(gathered(network.state_dict(), keep=True)))


def raw_and_averaged(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return a checkpoint's network tensors, with the trained weights and with the averaged ones, adapters added.

    Raises:
        UserError: a file of it is missing or damaged.
    """
    try:
        raw, averaged = (read_tensors(path / f"{name}.safetensors") for name in ("network", "ema"))
    except UserError as error:
        raise UserError(f"cannot read the weights of the checkpoint {path}: {error}") from error
    return dict(Merged(raw)), dict(Merged(raw | averaged))


def _optimiser_tensors(network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return Adam's state as ``key/parameter name`` tensors; weights that it does not train have none."""
    state = optimiser.state
    return {
        f"{key}/{name}": torch.as_tensor(value)
        for name, parameter in network.named_parameters()
        for key, value in state.get(parameter, {}).items()
    }


def _restore_optimiser(
    network: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor], path: Path
) -> None:
    """Restore Adam's state; every tensor is a scalar, such as a step, or of its parameter's shape."""
    parameters = dict(network.named_parameters())
    for label, tensor in tensors.items():
        key, _, name = label.partition("/")
        if name not in parameters or (tensor.dim() and tensor.shape != parameters[name].shape):
            raise UserError(f"{path}: {label} is no state of this network's optimiser.")
        parameter = parameters[name]
        fitted = tensor.clone() if tensor.dim() == 0 and not parameter.is_cuda else tensor.to(parameter.device)
        if fitted.shape == parameter.shape:
            fitted = torch.empty_like(parameter).copy_(part_of(fitted, parameter))
        optimiser.state[parameter][key] = fitted
