"""Masks on the command line: the removed part of an item, given by a word or a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msgm.data.pictures import open_picture
from msgm.diffusion.restoration import fitting_mask
from msgm.errors import UserError

HALVES = ("upper", "lower", "left", "right")
FORMS = "upper, lower, left, right, rows:32-47, box:top,left,height,width, dims:0,2 or an image file"
WHITE = 128
"""Grey level from which a pixel of a mask picture counts as white."""


def parse_mask(text: str, shape: tuple[int, ...]) -> Tensor:
    """Return the mask that ``text`` means, true where items of ``shape`` stay known.

    The text names what is *removed*: a half (``upper``, ``lower``, ``left``, ``right``), rows with both ends
    (``rows:32-47``), a box in pixels (``box:top,left,height,width``), or the white pixels of an image file of exactly
    the items' size (white is repainted, as in diffusers; transparent pixels are
    refused, since a person may mean either by them). Vectors lose the coordinates of ``dims:0,2``.

    Example:
        >>> parse_mask("upper", (1, 4, 2)).int()
        tensor([[0, 0], [0, 0], [1, 1], [1, 1]], dtype=torch.int32)
        >>> parse_mask("dims:0", (3,))
        tensor([False,  True,  True])

    Returns:
        (H, W) bool for images, (D,) bool for vectors.

    Raises:
        UserError: none of these, outside the item, of another size, or a mask that removes nothing or everything.
    """
    kind, _, rest = text.partition(":")
    images = len(shape) == 3
    if kind == "dims" and rest:
        removed = _dims(text, rest, shape)
    elif not images:
        raise UserError(f"--mask {text}: the data are vectors of {shape[0]} numbers; say which to remove, as dims:0.")
    elif text in HALVES:
        removed = _half(text, shape[1], shape[2])
    elif kind == "rows" and rest:
        removed = _rows(text, rest, shape[1], shape[2])
    elif kind == "box" and rest:
        removed = _box(text, rest, shape[1], shape[2])
    else:
        removed = _picture(text, shape)
    if removed.all() or not removed.any():
        raise UserError(f"--mask {text} removes {'everything' if removed.any() else 'nothing'}.")
    return ~removed


def _half(side: str, height: int, width: int) -> Tensor:
    removed = torch.zeros(height, width, dtype=torch.bool)
    part = {
        "upper": removed[: height // 2],
        "lower": removed[height // 2 :],
        "left": removed[:, : width // 2],
        "right": removed[:, width // 2 :],
    }[side]
    part.fill_(True)
    return removed


def _rows(text: str, rest: str, height: int, width: int) -> Tensor:
    first, last = _integers(text, rest.split("-"), 2)
    if not 0 <= first <= last < height:
        raise UserError(f"--mask {text}: expected rows from 0 to {height - 1}, the first one first.")
    removed = torch.zeros(height, width, dtype=torch.bool)
    removed[first : last + 1] = True
    return removed


def _box(text: str, rest: str, height: int, width: int) -> Tensor:
    top, left, tall, wide = _integers(text, rest.split(","), 4)
    if min(top, left) < 0 or min(tall, wide) < 1 or top + tall > height or left + wide > width:
        raise UserError(f"--mask {text}: the box top,left,height,width does not lie within the {height}x{width} image.")
    removed = torch.zeros(height, width, dtype=torch.bool)
    removed[top : top + tall, left : left + wide] = True
    return removed


def _dims(text: str, rest: str, shape: tuple[int, ...]) -> Tensor:
    parts = rest.split(",")
    dims = _integers(text, parts, len(parts))
    if len(shape) != 1:
        raise UserError(f"--mask {text}: dims are for vectors, and the data are images; use {FORMS}.")
    if not all(0 <= dim < shape[0] for dim in dims):
        raise UserError(f"--mask {text}: expected coordinates from 0 to {shape[0] - 1}.")
    removed = torch.zeros(shape[0], dtype=torch.bool)
    removed[list(dims)] = True
    return removed


def _integers(text: str, parts: Sequence[str], count: int) -> tuple[int, ...]:
    if len(parts) != count or not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"--mask {text}: expected {FORMS}.")
    return tuple(int(part) for part in parts)


def _picture(text: str, shape: tuple[int, ...]) -> Tensor:
    if not Path(text).is_file():
        raise UserError(f"--mask {text} is no file and no mask; expected {FORMS}.")
    try:
        picture = open_picture(text, background=None)
    except UserError as error:
        raise UserError(f"--mask {text}: {error}") from error
    white = torch.from_numpy(np.array(picture.convert("L"))) >= WHITE
    try:
        fitting_mask(white, shape)
    except UserError as error:
        raise UserError(f"--mask {text}: {error}") from error
    return white
