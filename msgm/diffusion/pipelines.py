"""Conversion between score models and diffusers: a UNet2DModel or a DiT with its scheduler, as folder or pipeline.

Of a DiT's pipeline the transformer and the scheduler are read: the model is one of latents, and the autoencoder no part
of it.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import nn

from msgm.diffusion.networks import DiT, Library, TextNetwork, UNet, text_kind
from msgm.diffusion.prediction import Prediction
from msgm.diffusion.processes import DDPM, VP, Flow, Process
from msgm.errors import UserError
from msgm.reading import read_json

DISCRETE = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")
MATCHING = "FlowMatchEulerDiscreteScheduler"
"""diffusers' scheduler of flow matching: its steps are those of ``ddim`` on the process ``flow``."""
READ = (*DISCRETE, MATCHING)
SOLVERS = (
    *("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete", "KDPM2Discrete"),
    *("DPMSolverSinglestep", "DPMSolverMultistep", "DEISMultistep", "UniPCMultistep"),
)
OF_TEXT = (*READ, *(f"{name}Scheduler" for name in SOLVERS))
"""Schedulers of text-to-image pipelines, whose betas alone say what the network was trained on."""
KINDS: tuple[type[Library], ...] = (UNet, DiT)


class Parts(NamedTuple):
    """The parts of a score model read from a pipeline; fields as of ``ScoreModel``."""

    network: Library
    process: Process
    shape: tuple[int, ...]
    prediction: Prediction
    scheduler: dict[str, Any]


def read_parts(folder: Path) -> Parts:
    """Read a diffusers folder.

    Raises:
        UserError: a training checkpoint, another kind of network or scheduler, or what ``parts_of`` refuses.
    """
    _refuse_checkpoint(folder)
    index = folder / "model_index.json"
    named = read_json(index, dict[str, Any]).get("_class_name") if index.is_file() else None
    if (text := text_kind(str(named))) is not None:
        return parts_of(text.load(folder), read_scheduler(folder / "scheduler", OF_TEXT), str(folder))
    kind = DiT if (folder / DiT.part).is_dir() else UNet
    return parts_of(kind.read(_part(folder, kind.part)), read_scheduler(_part(folder, "scheduler")), str(folder))


def pipeline_parts(pipeline: Any) -> Parts:
    """Return the parts of a pipeline object, with a float32 copy of its network.

    Raises:
        UserError: an object without such a network and scheduler, or what ``parts_of`` refuses.
    """
    scheduler, named = getattr(pipeline, "scheduler", None), type(pipeline).__name__
    if (text := text_kind(named)) is not None:
        if type(scheduler).__name__ not in OF_TEXT:
            raise UserError(f"the {named} has a {type(scheduler).__name__}; msgm reads {', '.join(OF_TEXT)}.")
        return parts_of(text.of(_copied(pipeline)), scheduler, f"the {named}")
    found = [kind for kind in KINDS if type(getattr(pipeline, kind.part, None)).__name__ == kind.kind]
    if not found:
        wanted = " or a ".join(kind.kind for kind in KINDS)
        raise UserError(f"from_pretrained: expected a folder or a pipeline with a {wanted}, got a {named}.")
    if type(scheduler).__name__ not in READ:
        raise UserError(f"the {named} has a {type(scheduler).__name__}; msgm reads {', '.join(READ)}.")
    body = copy.deepcopy(getattr(pipeline, found[0].part)).float()
    return parts_of(found[0](body, found[0].own_null), scheduler, f"the {named}")


