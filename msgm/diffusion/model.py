"""The score model: a network and the process it was trained for, saved as a folder that diffusers can read.

The network predicts the noise of ``x_t = a x_0 + sigma eps``; everything else follows from it:

- score: grad log p_t(x) = -eps(x, t) / sigma(t)
- denoise: E[x_0 | x_t] = (x_t - sigma eps(x, t)) / a  (Tweedie)
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, get_args

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from msgm.chain import FILE as CHAIN
from msgm.chain import Chain, read_chain
from msgm.diffusion.networks import NETWORKS, Network, UNet, read_unet
from msgm.diffusion.processes import DDPM, PROCESSES, VP, Process
from msgm.errors import RunError, UserError
from msgm.folders import whole_folder
from msgm.plugins import Plugin, load_recorded, note_changed, plugins_of
from msgm.reading import check_finite, read_json
from msgm.registry import plain
from msgm.shapes import Positive, Rule

Prediction = Literal["epsilon", "v_prediction", "sample"]
FORMAT = 1
DISCRETE = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")


class Written(TypedDict):
    """What ``process.json`` says in every format."""

    format: Positive


class Description(Written):
    """What ``process.json`` says in this format."""

    process: dict[str, Any]
    network: str
    shape: Annotated[list[Positive], Rule("a list of one to three sizes", lambda value: 1 <= len(value) <= 3)]
    prediction: Prediction
    plugins: NotRequired[list[Plugin]]


def per_item(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) so that it broadcasts over the items of ``like`` (B, *shape)."""
    return values.view(-1, *[1] * (like.dim() - 1))


@dataclass
class ScoreModel:
    """A network with its process.

    Attributes:
        network: maps (x, label) to the prediction; a ``Network``, or the same one wrapped for training.
        process: the Gaussian path.
        shape: shape of one item.
        prediction: what the network puts out, in diffusers' words; networks made here put out epsilon.
        scheduler: configuration of the diffusers scheduler that a foreign model came with, its class as
            ``_class_name``; written back on save.
        chain: what the model was asked to forget so far; None where its folder does not say.
    """

    network: nn.Module
    process: Process
    shape: tuple[int, ...]
    prediction: Prediction = "epsilon"
    scheduler: dict[str, Any] | None = None
    chain: Chain | None = None

    def eps(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the predicted noise in float32 or better; x (B, *shape), t (B,) times in (0, 1]."""
        out = self._output(x, t)
        if self.prediction == "epsilon":
            return out
        signal, noise = per_item(self.process.signal(t), x), per_item(self.process.noise(t), x)
        if self.prediction == "v_prediction":
            return signal * out + noise * x
        return (x - signal * out) / noise

    def _output(self, x: Tensor, t: Tensor) -> Tensor:
        scale = per_item(self.process.input_scale(t), x).to(x.dtype)
        out: Tensor = self.network(x * scale, self.process.label(t))
        return out.to(torch.promote_types(out.dtype, torch.float32))

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """Return grad log p_t(x); arguments as in ``eps``."""
        return -self.eps(x, t) / per_item(self.process.noise(t), x)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the posterior mean of x_0; arguments as in ``eps``. Without signal, a network of eps tells none."""
        signal, noise = per_item(self.process.signal(t), x), per_item(self.process.noise(t), x)
        if self.prediction == "epsilon":
            return (x - noise * self.eps(x, t)) / signal
        out = self._output(x, t)
        return out if self.prediction == "sample" else signal * x - noise * out

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device | str) -> "ScoreModel":
        """Move the network; returns self."""
        self.network.to(device)
        return self

    def with_network(self, network: nn.Module) -> "ScoreModel":
        """Return a view of this model with another (wrapped) network."""
        return replace(self, network=network)

    def parameter_count(self) -> int:
        """Return the number of weights."""
        return sum(p.numel() for p in self.network.parameters())

    def save(self, folder: Path | str) -> None:
        """Write the folder whole or not at all.

        Raises:
            RunError: the weights could not be written, for want of space say.
            OSError: the machine cannot write; it names the file.
        """
        folder = Path(folder)
        try:
            with whole_folder(folder) as new:
                self._write(new)
        except SafetensorError as error:
            raise RunError(f"could not write the model {folder}: {error}.") from error

    def _write(self, folder: Path) -> None:
        network = self.network
        if not isinstance(network, Network):
            raise TypeError(f"save the bare network, not a wrapped {type(network).__name__}")
        network.save(folder)
        description = {
            "format": FORMAT,
            "process": describe(self.process),
            "network": network.name,
            "shape": list(self.shape),
            "prediction": self.prediction,
            "plugins": plugins_of(type(network)),
        }
        (folder / "process.json").write_text(json.dumps(description, indent=2))
        if self.chain is not None:
            (folder / CHAIN).write_text(json.dumps(self.chain.to_json(), indent=2))
        scheduler = self._scheduler()
        if scheduler is not None and isinstance(network, UNet):
            scheduler.save_pretrained(folder / "scheduler")
            kind = type(scheduler).__name__
            index = {
                "_class_name": kind.replace("Scheduler", "Pipeline"),
                "scheduler": ["diffusers", kind],
                "unet": ["diffusers", "UNet2DModel"],
            }
            (folder / "model_index.json").write_text(json.dumps(index, indent=2))

    def _scheduler(self) -> Any:
        """Return the diffusers scheduler that samples this model, or None where diffusers keeps none (VE, sub-VP)."""
        import diffusers
        from diffusers import DDPMScheduler

        if self.scheduler is not None:
            return getattr(diffusers, self.scheduler["_class_name"]).from_config(self.scheduler)
        if isinstance(self.process, DDPM):
            process = self.process
            betas = None if process.betas is None else list(process.betas)
            return DDPMScheduler(
                process.steps, process.beta_min, process.beta_max, process.schedule, trained_betas=betas
            )
        if isinstance(self.process, VP):
            return DDPMScheduler(1000, trained_betas=_discrete_betas(self.process))
        return None

    @classmethod
    def load(cls, folder: Path | str) -> "ScoreModel":
        """Read a folder written by ``save``, or any diffusers folder of a UNet2DModel with a DDPM-type scheduler.

        Raises:
            UserError: no model there, a damaged or newer file, or a model that is conditional or learns its variance.
        """
        folder = Path(folder)
        if (folder / "process.json").is_file():
            return replace(_guarded(cls._load_own, folder), chain=read_chain(folder))
        if any((folder / name).is_file() for name in ("model_index.json", "unet/config.json", "unet_ema/config.json")):
            return replace(_guarded(cls._load_diffusers, folder), chain=read_chain(folder))
        raise UserError(f"{folder} holds no model: neither process.json nor model_index.json is there.")

    @classmethod
    def _load_own(cls, folder: Path) -> "ScoreModel":
        file = folder / "process.json"
        written = read_json(file, Written)["format"]
        if written > FORMAT:
            raise UserError(f"{folder} was written by a newer msgm (format {written}; this one reads {FORMAT}).")
        description: Description = read_json(file, Description)
        network = _read_network(description, folder)
        process = PROCESSES.build(description["process"])
        if network.item_dims != description["shape"][0]:
            raise UserError(f"{folder}: process.json says shape {description['shape']}, which its network cannot read.")
        scheduler = folder / "scheduler" / "scheduler_config.json"
        kept = _settings(_read_scheduler(scheduler.parent)) if scheduler.is_file() else None
        return cls(network, process, tuple(description["shape"]), description["prediction"], kept)

    @classmethod
    def _load_diffusers(cls, folder: Path) -> "ScoreModel":
        _refuse_checkpoint(folder)
        unet = read_unet(_part(folder, "unet"))
        scheduler = _read_scheduler(_part(folder, "scheduler"))
        config = unet.config
        if config.num_class_embeds or config.class_embed_type:
            raise UserError(f"{folder}: the U-Net is class-conditional; msgm unlearns unconditional models.")
        if config.in_channels != config.out_channels:
            raise UserError(
                f"{folder}: it learns its variance ({config.in_channels} channels in, {config.out_channels} out)."
            )
        if config.sample_size is None:
            raise UserError(f"{folder}: the U-Net's config.json names no sample_size.")
        prediction = scheduler.config.prediction_type
        if prediction not in get_args(Prediction):
            raise UserError(
                f"{folder}: unknown prediction_type {prediction!r}; known: {', '.join(get_args(Prediction))}."
            )
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        process = DDPM(betas=tuple(scheduler.betas.double().tolist()))
        return cls(UNet(unet), process, (config.in_channels, height, width), prediction, _settings(scheduler))


