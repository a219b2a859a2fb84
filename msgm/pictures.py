"""Pictures of items: grids of images, scatter plots of points; as PNG bytes."""

import io
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msgm.errors import UserError
from msgm.markdown import label


def to_png(items: Tensor, levels: int | None, columns: int | None = None, pixels: int = 4) -> bytes:
    """Return a PNG of items as models make them: images in [-1, 1] as a grid, vectors as a scatter plot.

    Args:
        items: (N, C, H, W) or (N, D); of vectors the first two coordinates are drawn.
        levels: grey levels of the images; None for vectors.
        columns: images a row; None makes the grid square.
        pixels: side of a drawn pixel for images below 16 pixels; larger images are drawn as they are.
    """
    if levels is None:
        return _scatter(items)
    from torchvision.utils import make_grid

    scale = pixels if items.shape[-1] < 16 else 1
    columns = columns or math.ceil(math.sqrt(len(items)))
    grid = make_grid((items.clamp(-1, 1) + 1) / 2, nrow=columns, padding=1, pad_value=1.0)
    grid = grid.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return _encode((grid * 255).round().to(torch.uint8))


def _encode(image: Tensor) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.asarray(image.permute(1, 2, 0))).save(buffer, format="PNG")
    return buffer.getvalue()


def _scatter(points: Tensor) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 3), layout="constrained")
    axes = figure.subplots()
    axes.scatter(points[:, 0], points[:, 1], s=2, linewidths=0)
    axes.set(xlim=(-6, 6), ylim=(-6, 6), aspect="equal")
    return figure_png(figure)


def figure_png(figure: object) -> bytes:
    """Return a matplotlib figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)  # type: ignore[attr-defined]
    return buffer.getvalue()


def strips(grids: dict[str, Path], columns: int = 4) -> bytes:
    """Return one PNG with every picture under its name."""
    from matplotlib import image
    from matplotlib.figure import Figure

    columns = min(columns, max(1, len(grids)))
    lines = -(-len(grids) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.8 * lines), layout="constrained")
    for axes in figure.subplots(lines, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, (name, path) in zip(figure.axes, grids.items(), strict=False):
        try:
            picture = image.imread(path)
        except Exception as error:  # Pillow raises a dozen kinds for damaged bytes
            raise UserError(f"{path} is damaged or no PNG picture.") from error
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(label(name), fontsize=9)
    return figure_png(figure)
