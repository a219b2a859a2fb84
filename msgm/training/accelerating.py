"""The accelerator of a run: its device, precision and trackers."""

import importlib.util
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType
from torch import nn

from msgm import processes
from msgm.config import TrainingSettings
from msgm.devices import chosen_device
from msgm.errors import UserError
from msgm.objectives import Objective, Sliced
from msgm.runs import Run


def started(settings: TrainingSettings, run: Run, device: str) -> Accelerator:
    """Return the accelerator of a run.

    Raises:
        UserError: a device that is not there, a tracker that is not installed, or a precision that the device lacks.
    """
    where = chosen_device(device)
    trackers = settings.trackers
    if trackers is None:
        trackers = ["tensorboard"] if importlib.util.find_spec("tensorboard") else []
    _refuse_absent(trackers)
    # Else accelerate keeps the precision and the device of this process's first run.
    AcceleratorState._reset_state(reset_partial_state=processes.count() == 1)
    try:
        accelerator = Accelerator(
            cpu=where.type == "cpu",
            mixed_precision="bf16" if settings.precision == "bf16" else "no",
            log_with=trackers or None,
            project_dir=run.path,
        )
    except ValueError as error:
        raise UserError(f"training.trackers or training.precision: {str(error).splitlines()[0]}.") from error
    processes.leave_at_exit()  # runs of one process share the group, so it ends with the process
    return accelerator


def compiled(network: nn.Module, settings: TrainingSettings, objective: Objective) -> nn.Module:
    """Return the network as it is trained: passed through torch.compile where that is asked for.

    Raises:
        UserError: a loss that differentiates twice, which a compiled network cannot.
    """
    if not settings.compile:
        return network
    if isinstance(getattr(objective, "matched", None), Sliced):
        raise UserError(
            "training.compile: objective.matching sliced takes a derivative of a derivative, which compiled networks "
            "do not have; take finite-difference, or leave compile out."
        )
    return torch.compile(network)  # type: ignore[return-value]


def _refuse_absent(trackers: Sequence[str]) -> None:
    """Refuse trackers that are not installed; accelerate would omit them silently."""
    known, installed = ({str(name) for name in names} for names in (LoggerType, get_available_trackers()))
    for name in trackers:
        if name in known - installed - {"all"}:
            others = ", ".join(sorted(installed)) or "none"
            raise UserError(
                f"training.trackers: {name} is not installed; install it, or name one of those that are: {others}."
            )


def start_trackers(accelerator: Accelerator) -> None:
    """Start the trackers, which write into the run folder."""
    if accelerator.log_with:
        accelerator.init_trackers("tracker")
