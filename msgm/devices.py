"""Compute devices by name, and float64 arithmetic for devices without float64."""

import os
import platform
import re
from functools import cache
from typing import TYPE_CHECKING

from msgm.errors import UserError, nearest

if TYPE_CHECKING:
    import torch

NAMES = ("auto", "cpu", "cuda", "mps")
WITHOUT_FLOAT64 = ("mps",)


class Names(tuple[str, ...]):
    """The names of devices, as choices of an option; also accepts ``cuda:1`` and the like, which are not listed."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or re.fullmatch(r"cuda:\d{1,3}", str(name), re.ASCII) is not None


def chosen_device(name: str) -> "torch.device":
    """Return the device that a name means here: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    ``auto`` takes CUDA where it is, else the CPU. It never takes ``mps``, on which msgm was not run.

    Raises:
        UserError: an unknown name, or a device that is not there.
    """
    if name not in Names(NAMES):
        known = "auto, cpu, cuda, cuda:N (the GPU of number N) and mps"
        raise UserError(f"--device {name}: unknown device; known are {known}.{nearest(name, list(NAMES))}")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    kind, _, number = name.partition(":")
    if kind == "cuda" and not count:
        raise UserError(f"--device {name}: no CUDA device is available here; use --device cpu.")
    if number:
        _take(name, int(number), count)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: no MPS device is available here; use --device cpu.")
    return torch.device(name)


def slow_bf16(device: "torch.device") -> str | None:
    """Return what is to be said of bf16 on a device without instructions for it; None where there is nothing to say.

    Only x86 processors are looked at. On one without such instructions torch computes in float32 and converts.
    """
    import torch

    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return None
    return "this CPU has no instructions for bf16 (AVX512-BF16 or AMX), and a step takes several times that of fp32"


@cache
def note_slow_bf16(device: "torch.device") -> None:
    """Print once what ``slow_bf16`` has to say."""
    found = slow_bf16(device)
    if found:
        print(f"note: training.precision: {found}.", flush=True)


def _take(name: str, number: int, count: int) -> None:
    """Make a GPU the current device, which libraries such as accelerate use; refuse one that is not there."""
    import torch

    if number >= count:
        raise UserError(f"--device {name}: there is no such CUDA device here; they are cuda:0 to cuda:{count - 1}.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"--device {name}: every process of a launch has a GPU of its own; use --device cuda.")
    torch.cuda.set_device(number)


def precise_device(device: "torch.device") -> "torch.device":
    """Return the device for float64 arithmetic on tensors of ``device``: itself, or the CPU if it has no float64."""
    import torch

    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


def precise(tensor: "torch.Tensor") -> "torch.Tensor":
    """Return ``tensor`` in float64 on ``precise_device``; gradients pass through."""
    return tensor.to(precise_device(tensor.device)).double()


def finish(device: "torch.device") -> None:
    """Wait until a GPU has finished all queued work, before reading the clock."""
    import torch

    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
