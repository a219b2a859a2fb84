"""``msgm sample``: samples of a trained model as a picture, an array and a folder of PNG files.

Samples are made in shards of one batch, each written atomically to ``shards/``. The requested files are joined from
them at the end. So a stopped run can be resumed and n processes can each make every n-th shard; the files are the same
as of one uninterrupted process. ``samples.json`` records the model, settings and seed of the samples.
"""

import io
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from msgm import processes, threads, traces
from msgm.config import SECTIONS
from msgm.data import quantise
from msgm.diffusion import SamplingSettings, ScoreModel, Sharded, sample
from msgm.diffusion.description import describe
from msgm.diffusion.guidance import Guided, load_guided
from msgm.digests import short_digest
from msgm.errors import UserError, known
from msgm.fields import structured
from msgm.folders import locked, whole_folder, write_bytes, write_json
from msgm.pictures import to_png
from msgm.plugins import load_files, load_received
from msgm.reading import read_json, read_npz
from msgm.runs import Run, find_model, refuse_served
from msgm.settings import differences, read_settings

GRID = 100
USED = ("plugins", "sampling")
"""The settings of a run that its samples depend on; its data, such as a folder of pictures, are not opened."""
FORMATS = {"grid": "samples.png", "npz": "samples.npz", "png": "png"}


def sampling_settings(
    source: Path | str, sampler: str | None = None, steps: int | None = None, overrides: Sequence[str] = ()
) -> SamplingSettings:
    """Return the settings of the run in ``source``, or the defaults where it has none, changed as asked.

    Args:
        source: a run, or a model made elsewhere.
        sampler: another sampler; the options and the schedule of the run's own one then do not hold.
        steps: another number of steps.
        overrides: ``sampling.KEY=VALUE``, over all of it.

    Raises:
        UserError: an unknown key, a wrong type, a value out of range, or an override of another section.
    """
    stored = load_received(Path(source), SECTIONS, used=USED) if Run(source).config.is_file() else {}
    load_files(stored.get("plugins", []))
    own = dict(stored.get("sampling", {}))
    if sampler is not None and sampler != own.get("sampler"):
        own = {key: value for key, value in own.items() if key not in ("options", "schedule")} | {"sampler": sampler}
    if steps is not None:
        own["steps"] = steps
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key.startswith("sampling."):
            raise UserError(f"--set {override}: expected sampling.KEY=VALUE; other sections do not matter here.")
    changed = read_settings({"sampling": own}, overrides)
    return structured(SamplingSettings, changed["sampling"], "sampling")


def sample_run(
    source: Path | str,
    count: int,
    settings: SamplingSettings | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    device: str = "auto",
    formats: Sequence[str] = ("grid", "npz"),
    resume: bool = False,
    overwrite: bool = False,
    ask: Sequence[int] = (),
) -> list[Path]:
    """Sample the model in ``source`` into the folder ``out``; called by every process when there are several.

    Args:
        source: a run, a compare folder (its base model) or a diffusers folder.
        count: number of samples, at least 1.
        settings: by default those of ``sampling_settings``.
        seed: names the sequence of samples.
        out: by default ``samples`` in the run, or ``runs/NAME-samples`` for a folder that was made elsewhere.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        formats: ``grid`` writes ``samples.png``, the first 100; ``npz`` writes ``samples.npz``, whose array ``samples``
            holds images as (N, H, W, C) uint8 of 256 levels and vectors as (N, D) float32; ``png`` writes a folder of
            numbered PNG files.
        resume: go on with a run that was stopped.
        overwrite: replace samples of other settings, or a run that was stopped.
        ask: numbers of the classes that a class-conditional model is asked for, in turn; by default for none.

    Returns:
        The files that this process wrote: none if the same samples (model, settings, seed and number) exist, and none
        on all processes but the first.

    Raises:
        UserError: no model there, a count below 1, an unknown format or one that does not fit the model, or ``out``
            holds other samples or a stopped run and neither ``resume`` nor ``overwrite`` says what to do; a sampler
            that a model of shards cannot be walked by.
    """
    if count < 1:
        raise UserError(f"--count must be at least 1, got {count}.")
    settings = settings or sampling_settings(source)
    model = load_guided(find_model(source))
    _check_formats(formats, model.shape)
    model.check_sampler(settings.build())
    folder = Path(out) if out else _default_folder(Path(source))
    if ask:
        model.asked(list(ask), len(ask))  # refuses classes that the model does not know
    task = Task(folder, model, settings, seed, count, tuple(ask))
    paths = [folder / FORMATS[name] for name in formats]
    with processes.together(device) as where, locked(folder):
        refuse_served(folder)
        new = overwrite or task.is_new(resume)
        processes.wait()  # until all have read what the first may write from here on
        if processes.is_first():
            if new:
                task.begin()
            traces.follow(folder, find_model(source))
            for path in (*paths, folder / "shards"):
                traces.register(folder, path, "samples of a model")
        processes.wait()
        threads.keep(task.record)
        if task.finished() and all(path.exists() for path in paths):
            print(f"{folder} holds these samples already")
            return []
        model.to(where)
        task.make()
        if not processes.is_first():
            return []
        task.join(formats)
        return paths


