"""``msgm doctor``: a line for each dependency and device of this machine, with advice on missing ones."""

import argparse
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from msgm.arguments import Commands, command

OPTIONAL = {
    "pyarrow": ("Parquet tables", "pip install 'msgm[parquet]'"),
    "wandb": ("the tracker wandb", "pip install wandb"),
    "tensorboard": ("the tracker tensorboard", "pip install 'msgm[track]'"),
    "pandas": ("Report.to_pandas", "pip install 'msgm[pandas]'"),
    "optuna": ("msgm tune", "pip install 'msgm[tune]'"),
    "fastapi": ("msgm recommender serve", "pip install 'msgm[serve]'"),
}
"""Packages that msgm works without: what they are for, and how to get them."""
NEEDED = (
    "torch",
    "torchvision",
    "torchsde",
    "diffusers",
    "accelerate",
    "torchmetrics",
    "clip-anytorch",
    "numpy",
    "scipy",
)


def add(commands: Commands) -> None:
    """Add the command."""
    command(
        commands, "doctor", _doctor, "print versions, device, threads, data and optional packages, as msgm finds them"
    )


def lines() -> Iterator[str]:
    """Yield a line for each finding; a line that begins with ``!`` advises what to do."""
    from msgm import __version__, threads
    from msgm.runs import version_of

    yield f"msgm {__version__} in {Path(__file__).parents[1]}"
    for name in NEEDED:
        found = version_of(name)
        yield f"{name} {found}" if found else f"! {name} is missing: pip install {name}"
    yield from _devices()
    yield f"threads: {threads.in_use()} of {os.cpu_count()} cores"
    yield _data()
    for name, (what, how) in OPTIONAL.items():
        found = version_of(name) if find_spec(name) else None
        yield f"{name} {found}: {what}" if found else f"{name} is not installed; for {what}: {how}"


def _doctor(options: argparse.Namespace) -> None:
    for line in lines():
        print(line)


def _devices() -> Iterator[str]:
    import torch

    from msgm.devices import slow_bf16

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            yield f"device: cuda:{number}, {torch.cuda.get_device_name(number)}"
    elif torch.version.cuda is not None and Path("/proc/driver/nvidia").exists():
        yield "! there is an NVIDIA driver, and torch cannot use it: the driver may be older than this torch needs"
    else:
        yield "device: cpu"
        slow = slow_bf16(torch.device("cpu"))
        if slow:
            yield f"! training.precision=bf16 is slow here: {slow}"
    if torch.backends.mps.is_available():
        yield "device: mps, which --device auto does not take: msgm was not run on one"


def _data() -> str:
    root = os.environ.get("MSGM_DATA")
    if root is None:
        return "data: MSGM_DATA is not set; data sets that lie on disk need it, or data.root"
    if not Path(root).is_dir():
        return f"! MSGM_DATA names {root}, which is no folder"
    found = sorted(path.name for path in Path(root).iterdir() if not path.name.startswith("."))
    return f"data: {root} holds {', '.join(found) or 'nothing'}"
