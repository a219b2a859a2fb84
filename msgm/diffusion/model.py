"""The score model: a network and the process it was trained for, saved as a folder that diffusers can read.

The network predicts the noise of ``x_t = a x_0 + sigma eps``; everything else follows from it:

- score: grad log p_t(x) = -eps(x, t) / sigma(t)
- denoise: E[x_0 | x_t] = (x_t - sigma eps(x, t)) / a  (Tweedie)

The file is long because what a model is and the folder that keeps it change together.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from msgm.chain import FILE as CHAIN
from msgm.chain import Chain, read_chain
from msgm.diffusion.conditions import Asked, Condition, texts_of
from msgm.diffusion.description import FORMAT, Description, Written, describe, guarded, named, replaceable
from msgm.diffusion.networks import NETWORKS, Library, Network, check_loadable, read_network
from msgm.diffusion.pipelines import (
    OF_TEXT,
    facts_of,
    make_pipeline,
    pipeline_parts,
    read_parts,
    read_scheduler,
    scheduler_for,
    settings_of,
    write_index,
)
from msgm.diffusion.prediction import Prediction, to_clean, to_eps
from msgm.diffusion.processes import PROCESSES, Process
from msgm.digests import model_key, weights_digest
from msgm.errors import RunError, UserError
from msgm.folders import whole_folder
from msgm.plugins import plugins_of, trusting
from msgm.reading import read_json
from msgm.runs import find_model
from msgm.seeding import derive_seed

if TYPE_CHECKING:
    from msgm.diffusion.samplers import Callback, Sampler

README = "README.md"
CHANGED = "the weights were changed by a training loop that recorded no request"


def per_item(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) so that it broadcasts over the items of ``like`` (B, *shape)."""
    return values.view(-1, *[1] * (like.dim() - 1))