class Stored(TypedDict):
    """Contents of ``samples.json``."""

    finished: bool
    key: dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A folder and the samples to write there.

    Attributes:
        folder: where to write.
        model: the model.
        settings: sampler, steps and batch size, which is the shards' size.
        seed: of the sequence.
        count: number of samples.
        labels: classes that are asked for in turn; none for the null condition.
    """

    folder: Path
    model: ScoreModel
    settings: SamplingSettings
    seed: int
    count: int
    labels: tuple[int, ...] = ()

    @property
    def record(self) -> Path:
        """Return the path of ``samples.json``."""
        return self.folder / "samples.json"

    def key(self) -> dict[str, Any]:
        """Return all facts that the samples depend on."""
        grid = {"schedule": self.settings.spacing, "start": self.model.process.at_top()[1]}
        sampling = asdict(self.settings) | {"options": {k: str(v) for k, v in self.settings.options.items()}} | grid
        facts = {"model": _model_digest(self.model), "seed": self.seed, "count": self.count, "sampling": sampling}
        guidance = {"guidance": _guidance_digest(self.model)} if isinstance(self.model, Guided) else {}
        return facts | guidance | ({"asked": list(self.labels)} if self.labels else {})

    def stored(self) -> dict[str, Any]:
        """Return the contents of the folder's ``samples.json``."""
        stored: dict[str, Any] = read_json(self.record, Stored)
        return stored

    def finished(self) -> bool:
        """Return whether all samples were written once."""
        return bool(self.stored()["finished"])

    def is_new(self, resume: bool) -> bool:
        """Return whether the folder holds no such samples yet.

        Raises:
            UserError: it holds other ones, or those of a stopped run that is not to be resumed.
        """
        if not self.record.is_file():
            return True
        stored = self.stored()
        other = differences(stored["key"], self.key())
        if other:
            raise UserError(
                f"{self.folder} holds other samples ({'; '.join(other)}); choose another --out, or --overwrite."
            )
        if not stored["finished"] and not resume:
            raise UserError(f"{self.folder} holds samples that were stopped; go on with --resume, or --overwrite.")
        return False

    def begin(self) -> None:
        """Write ``samples.json`` for these samples.

        Those of other settings are removed: in formats that are not asked for now they would be taken for these.
        """
        replaced = FORMATS.values() if self.record.is_file() else ()
        for path in (self._shards, *(self.folder / name for name in replaced)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        facts = {"key": self.key(), "threads": threads.in_use(), "protocol": self.settings.describe(self.model.process)}
        write_json(self.record, {"finished": False} | facts)

    def make(self) -> None:
        """Make the shards that are not there yet, each process of the launch its own ones."""
        starts = range(0, self.count, self.settings.batch_size)
        with tqdm(starts, "sampling", unit="shard", disable=not (processes.is_first() and sys.stderr.isatty())) as bar:

            def made(first: int) -> None:
                with processes.alone():
                    self._make(first)
                bar.update(processes.sharing())

            processes.spread(starts, made)

    def _make(self, first: int) -> None:
        """Make the shard that begins with sample ``first``, unless it is there."""
        if self._shard(first).is_file():
            return
        numbers = range(first, min(first + self.settings.batch_size, self.count))
        asked = [self.labels[number % len(self.labels)] for number in numbers] if self.labels else None
        samples = sample(self.model, len(numbers), self.settings, self.seed, first, condition=asked)
        buffer = io.BytesIO()
        np.save(buffer, samples.numpy(), allow_pickle=False)
        write_bytes(self._shard(first), buffer.getvalue())
        if not sys.stderr.isatty() and self.count > self.settings.batch_size:
            print(f"samples {first} to {numbers[-1]} of {self.count} are there", flush=True)

    def join(self, formats: Sequence[str]) -> None:
        """Write the requested files from the shards, then remove the shards."""
        images = len(self.model.shape) == 3
        shards = [self._shard(first) for first in range(0, self.count, self.settings.batch_size)]
        head: list[Tensor] = []
        arrays: list[NDArray[Any]] = []
        for shard in shards:
            samples = self._read(shard)
            head.append(samples[: max(0, GRID - sum(map(len, head)))])
            arrays.append(quantise(samples, 256).permute(0, 2, 3, 1).numpy() if images else samples.numpy())
        array = np.concatenate(arrays)
        if "npz" in formats:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, samples=array)
            write_bytes(self.folder / FORMATS["npz"], buffer.getvalue())
        if "grid" in formats:
            write_bytes(self.folder / FORMATS["grid"], to_png(torch.cat(head), 256 if images else None))
        if "png" in formats:
            _write_files(self.folder / FORMATS["png"], array)
        write_json(self.record, self.stored() | {"finished": True})
        shutil.rmtree(self._shards)

    def _read(self, shard: Path) -> Tensor:
        array = read_npz(shard, {"": "f"})[""]
        if array.shape[1:] != self.model.shape:
            raise UserError(f"{shard} is damaged: it holds samples of shape {array.shape[1:]}, not {self.model.shape}.")
        return torch.from_numpy(array)

    @property
    def _shards(self) -> Path:
        return self.folder / "shards"

    def _shard(self, first: int) -> Path:
        return self._shards / f"{first:08d}.npy"


