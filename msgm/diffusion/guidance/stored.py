"""Guidance in a run: a folder beside the model, with the settings and with what was found before the first sample."""

import json
from pathlib import Path
from typing import Any, TypedDict

from safetensors.torch import save_file

from msgm.diffusion.guidance.base import GUIDANCE, Guidance
from msgm.diffusion.model import ScoreModel
from msgm.errors import UserError
from msgm.folders import whole_folder
from msgm.plugins import Plugin, load_recorded, plugins_of
from msgm.reading import read_json, read_tensors
from msgm.shapes import Positive

FOLDER, SETTINGS, FOUND = "guidance", "guidance.json", "found.safetensors"
FORMAT = 1


class Written(TypedDict):
    """Contents of ``guidance.json``."""

    format: Positive
    guidance: dict[str, Any]
    plugins: list[Plugin]


def save_guidance(guidance: Guidance, folder: Path | str) -> None:
    """Write a guidance that has been prepared: its settings and what it found.

    Example:
        >>> guidance = msgm.diffusion.guidance.Spell(radius=2.0)
        >>> guidance.bank, guidance.reach = torch.zeros(1, 1, 8, 8), 2.0
        >>> msgm.diffusion.guidance.save_guidance(guidance, out / "guidance")
        >>> sorted(path.name for path in (out / "guidance").iterdir())
        ['found.safetensors', 'guidance.json']
    """
    settings = {"name": guidance.name} | guidance.effective()
    written: Written = {"format": FORMAT, "guidance": settings, "plugins": plugins_of(type(guidance))}
    with whole_folder(Path(folder)) as new:
        (new / SETTINGS).write_text(json.dumps(written, indent=2))
        save_file({name: tensor.cpu().contiguous() for name, tensor in guidance.state().items()}, new / FOUND)


def read_guidance(folder: Path | str, model: ScoreModel) -> Guidance:
    """Return the guidance of a folder that ``save_guidance`` wrote for ``model``, as it was.

    Example:
        >>> guidance = msgm.diffusion.guidance.Spell(radius=2.0)
        >>> guidance.bank, guidance.reach = torch.zeros(1, 1, 8, 8), 2.0
        >>> msgm.diffusion.guidance.save_guidance(guidance, out / "read")
        >>> msgm.diffusion.guidance.read_guidance(out / "read", base).reach
        2.0

    Raises:
        UserError: a file is missing or damaged, of a newer version, or of another model.
    """
    file, found = Path(folder) / SETTINGS, Path(folder) / FOUND
    written: Written = read_json(file, Written)
    if written["format"] > FORMAT:
        raise UserError(f"{file} was written by a newer msgm (format {written['format']}; this one reads {FORMAT}).")
    if written["guidance"].get("name") not in GUIDANCE.entries:
        load_recorded(written["plugins"], file)
    guidance = GUIDANCE.build(written["guidance"])
    try:
        guidance.recall(read_tensors(found), model)
    except (KeyError, RuntimeError) as error:
        detail = str(error).splitlines()[0].rstrip(":")
        raise UserError(f"{found} does not hold what {guidance.name!r} found for this model: {detail}.") from error
    return guidance


def guidance_beside(folder: Path) -> Path | None:
    """Return the folder of the guidance that a run's model folder is sampled with; None where it has none."""
    place = folder.parent / FOLDER
    return place if folder.name == "model" and (place / SETTINGS).is_file() else None


def as_guided(model: ScoreModel, folder: Path) -> ScoreModel:
    """Return the model of a model folder as its run samples it: guided if there is guidance beside it."""
    place = guidance_beside(folder)
    return model if place is None else read_guidance(place, model).wrap(model)


def load_guided(folder: Path) -> ScoreModel:
    """Read a model folder as its run samples it; ``ScoreModel.load`` reads the weights alone.

    Example:
        >>> guidance = msgm.diffusion.guidance.Spell(radius=2.0)
        >>> guidance.bank, guidance.reach = torch.zeros(1, 1, 8, 8), 2.0
        >>> base.save(out / "run" / "model")
        >>> msgm.diffusion.guidance.save_guidance(guidance, out / "run" / "guidance")
        >>> msgm.diffusion.guidance.load_guided(out / "run" / "model").guidance
        Spell(radius=2.0, items=4096)

    Raises:
        UserError: there is no model, or it or its guidance is damaged.
    """
    return as_guided(ScoreModel.load(folder), folder)
