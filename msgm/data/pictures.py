"""Reads picture files: the result is the picture that a viewer shows.

A file's numbers are not yet the picture. They may have 1, 12 or 16 bits, be turned by an EXIF tag, stand for inks, or
mean other colours by a colour profile; and a transparent picture has no colours until something lies behind it. So a
picture is read in these steps: choose the frame, decode, bring to 8 bits and to grey or RGB by the table ``MODES``,
apply the colour profile (or PNG's gamma), turn upright, lay over the background. Ambiguous files are refused with their
mode named, or decided by a setting: the background and the frame.

16-bit grey v becomes round(255 v / 65535); of 16-bit colours Pillow keeps the high byte, which is within one level.
"""

import io
import logging
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msgm.errors import UserError

if TYPE_CHECKING:
    from PIL import Image, ImageCms

FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
"""Formats that are read, whatever the file's ending says."""
MODES = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "I;16": "L",
    "I;16B": "L",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBX": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "YCbCr": "RGB",
    "HSV": "RGB",
    "LAB": "RGB",
    "CMYK": "CMYK",
}
"""Pillow's mode to the one that its pixels are brought to; what is not here is refused."""
SIXTEEN_IN_I = ("PNG", "PPM", "JPEG2000")
"""Formats whose mode I holds 16 bits, 0 to 65535; a TIFF's may hold any 32."""
SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ORIENTATION = 0x0112
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF."""
WHITE_IS_ZERO, SIGNED = 0, 2


logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is wrong with a file is said in one sentence, below


def open_picture(path: Path | str, background: str | None = "white", frame: int = 0) -> "Image.Image":
    """Read a picture as a person sees it.

    Args:
        path: a file of one of ``FORMATS``.
        background: the colour behind transparent pixels; None refuses a picture that has any.
        frame: which picture of an animation or of a file of several pages, from 0.

    Returns:
        An upright image of mode L or RGB, 8 bits, sRGB.

    Raises:
        UserError: the file cannot be read, is damaged, or does not determine its appearance.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on odd tags and on large pictures; too large ones are an error
        try:
            with Image.open(path) as file:
                return _seen(file, background, frame)
        except Exception as error:  # of any kind: whatever Pillow's parsers meet in a damaged file
            raise UserError(f"cannot read the image {path}: {_reason(error)}.") from error


def check_background(background: str | None, key: str) -> None:
    """Refuse a value that is not an opaque colour.

    Raises:
        UserError: naming ``key``.
    """
    from PIL import ImageColor

    try:
        known = background is None or len(ImageColor.getrgb(background)) == 3
    except ValueError:
        known = False
    if not known:
        raise UserError(f"{key}: expected a colour such as white, black or '#808080', or null, got {background!r}.")


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "its content is no picture of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).splitlines()), "").rstrip(".") or type(error).__name__


def _seen(file: "Image.Image", background: str | None, frame: int) -> "Image.Image":
    if file.format not in FORMATS:
        raise ValueError(f"a {file.format} file of mode {file.mode} is none of {', '.join(FORMATS)}")
    if 0 in file.size:
        raise ValueError(f"it has {file.width}x{file.height} pixels")
    _seek(file, frame)
    _refuse_unclear(file)
    drawn = file.tile[0][1] if file.format == "GIF" and frame == 0 else None  # type: ignore[attr-defined]
    file.load()
    image = _plain(file)
    if drawn is not None and drawn != (0, 0, *file.size):
        image = _clear_around(image, drawn)
    image = _upright(_managed(image, file), file)
    return _over(image, background) if image.mode in ("LA", "RGBA") else image


def _seek(file: "Image.Image", frame: int) -> None:
    """Go to a frame; the still picture that an animated PNG holds for old viewers is none of its frames."""
    try:
        file.seek(frame + bool(file.info.get("default_image")))
    except EOFError:
        raise ValueError(f"it has no frame {frame}: data.frame is counted from 0") from None


def _refuse_unclear(file: "Image.Image") -> None:
    """Refuse pictures whose pixel values do not determine their appearance."""
    mode, tags = file.mode, getattr(file, "tag_v2", {})
    if mode not in MODES and not (mode == "I" and file.format in SIXTEEN_IN_I):
        raise ValueError(
            f"a {file.format} file of mode {mode} does not say which of its numbers are black and white; "
            "convert it to 8 or 16 bits"
        )
    if SIGNED in np.atleast_1d(tags.get(SAMPLE_FORMAT, 1)):
        raise ValueError(f"its numbers (mode {mode}) are signed and do not say which are black and white")
    narrowed = file.format == "PNG" and any(";" in str(tile[3]) for tile in file.tile)  # type: ignore[attr-defined]
    if narrowed and mode in ("L", "RGB") and "transparency" in file.info:
        raise ValueError(
            f"its transparent colour (mode {mode}) has another depth than 8 bits; give it an alpha channel"
        )


