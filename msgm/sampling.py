"""``msgm sample``: samples of a trained model as a picture and an array."""

import io
from pathlib import Path

import numpy as np

from msgm.data import quantise
from msgm.diffusion import SamplingSettings, ScoreModel, sample
from msgm.errors import UserError
from msgm.pictures import to_png
from msgm.runs import Run, chosen_device, find_model, write_bytes

GRID = 100


def sample_run(
    source: Path | str,
    count: int,
    settings: SamplingSettings,
    seed: int = 0,
    out: Path | str | None = None,
    device: str = "auto",
) -> list[Path]:
    """Sample the model in ``source`` and write ``samples.png`` (the first 100) and ``samples.npz`` (all of them).

    The array ``samples`` holds images as (N, H, W, C) uint8 of 256 levels, vectors as (N, D) float32.

    Raises:
        UserError: no model there, or a count below 1.
    """
    if count < 1:
        raise UserError(f"--count must be at least 1, got {count}.")
    model = ScoreModel.load(find_model(source)).to(chosen_device(device))
    samples = sample(model, count, settings, seed)
    folder = Path(out) if out else _default_folder(Path(source))
    images = len(model.shape) == 3
    array = quantise(samples, 256).permute(0, 2, 3, 1).numpy() if images else samples.numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, samples=array)
    write_bytes(folder / "samples.npz", buffer.getvalue())
    write_bytes(folder / "samples.png", to_png(samples[:GRID], 256 if images else None))
    return [folder / "samples.png", folder / "samples.npz"]


def _default_folder(source: Path) -> Path:
    """Return ``samples`` in a run of ours; nothing is written into a folder that was made elsewhere."""
    if Run(source).manifest.is_file():
        return Run(source).samples
    return Path("runs") / f"{source.resolve().name}-samples"
