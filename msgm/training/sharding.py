"""Fully sharded data parallel: each process keeps a part of the weights, of their moments and of their average.

``accelerate launch --use_fsdp --fsdp_version 2`` asks for it. What is trained is a sharded copy of the network, which
accelerate makes by torch's ``fully_shard`` with the launch's settings (wrapping, offloading, resharding). The model's
own network stays whole and on the CPU meanwhile; it takes the trained weights when they are saved, or sampled from.
"""

import copy
import os
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from msgm.config import TrainingSettings
from msgm.errors import UserError
from msgm.objectives import Objective, Sliced

UNREAD = {
    "fsdp_offload_params": "leave it out",
    "fsdp_activation_checkpointing": "set training.gradient_checkpointing=true",
}
"""Options of the launch that have no effect here, and what to do."""


def is_asked() -> bool:
    """Return whether the launch asks for sharding; a process that no launcher started has nobody to share with."""
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return asked and torch.distributed.is_initialized()


def refuse(settings: TrainingSettings, objective: Objective) -> None:
    """Refuse what cannot be done with sharded weights.

    Raises:
        UserError: another version of FSDP, a setting, or a part of the objective.
    """
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError("accelerate's FSDP: expected version 2, got version 1; launch with --fsdp_version 2.")
    if os.environ.get("FSDP_AUTO_WRAP_POLICY", "NO_WRAP").upper() == "SIZE_BASED_WRAP":
        raise UserError(
            "accelerate's FSDP: --fsdp_auto_wrap_policy SIZE_BASED_WRAP would shard lists of layers, which are never "
            "called; take TRANSFORMER_BASED_WRAP or NO_WRAP."
        )
    for option, instead in UNREAD.items():
        if os.environ.get(option.upper(), "false").lower() == "true":
            raise UserError(f"accelerate's FSDP: --{option} is not read; {instead}.")
    if settings.compile:
        raise UserError("training.compile: a network that FSDP shards is not compiled; leave it out.")
    if settings.adapter is not None:
        raise UserError("training.adapter: an adapter is small enough for every GPU; launch without --use_fsdp.")
    if isinstance(getattr(objective, "matched", None), Sliced):
        raise UserError(
            "objective.matching: sliced takes a derivative of a derivative, which FSDP's passes do not have; take "
            "finite-difference, or launch without --use_fsdp."
        )
    if type(objective).penalty is not Objective.penalty:
        raise UserError(
            f"objective.name: {objective.name} has a penalty of its own, which is written for whole weights, and FSDP "
            "shards them; launch without --use_fsdp."
        )


def sharded(network: nn.Module, accelerator: Accelerator) -> nn.Module:
    """Return a copy of the network with its weights sharded over all processes.

    Raises:
        UserError: layers that cannot be sharded, or that the network does not have.
    """
    plugin = FullyShardedDataParallelPlugin()
    # Every process has the whole network. Its passes are cast by autocast, as without sharding: FSDP's own casts would
    # round the time that the network reads, too.
    plugin.cpu_ram_efficient_loading, plugin.mixed_precision_policy = False, None
    accelerator.state.fsdp_plugin = plugin  # which accelerate does by itself on accelerators, and not on CPUs
    copied = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    forward = copied.forward

    def passed(*given: object) -> Tensor:
        with accelerator.autocast():
            out: Tensor = forward(*given)
        return out.float()

    copied.forward = passed
    try:
        made: nn.Module = fsdp2_prepare_model(accelerator, copied)
    except ValueError as error:
        raise UserError(f"accelerate's FSDP: {str(error).splitlines()[0].rstrip('.')}.") from error
    return made


def whole(tensor: Tensor) -> Tensor:
    """Return all of a sharded tensor, for which every process has to ask; another as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a sharded tensor; another as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def placed(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor of all processes in the parts of another one, ``like``; another as it is."""
    if not isinstance(tensor, DTensor) or not isinstance(like, DTensor):
        return tensor
    return tensor.redistribute(placements=like.placements)


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Return whole tensors, one at a time on their device and then on the CPU; none where ``keep`` is false.

    Every process has to call it where the tensors are sharded.
    """
    found = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if keep:
            found[name] = full.cpu() if isinstance(tensor, DTensor) else full.contiguous()
    return found


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of a tensor that every process has whole, as ``like`` is sharded; all if it is not."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def pull(source: nn.Module, into: nn.Module) -> None:
    """Copy the weights of a sharded network into a whole one; every process has to call it."""
    own = into.state_dict()
    for name, tensor in source.state_dict().items():
        own[name].copy_(whole(tensor))


@torch.no_grad()
def push(source: nn.Module, into: nn.Module) -> None:
    """Copy the weights of a network that every process has whole into a sharded one."""
    own = source.state_dict()
    for name, tensor in into.state_dict().items():
        local(tensor).copy_(local(part_of(own[name], tensor)))