@dataclass
class ScoreModel:
    """A network with its process.

    Example:
        >>> model = msgm.ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8], seed=0)
        >>> model.sample(2, sampler="dpm++2m", steps=5).shape
        torch.Size([2, 1, 8, 8])
        >>> model.save_pretrained(out / "model")
        >>> msgm.ScoreModel.from_pretrained(out / "model").process
        VP(beta_min=0.1, beta_max=20.0)

    Attributes:
        network: maps (x, label) to the prediction; a ``Network``, or the same one wrapped for training.
        process: the Gaussian path.
        shape: shape of one item.
        prediction: the network's output in diffusers' terms; networks made here predict epsilon, and the
            velocity for the process ``flow``.
        scheduler: configuration of the diffusers scheduler that a foreign model came with, its class as
            ``_class_name``; written back on save.
        chain: forget requests of the model so far; None if unknown.
        key: secret key of the chain's digests, needed to check that the data is the chain's; None if not available. It
            is never saved in a model folder.
        folder: where the model was read from by ``from_pretrained``.
        sealed: hash of the weights that ``chain`` describes; None if it was not computed.
    """

    network: nn.Module
    process: Process
    shape: tuple[int, ...]
    prediction: Prediction = "epsilon"
    scheduler: dict[str, Any] | None = None
    chain: Chain | None = None
    key: bytes | None = field(default=None, repr=False)
    folder: Path | None = None
    sealed: str | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        count = sum(weights.numel() for weights in self.network.parameters())
        asked = "an unknown history" if self.chain is None else f"{len(self.chain.requests)} requests answered"
        kind = type(self.network).__name__
        return f"ScoreModel({kind} of {count:,} weights, {self.process!r}, shape={self.shape}, {asked})"

    @classmethod
    def new(
        cls,
        network: str | Mapping[str, Any] = "unet",
        process: str | Mapping[str, Any] = "vp",
        shape: tuple[int, ...] = (1, 8, 8),
        seed: int = 0,
        **settings: Any,
    ) -> "ScoreModel":
        """Return a model with random weights, the same for the same ``seed``.

        Args:
            network: a name in ``NETWORKS``, or ``{"name": ..., ...}`` with its settings.
            process: a name in ``PROCESSES``, or ``{"name": ..., ...}`` with its settings.
            shape: of one item: (channels, height, width) of images, (length,) of vectors.
            seed: of the weights.
            **settings: of the process if it has a setting of that name (``beta_max``), else of the network
                (``channels``).

        Raises:
            UserError: an unknown name or setting, a value that a part refuses, or a network for other shapes.
        """
        path = PROCESSES.build(named(process))
        own = {f.name for f in fields(path) if f.init}  # type: ignore[arg-type]
        path = PROCESSES.build(named(process) | {key: settings[key] for key in settings if key in own})
        parts = named(network) | {key: settings[key] for key in settings if key not in own}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "init"))
            made = NETWORKS.build(parts).build(tuple(shape))
        check_loadable(made)
        return cls(made, path, tuple(shape), path.prediction, chain=Chain(), sealed=weights_digest(made))

    @property
    def untrained(self) -> bool:
        """Whether ``new`` made it and nothing has trained it since."""
        return self.history() == Chain() and self.sealed is not None

    def history(self) -> Chain | None:
        """Return the chain; if the weights were changed since by a loop that records nothing, it states so."""
        if self.chain is None or self.sealed in (None, weights_digest(self.network)):
            return self.chain
        return replace(self.chain, unknown=CHANGED)

    def eps(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return the predicted noise in float32 or better.

        Args:
            x: (B, *shape) noised items.
            t: (B,) times in (0, 1].
            condition: of each item; None is the null condition, the only one that an unconditional network reads.
        """
        return to_eps(self.prediction, self._output(x, t, condition), x, *self._path(x, t))

    def _path(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return a(t) and sigma(t), which broadcast over x."""
        return per_item(self.process.signal(t), x), per_item(self.process.noise(t), x)

    def _output(self, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        scale = per_item(self.process.input_scale(t), x).to(x.dtype)
        given = () if condition is None else (condition,)
        out: Tensor = self.network(x * scale, self.process.label(t), *given)
        return out.to(torch.promote_types(out.dtype, torch.float32))

    def score(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return grad log p_t(x); arguments as in ``eps``."""
        return -self.eps(x, t, condition) / per_item(self.process.noise(t), x)

    def denoise(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return the posterior mean of x_0; arguments as in ``eps``. Not finite where a(t) = 0 for a network of eps."""
        if self.prediction == "epsilon":
            return to_clean("epsilon", self.eps(x, t, condition), x, *self._path(x, t))
        return to_clean(self.prediction, self._output(x, t, condition), x, *self._path(x, t))

    def for_walk(self, seeds: Sequence[int] | None = None) -> "ScoreModel":
        """Return the model for one walk of a batch, its trajectories named by ``seeds``; fresh where walks remember."""
        return self

    def check_sampler(self, sampler: "Sampler") -> None:
        """Raise a UserError where samples by ``sampler`` would not be the model's; a network takes any."""

    def for_rows(self, rows: Tensor) -> "ScoreModel":
        """Return the model of a walk for some of its trajectories."""
        return self

    def parts(self) -> "Iterable[tuple[float, ScoreModel]]":
        """Return (share, model) of each model whose densities, weighted by the shares, sum to this one's."""
        return [(1.0, self)]

    def accepts(self, items: Tensor) -> Tensor | None:
        """Return which samples may stand, (B,) bool, the others being drawn anew; None is all of them."""
        return None

    def asked(self, condition: Asked, count: int) -> Condition | None:
        """Return what is asked for as a condition of ``count`` items, on the model's device.

        Raises:
            UserError: the network does not read it, or another number of rows.
        """
        texts = texts_of(condition)
        if texts is not None and isinstance(self.network, Network):
            with torch.no_grad():
                condition = self.network.encode(texts * count if len(texts) == 1 else texts)
        found = Condition.of(condition, count)
        if found is None:
            return None
        if isinstance(self.network, Network):
            self.network.check_condition(found)
        return found.to(self.device)

    def decode(self, items: Tensor) -> Tensor:
        """Return what samples (B, *shape) show: the images of latents; items of other models as they are."""
        return self.network.decode(items) if isinstance(self.network, Network) else items

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

    @property
    def classes(self) -> int:
        """Number of classes that the model can be asked for; 0 for an unconditional one."""
        return int(getattr(self.network, "classes", 0))

    def parameter_count(self) -> int:
        """Return the number of weights."""
        return sum(p.numel() for p in self.network.parameters())

    def sample(
        self,
        count: int,
        sampler: "str | Sampler" = "dpm++2m-sde",
        steps: int = 50,
        seed: int = 0,
        first: int = 0,
        callback: "Callback | None" = None,
        condition: Asked = None,
        **settings: Any,
    ) -> Tensor:
        """Draw samples ``first`` .. ``first + count`` of the endless sequence that ``seed`` names.

        Args:
            count: number of samples.
            sampler: a name in ``SAMPLERS``, or a sampler with its options.
            steps: steps of the grid of noise levels.
            seed: names the sequence.
            first: index of the first sample.
            callback: called with the samples' numbers and the ``State`` once a step.
            condition: what is asked for: a label or a prompt for all samples, one for each, or a ``Condition``.
            **settings: ``schedule``, ``batch_size`` and ``guidance`` of ``SamplingSettings``, and options of a sampler
                given by name.

        Returns:
            (count, *shape) float32 on the CPU; images lie in [-1, 1] but for sampling error.

        Raises:
            UserError: an unknown sampler, option or schedule, a condition that the model does not read, or no sample.
        """
        from msgm.diffusion.samplers import SamplingSettings, sample

        if count < 1:
            raise UserError(f"sample: count must be at least 1, got {count}.")
        return sample(self, count, SamplingSettings.of(sampler, steps, **settings), seed, first, callback, condition)

    def to_pipeline(self, **parts: Any) -> Any:
        """Return a diffusers pipeline with a copy of this model, such as a ``DDPMPipeline``.

        Args:
            **parts: of the pipeline that are no part of the model: ``vae``, the autoencoder of a DiT's latents.

        Raises:
            UserError: diffusers has none for it: its process is VE or sub-VP, its network none of diffusers', one that
                pads, or a class-conditional U-Net.
        """
        scheduler = scheduler_for(self.process, self.prediction, self.scheduler)
        if scheduler is None or not isinstance(self.network, Library):
            foreign = "this network, which is none of diffusers'"
            what = f"process {self.process.name!r}" if scheduler is None else foreign
            raise UserError(f"to_pipeline: diffusers has no pipeline for {what}; sample with model.sample.")
        return make_pipeline(self.network, scheduler, self.shape, parts)

    def save_pretrained(self, folder: Path | str, card: Mapping[str, Any] | None = None) -> None:
        """Write the folder that ``from_pretrained`` and, for VP and DDPM, diffusers' pipelines read.

        It holds the weights, ``process.json``, and README.md, a model card in the form of the Hugging Face hub. The
        card says how many items were forgotten and not which. ``chain.json``, which lets a later request honour the
        earlier ones, names them by position: do not publish it if positions identify the owners of items.

        Args:
            folder: an empty or new folder, or a model's, which is replaced.
            card: report card of this model: ``report.card(row)``. Without it the model card says that nothing was
                measured.

        Raises:
            UserError: a folder that holds something else, or a card that lacks a part.
            RunError: the weights could not be written, for want of space say.
            OSError: the machine cannot write; it names the file.
        """
        from msgm.diffusion.hub import Facts, model_card

        folder = Path(folder)
        if folder.exists() and not (folder.is_dir() and replaceable(folder)):
            raise UserError(f"save_pretrained: {folder} is there and holds no model; give a new folder.")
        title = folder.resolve().name
        path = scheduler_for(self.process, self.prediction, self.scheduler)
        facts = Facts(title, self.process.name, self.shape, self.parameter_count(), **facts_of(self.network, path))
        self._save(folder, model_card(facts, self.history(), card))

    def save(self, folder: Path | str) -> None:
        """Write the folder whole or not at all; ``save_pretrained`` adds a model card.

        Raises:
            RunError: the weights could not be written, for want of space say.
            OSError: the machine cannot write; it names the file.
        """
        self._save(Path(folder))

    def _save(self, folder: Path, readme: str | None = None) -> None:
        try:
            with whole_folder(folder) as new:
                self._write(new)
                if readme is not None:
                    (new / README).write_text(readme)
        except SafetensorError as error:
            raise RunError(f"could not write the model {folder}: {error}.") from error

    def _write(self, folder: Path) -> None:
        network = self.network
        if not isinstance(network, Network):
            raise TypeError(f"save the bare network, not a wrapped {type(network).__name__}")
        network.save(folder)
        self._describe(folder, network.name)
        scheduler = scheduler_for(self.process, self.prediction, self.scheduler)
        if scheduler is not None and isinstance(network, Library):
            write_index(folder, network, scheduler)

    def _describe(self, folder: Path, network: str) -> None:
        """Write what is no weights: ``process.json`` and the history."""
        description = {
            "format": FORMAT,
            "process": describe(self.process),
            "network": network,
            "shape": list(self.shape),
            "prediction": self.prediction,
            "plugins": plugins_of(type(self.network)),
        }
        (folder / "process.json").write_text(json.dumps(description, indent=2))
        history = self.history()
        if history is not None:
            (folder / CHAIN).write_text(json.dumps(history.to_json(), indent=2))

    @classmethod
    def from_pretrained(
        cls, source: Any, download: bool = False, revision: str | None = None, trust: bool = False
    ) -> "ScoreModel":
        """Return a trained model; of a run with guidance its guided view, whose ``base`` has the weights.

        Args:
            source: a run folder, a folder of ``save_pretrained`` or of diffusers, a diffusers pipeline object with a
                ``UNet2DModel`` or a DiT, or, with ``download``, the name ``owner/model`` of one on the hub.
            download: let a model that is no folder here be fetched from the hub: its settings and weights alone.
            revision: of a model of the hub: branch, tag or commit.
            trust: run the Python files that the model's folder names.

        Raises:
            UserError: no model there, one that is damaged, newer, or a network that msgm does not use, or a name of the
                hub that may not be fetched.
            RunError: the hub cannot be reached.
        """
        if not isinstance(source, str | Path):
            return cls(*pipeline_parts(source))
        if not Path(source).exists():
            if not download:
                hint = "allow a model of the Hugging Face hub to be fetched with download=True"
                raise UserError(f"from_pretrained: {source} is no folder here; {hint}.")
            from msgm.diffusion.hub import fetched

            source = fetched(str(source), revision)
        folder = find_model(source)
        from msgm.diffusion.guidance.stored import as_guided  # of models, which these lie above

        with trusting(trust):
            found = cls.load(folder)
            found = replace(found, key=model_key(folder), folder=folder, sealed=weights_digest(found.network))
            return as_guided(found, folder)

    @classmethod
    def load(cls, folder: Path | str) -> "ScoreModel":
        """Read a folder written by ``save``, or any diffusers folder of a UNet2DModel or a DiT with its scheduler.

        Raises:
            UserError: no model there, a damaged or newer file, or a network that msgm does not use.
        """
        folder = Path(folder)
        if (folder / "shards.json").is_file():
            from msgm.diffusion.shards import load_shards  # of models, which these lie above

            return load_shards(folder)
        if (folder / "process.json").is_file():
            return replace(guarded(cls._load_own, folder), chain=read_chain(folder))
        if any(
            (folder / name).is_file()
            for name in ("model_index.json", "unet/config.json", "unet_ema/config.json", "transformer/config.json")
        ):
            return replace(guarded(lambda found: cls(*read_parts(found)), folder), chain=read_chain(folder))
        raise UserError(f"{folder} holds no model: neither process.json nor model_index.json is there.")

    @classmethod
    def _load_own(cls, folder: Path) -> "ScoreModel":
        file = folder / "process.json"
        written = read_json(file, Written)["format"]
        if written > FORMAT:
            raise UserError(f"{folder} was written by a newer msgm (format {written}; this one reads {FORMAT}).")
        description: Description = read_json(file, Description)
        network = read_network(description["network"], description.get("plugins", []), folder)
        process = PROCESSES.build(description["process"])
        if network.item_dims != description["shape"][0]:
            raise UserError(f"{folder}: process.json says shape {description['shape']}, which its network cannot read.")
        scheduler = folder / "scheduler" / "scheduler_config.json"
        kept = settings_of(read_scheduler(scheduler.parent, OF_TEXT)) if scheduler.is_file() else None
        return cls(network, process, tuple(description["shape"]), description["prediction"], kept)