def _copied(pipeline: Any) -> Any:
    """Return a pipeline of copies of another one's networks."""
    own = {name: copy.deepcopy(part) for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    options = {k: v for k, v in pipeline.config.items() if not k.startswith("_") and k not in pipeline.components}
    return type(pipeline)(**pipeline.components | own | options)


def parts_of(network: Library, scheduler: Any, where: str) -> Parts:
    """Return the parts of the score model that a network and its scheduler define.

    Raises:
        UserError: a network that msgm cannot use, or incomplete settings.
    """
    config = network.body.config
    if config.get("class_embed_type"):
        raise UserError(
            f"{where}: the U-Net reads its classes as {config.class_embed_type!r}; msgm reads num_class_embeds only."
        )
    if config.out_channels not in (None, config.in_channels) and not network.learns_variance:
        raise UserError(f"{where}: it reads {config.in_channels} channels and puts out {config.out_channels}.")
    if network.learns_variance:
        print(f"note: {where} learns its variance; msgm uses and trains its mean, and saves both.", flush=True)
    if config.sample_size is None:
        raise UserError(f"{where}: the network's config.json names no sample_size.")
    process, prediction = _path_of(scheduler, where)
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return Parts(network, process, (config.in_channels, height, width), prediction, settings_of(scheduler))


def _path_of(scheduler: Any, where: str) -> tuple[Process, Prediction]:
    """Return the process that a scheduler samples, and what its network predicts."""
    config = scheduler.config
    if type(scheduler).__name__ == MATCHING:
        if config.invert_sigmas:
            raise UserError(f"{where}: its time runs from noise to data (invert_sigmas); msgm reads the other way.")
        return Flow(labels=config.num_train_timesteps), "flow_prediction"
    prediction = config.prediction_type
    if prediction not in get_args(Prediction):
        raise UserError(f"{where}: unknown prediction_type {prediction!r}; known: {', '.join(get_args(Prediction))}.")
    return DDPM(betas=tuple(scheduler.betas.double().tolist())), prediction


def read_scheduler(folder: Path, known: Sequence[str] = READ) -> Any:
    """Read a scheduler with its own class, one of ``known``, as the settings of classes differ."""
    import diffusers

    kind = read_json(folder / "scheduler_config.json", dict[str, Any]).get("_class_name")
    if kind not in known:
        raise UserError(f"{folder} holds a {kind}; msgm reads {', '.join(known)}.")
    return getattr(diffusers, kind).from_pretrained(folder, local_files_only=True)


def settings_of(scheduler: Any) -> dict[str, Any]:
    """Return a scheduler's settings, its class among them."""
    return {**scheduler.config, "_class_name": type(scheduler).__name__}


def scheduler_for(process: Process, prediction: Prediction, kept: dict[str, Any] | None) -> Any:
    """Return the diffusers scheduler that samples a process, or None where diffusers keeps none (VE, sub-VP).

    Args:
        process: the process.
        prediction: the network's output.
        kept: the settings of the scheduler that a foreign model came with.
    """
    import diffusers
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

    if kept is not None:
        return getattr(diffusers, kept["_class_name"]).from_config(kept)
    if isinstance(process, Flow) or prediction == "flow_prediction":
        if not isinstance(process, Flow) or prediction != "flow_prediction":
            return None
        return FlowMatchEulerDiscreteScheduler(process.labels)
    if isinstance(process, DDPM):
        betas = None if process.betas is None else list(process.betas)
        beta = (process.beta_min, process.beta_max, process.schedule)
        return DDPMScheduler(process.steps, *beta, trained_betas=betas, prediction_type=prediction)
    if isinstance(process, VP):
        return DDPMScheduler(1000, trained_betas=_discrete_betas(process), prediction_type=prediction)
    return None


def write_index(folder: Path, network: Library, scheduler: Any) -> None:
    """Write the scheduler and ``model_index.json`` beside the network's folder, so that diffusers reads them."""
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": pipeline_name(network, scheduler),
        "scheduler": ["diffusers", type(scheduler).__name__],
        **network.listed(),
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))


def pipeline_name(network: Library, scheduler: Any) -> str:
    """Return the name of diffusers' pipeline that holds a network and samples by a scheduler."""
    if isinstance(network, TextNetwork):
        return network.pipeline
    if isinstance(network, DiT):
        return "DiTPipeline"
    kind = type(scheduler).__name__
    return "DDPMPipeline" if kind == MATCHING else kind.replace("Scheduler", "Pipeline")


def facts_of(network: nn.Module, scheduler: Any) -> dict[str, Any]:
    """Return what a model card says of a network: diffusers' pipeline for it, its classes, whether it learns variance.

    Args:
        network: the network.
        scheduler: that samples its process; None where diffusers has none.
    """
    classes = getattr(network, "classes", 0)
    if not isinstance(network, Library):
        return {"pipeline": None, "classes": classes}
    pipeline = None if scheduler is None else pipeline_name(network, scheduler)
    return {"pipeline": pipeline, "classes": classes, "learns_variance": network.learns_variance}


def make_pipeline(network: Library, scheduler: Any, shape: tuple[int, ...], parts: Mapping[str, Any]) -> Any:
    """Return a diffusers pipeline with a copy of the network.

    Args:
        network: the network.
        scheduler: the scheduler.
        shape: of an item.
        parts: other parts of the pipeline, by name.

    Raises:
        UserError: a network that diffusers' pipelines cannot run: a class-conditional U-Net, to which they give no
            labels, or one that pads its images; or a DiT without an autoencoder.
    """
    import diffusers

    if isinstance(network, TextNetwork):
        own = copy.deepcopy(network).to(memory_format=torch.contiguous_format).eval()
        return own.as_pipeline(**{"scheduler": scheduler, **parts})
    kind = getattr(diffusers, pipeline_name(network, scheduler))
    # In the library's memory format, in which its convolutions round as they did where the network came from.
    body = copy.deepcopy(network.body).to(memory_format=torch.contiguous_format).eval()
    if isinstance(network, DiT):
        if "vae" not in parts:
            raise UserError("to_pipeline: a DiTPipeline decodes its samples; give it an autoencoder, vae=...")
        return kind(transformer=body, scheduler=scheduler, **parts)
    if network.classes:
        raise UserError(
            "to_pipeline: diffusers has no pipeline that gives labels to a U-Net; sample with model.sample."
        )
    assert isinstance(network, UNet)
    if any(side % network.multiple for side in shape[1:]):
        raise UserError(
            f"to_pipeline: this network pads images of {shape[1]}x{shape[2]} to a multiple of {network.multiple}, and "
            "diffusers' pipelines do not; sample with model.sample."
        )
    return kind(unet=body, scheduler=scheduler, **parts)


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
