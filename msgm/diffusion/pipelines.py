"""Conversion between score models and diffusers: a UNet2DModel with a DDPM-type scheduler, as folder or pipeline."""

import copy
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch

from msgm.diffusion.networks import UNet, read_unet
from msgm.diffusion.processes import DDPM, VP, Process
from msgm.errors import UserError
from msgm.reading import read_json

Prediction = Literal["epsilon", "v_prediction", "sample"]
DISCRETE = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")


class Parts(NamedTuple):
    """The parts of a score model read from a pipeline; fields as of ``ScoreModel``."""

    network: UNet
    process: DDPM
    shape: tuple[int, ...]
    prediction: Prediction
    scheduler: dict[str, Any]


def read_parts(folder: Path) -> Parts:
    """Read a diffusers folder.

    Raises:
        UserError: a training checkpoint, another kind of network or scheduler, or what ``parts_of`` refuses.
    """
    _refuse_checkpoint(folder)
    return parts_of(read_unet(_part(folder, "unet")), read_scheduler(_part(folder, "scheduler")), str(folder))


def pipeline_parts(pipeline: Any) -> Parts:
    """Return the parts of a pipeline object, with a float32 copy of its network.

    Raises:
        UserError: an object without a UNet2DModel and a DDPM-type scheduler, or what ``parts_of`` refuses.
    """
    from diffusers import UNet2DModel

    unet, scheduler = getattr(pipeline, "unet", None), getattr(pipeline, "scheduler", None)
    kind = type(pipeline).__name__
    if not isinstance(unet, UNet2DModel):
        raise UserError(f"from_pretrained: expected a folder or a pipeline with a UNet2DModel, got a {kind}.")
    if type(scheduler).__name__ not in DISCRETE:
        raise UserError(f"the {kind} has a {type(scheduler).__name__}; msgm reads {', '.join(DISCRETE)}.")
    return parts_of(copy.deepcopy(unet).float(), scheduler, f"the {kind}")


def parts_of(unet: Any, scheduler: Any, where: str) -> Parts:
    """Return the parts of the score model that a network and its scheduler define.

    Raises:
        UserError: a model that is conditional or learns its variance, or incomplete settings.
    """
    config = unet.config
    if config.num_class_embeds or config.class_embed_type:
        raise UserError(f"{where}: the U-Net is class-conditional; msgm unlearns unconditional models.")
    if config.in_channels != config.out_channels:
        raise UserError(
            f"{where}: it learns its variance ({config.in_channels} channels in, {config.out_channels} out)."
        )
    if config.sample_size is None:
        raise UserError(f"{where}: the U-Net's config.json names no sample_size.")
    prediction = scheduler.config.prediction_type
    if prediction not in get_args(Prediction):
        raise UserError(f"{where}: unknown prediction_type {prediction!r}; known: {', '.join(get_args(Prediction))}.")
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    process = DDPM(betas=tuple(scheduler.betas.double().tolist()))
    return Parts(UNet(unet), process, (config.in_channels, height, width), prediction, settings_of(scheduler))


def read_scheduler(folder: Path) -> Any:
    """Read a scheduler with its own class, as the settings of classes differ."""
    import diffusers

    kind = read_json(folder / "scheduler_config.json", dict[str, Any]).get("_class_name")
    if kind not in DISCRETE:
        raise UserError(f"{folder} holds a {kind}; msgm reads {', '.join(DISCRETE)}.")
    return getattr(diffusers, kind).from_pretrained(folder, local_files_only=True)


def settings_of(scheduler: Any) -> dict[str, Any]:
    """Return a scheduler's settings, its class among them."""
    return {**scheduler.config, "_class_name": type(scheduler).__name__}


def scheduler_for(process: Process, kept: dict[str, Any] | None) -> Any:
    """Return the diffusers scheduler that samples a process, or None where diffusers keeps none (VE, sub-VP).

    Args:
        process: the process.
        kept: the settings of the scheduler that a foreign model came with.
    """
    import diffusers
    from diffusers import DDPMScheduler

    if kept is not None:
        return getattr(diffusers, kept["_class_name"]).from_config(kept)
    if isinstance(process, DDPM):
        betas = None if process.betas is None else list(process.betas)
        return DDPMScheduler(process.steps, process.beta_min, process.beta_max, process.schedule, trained_betas=betas)
    if isinstance(process, VP):
        return DDPMScheduler(1000, trained_betas=_discrete_betas(process))
    return None


def write_index(folder: Path, scheduler: Any) -> None:
    """Write the scheduler and ``model_index.json`` beside ``unet/``, so that diffusers reads the folder."""
    scheduler.save_pretrained(folder / "scheduler")
    kind = type(scheduler).__name__
    index = {
        "_class_name": pipeline_name(scheduler),
        "scheduler": ["diffusers", kind],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))


def pipeline_name(scheduler: Any) -> str:
    """Return the name of diffusers' pipeline that samples by a scheduler."""
    return type(scheduler).__name__.replace("Scheduler", "Pipeline")


def make_pipeline(network: UNet, scheduler: Any, shape: tuple[int, ...]) -> Any:
    """Return a diffusers pipeline with a copy of the network.

    Raises:
        UserError: the network pads its images, which diffusers' pipelines do not.
    """
    import diffusers

    if any(side % network.multiple for side in shape[1:]):
        raise UserError(
            f"to_pipeline: this network pads images of {shape[1]}x{shape[2]} to a multiple of {network.multiple}, and "
            "diffusers' pipelines do not; sample with model.sample."
        )
    return getattr(diffusers, pipeline_name(scheduler))(unet=copy.deepcopy(network.unet).eval(), scheduler=scheduler)


def _refuse_checkpoint(folder: Path) -> None:
    """Refuse a checkpoint of diffusers' training scripts, which has raw and averaged weights and no scheduler."""
    kinds = [name for name in ("unet", "unet_ema") if (folder / name).is_dir()]
    if "unet_ema" in kinds:
        raise UserError(
            f"{folder} is a training checkpoint with {' and '.join(kinds)}: make a folder with the weights to read, "
            "the averaged ones of unet_ema as a rule, named unet, and beside it scheduler/scheduler_config.json of the "
            "pipeline that the training writes at its end."
        )
    if not (_part(folder, "scheduler") / "scheduler_config.json").is_file():
        raise UserError(
            f"{folder} holds no scheduler/scheduler_config.json, which says what noise the network was trained on: "
            "copy scheduler/ from the pipeline that the training writes at its end."
        )


def _part(folder: Path, name: str) -> Path:
    """Return a pipeline's sub-folder; old pipelines keep all files at the top."""
    return folder / name if (folder / name).is_dir() else folder


def _discrete_betas(process: VP) -> list[float]:
    """Return 1000 betas whose label i has exactly the noise that the network learnt for it, t = i / 999.

    Label 0 would sit at t = 0, without noise; it takes the training limit t_min.
    """
    t = (torch.arange(1000, dtype=torch.float64) / 999).clamp_min(process.t_min)
    integral = process.integral(t)
    steps = torch.diff(integral, prepend=torch.zeros(1, dtype=torch.float64))
    betas: list[float] = (-torch.expm1(-steps)).tolist()
    return betas
