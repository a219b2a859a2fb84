"""A run's folder: taken before work starts, and what its manifest says of the machine."""

from pathlib import Path
from typing import Any

import torch

from msgm.config import Config
from msgm.errors import UserError
from msgm.folders import write_text
from msgm.runs import Run, environment
from msgm.settings import differences


def finished(run: Run) -> bool:
    """Return whether the run has its model."""
    return run.stored_manifest().get("status") == "finished" and run.model.is_dir()


def occupy(run: Run, config: Config, source: Path | None, resume: bool) -> None:
    """Make the run folder, or check that the run in it is this one."""
    stored = run.stored_config()
    if stored is not None:
        if (run.path / "rows").is_dir():
            raise UserError(f"{run.path} holds a comparison; give another --out.")
        changed = differences(_trained_by(stored), _trained_by(config.to_dict()))
        if changed:
            raise UserError(
                f"{run.path} holds a run with other settings ({'; '.join(changed[:3])}); give another --out."
            )
        begun_from = run.stored_manifest().get("source")
        if run.manifest.is_file() and begun_from != (str(source) if source else None):
            raise UserError(
                f"{run.path} holds a run that started from {begun_from}, not from {source}; give another --out."
            )
        if not resume:
            raise UserError(f"{run.path} already holds this run; go on with --resume, or give another --out.")
        return
    run.create()
    write_text(run.config, config.to_yaml())


def _trained_by(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that training depends on; settings of sampling and measuring may change afterwards."""
    return {key: value for key, value in settings.items() if key not in ("sampling", "evaluation")}


def device_name(device: torch.device) -> str:
    """Return the model name of a GPU, or the name of another device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def peak_memory(device: torch.device) -> object:
    """Return the most memory held so far, in MiB, on a GPU or by the process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    return environment()["peak_memory_mb"]