def _check_formats(formats: Sequence[str], shape: tuple[int, ...]) -> None:
    for name in formats:
        known(name, list(FORMATS), "--format", "format")
    if "png" in formats and (len(shape) != 3 or shape[0] not in (1, 3)):
        raise UserError(f"--format png: needs grey or RGB images, but the model makes items of shape {shape}.")


def _write_files(folder: Path, array: NDArray[Any]) -> None:
    """Write images (N, H, W, C) as numbered files of a folder, which is there whole or not at all."""
    from PIL import Image

    with whole_folder(folder) as new:
        for number, image in enumerate(array):
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(new / f"{number:06d}.png")


def _model_digest(model: ScoreModel) -> str:
    """Return a hash of weights and process, and of how models of shards are mixed."""
    mixed = f" {model.mixture} {model.items}" if isinstance(model, Sharded) else ""
    weights = (
        name.encode() + weight.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        for name, weight in model.network.state_dict().items()
    )
    return short_digest(chain([f"{describe(model.process)} {model.prediction}{mixed}".encode()], weights))


def _guidance_digest(model: Guided) -> str:
    """Return a hash of what guides samples: its settings, and what it found."""
    assert model.guidance is not None
    state = model.guidance.state()
    parts = (name.encode() + tensor.cpu().contiguous().numpy().tobytes() for name, tensor in sorted(state.items()))
    return short_digest(chain([f"{model.guidance.name} {model.guidance.effective()}".encode()], parts))


def _default_folder(source: Path) -> Path:
    """Return ``samples`` in a run of ours; nothing is written into a folder that was made elsewhere."""
    if Run(source).manifest.is_file():
        return Run(source).samples
    return Path("runs") / f"{source.resolve().name}-samples"