def _plain(file: "Image.Image") -> "Image.Image":
    """Return the pixels in 8 bits as L, LA, RGB, RGBA or CMYK."""
    if file.mode.startswith("I"):
        return _from_sixteen(file)
    if file.mode == "CMYK":
        return file.copy()
    wanted = MODES[file.mode]
    return file.convert("RGBA" if file.has_transparency_data and wanted in ("L", "RGB") else wanted)


def _clear_around(image: "Image.Image", drawn: tuple[int, int, int, int]) -> "Image.Image":
    """Return an image that is transparent outside the box that a GIF's first frame draws; Pillow fills it."""
    from PIL import Image

    whole = image.convert("RGBA")
    clear = Image.new("RGBA", image.size)
    clear.paste(whole.crop(drawn), drawn)
    return clear


def _from_sixteen(file: "Image.Image") -> "Image.Image":
    from PIL import Image

    values, tags = np.asarray(file).astype(np.float64), getattr(file, "tag_v2", {})
    top = 4095 if 12 in np.atleast_1d(tags.get(BITS, 16)) else 65535
    levels = np.rint(values * (255 / top)).astype(np.uint8)
    image = Image.fromarray(255 - levels if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else levels)
    key = file.info.get("transparency")
    if key is not None:
        image.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return image


def _managed(image: "Image.Image", file: "Image.Image") -> "Image.Image":
    """Return the image in sRGB, by its colour profile or, in a PNG without one, by its gamma."""
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colours = image.convert(image.mode.rstrip("A")) if alpha is not None else image
    profile = file.info.get("icc_profile")
    change = _transform(profile, colours.mode) if profile else None
    if change is not None:
        from PIL import ImageCms

        colours = ImageCms.applyTransform(colours, change).convert("L" if colours.mode == "L" else "RGB")  # type: ignore[union-attr]
    elif not profile and file.format == "PNG" and "srgb" not in file.info:
        colours = _by_gamma(colours, file)
    colours = colours.convert("RGB") if colours.mode == "CMYK" else colours
    if alpha is not None:
        colours.putalpha(alpha)
    return colours


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> "ImageCms.ImageCmsTransform | None":
    """Return the way from a profile to sRGB; None where it changes nothing, fits not, or is damaged, as in viewers."""
    from PIL import ImageCms

    spaces = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if spaces.get(own.profile.xcolor_space.strip()) != mode or "sRGB" in ImageCms.getProfileDescription(own):
            return None
        return ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def _by_gamma(image: "Image.Image", file: "Image.Image") -> "Image.Image":
    """Return a PNG's image as browsers show it: sample^(1 / 2.2 gamma), unless that is within 5% of 1."""
    primaries = file.info.get("chromaticity")
    if primaries and image.mode == "RGB" and np.abs(np.subtract(primaries, SRGB_PRIMARIES)).max() > 0.01:
        raise ValueError(f"its primary colours (mode {file.mode}, chunk cHRM) are not sRGB's; convert it to sRGB")
    exponent = 1 / (2.2 * file.info["gamma"]) if file.info.get("gamma") else 1.0
    if abs(exponent - 1) < 0.05:
        return image
    curve = np.rint(255 * (np.arange(256) / 255) ** exponent).astype(int).tolist()
    return image.point(curve * len(image.getbands()))


def _upright(image: "Image.Image", file: "Image.Image") -> "Image.Image":
    """Turn and mirror as the EXIF tag says; Pillow has done so already for TIFF."""
    from PIL import Image

    turns = Image.Transpose
    ways = [turns.FLIP_LEFT_RIGHT, turns.ROTATE_180, turns.FLIP_TOP_BOTTOM, turns.TRANSPOSE]
    ways += [turns.ROTATE_270, turns.TRANSVERSE, turns.ROTATE_90]
    try:
        way = dict(enumerate(ways, start=2)).get(file.getexif().get(ORIENTATION, 1))
    except Exception:  # of any kind: viewers show a picture with damaged EXIF data as it is stored
        way = None
    return image if way is None else image.transpose(way)


def _over(image: "Image.Image", background: str | None) -> "Image.Image":
    """Lay an image with an alpha channel over a colour."""
    from PIL import Image

    if background is None and image.getchannel("A").getextrema()[0] < 255:  # type: ignore[operator]
        raise ValueError(f"it has transparent pixels (mode {image.mode}); fill them with a colour")
    behind = Image.new("RGBA", image.size, background or "white")
    return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")