def _read_network(description: Description, folder: Path) -> Network:
    """Read the network; the plugins that define it are imported first, if the user's config has not done so."""
    name, plugins = description["network"], description.get("plugins", [])
    if name not in NETWORKS.entries:
        load_recorded(plugins, folder / "process.json")
    if name not in NETWORKS.entries:
        raise UserError(f"{folder}: unknown network {name!r}; known: {', '.join(NETWORKS.entries)}.")
    try:
        network = NETWORKS.entries[name].load(folder)
    except UserError as error:
        raise UserError(f"cannot read the model in {folder}: {error}") from error
    note_changed(plugins, plugins_of(type(network)), folder)
    return network


def _read_scheduler(folder: Path) -> Any:
    """Read a scheduler as what it is: its settings are not those of another kind."""
    import diffusers

    kind = read_json(folder / "scheduler_config.json", dict[str, Any]).get("_class_name")
    if kind not in DISCRETE:
        raise UserError(f"{folder} holds a {kind}; msgm reads {', '.join(DISCRETE)}.")
    return getattr(diffusers, kind).from_pretrained(folder, local_files_only=True)


def _settings(scheduler: Any) -> dict[str, Any]:
    """Return a scheduler's settings, its class among them."""
    return {**scheduler.config, "_class_name": type(scheduler).__name__}


def _refuse_checkpoint(folder: Path) -> None:
    """Say what to do with a checkpoint of diffusers' training scripts: raw and averaged weights, and no scheduler."""
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


def _guarded(load: Any, folder: Path) -> ScoreModel:
    try:
        model: ScoreModel = load(folder)
    except UserError:
        raise
    except Exception as error:  # diffusers raises a dozen kinds for settings and weights that do not fit
        detail = str(error).split("\n")[0].rstrip(".")
        raise UserError(f"cannot read the model in {folder}: {detail}.") from error
    check_finite(model.network.state_dict(), str(folder))
    return model


def _discrete_betas(process: VP) -> list[float]:
    """Return 1000 betas whose label i has exactly the noise that the network learnt for it, t = i / 999.

    Label 0 would sit at t = 0, without noise; it takes the training limit t_min.
    """
    t = (torch.arange(1000, dtype=torch.float64) / 999).clamp_min(process.t_min)
    integral = process.integral(t)
    steps = torch.diff(integral, prepend=torch.zeros(1, dtype=torch.float64))
    betas: list[float] = (-torch.expm1(-steps)).tolist()
    return betas


def describe(process: Process) -> dict[str, Any]:
    """Return a process's settings as plain JSON, its name first."""
    return {"name": process.name, **{k: plain(v) for k, v in asdict(process).items()}}  # type: ignore[call-overload]
