"""Pictures made here in every mode and format, against what a viewer shows."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from msgm.data import Folder, load_dataset
from msgm.data.images import ImageFiles
from msgm.data.pictures import open_picture
from msgm.errors import UserError
from msgm.masks import parse_mask

RAMP = np.linspace(0, 65535, 8).round().astype(np.uint16)
SEEN = [0, 36, 73, 109, 146, 182, 219, 255]
BLOCKS = np.array([[0, 85], [170, 255]], dtype=np.uint8)
TURNED = {
    1: [[0, 85], [170, 255]],
    2: [[85, 0], [255, 170]],
    3: [[255, 170], [85, 0]],
    4: [[170, 255], [0, 85]],
    5: [[0, 170], [85, 255]],
    6: [[170, 0], [255, 85]],
    7: [[255, 85], [170, 0]],
    8: [[85, 255], [0, 170]],
}


def seen(path, **options):
    """Pixels of a picture as they are seen: (H, W) or (H, W, 3)."""
    return np.asarray(open_picture(path, **options)).tolist()


def first(path, **options):
    """The first pixel as RGB."""
    return list(open_picture(path, **options).convert("RGB").getpixel((0, 0)))


def png(path, header, rows, *chunks):
    """Write a PNG chunk by chunk; header is (width, height, depth, colour type), rows are packed samples."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)), *(chunk(*c) for c in chunks)]
    parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def blocks(side=8):
    return Image.fromarray(BLOCKS.repeat(side, 0).repeat(side, 1))


def corners(image, side=8):
    return np.asarray(image.convert("L"))[side // 2 :: side, side // 2 :: side]


# 16 bits


@pytest.mark.parametrize("name", ["ramp.png", "ramp.tif", "ramp.jp2", "ramp.pgm"])
def test_sixteen_bits_of_grey_become_eight_by_their_range(tmp_path, name):
    Image.fromarray(RAMP[None].repeat(2, 0)).save(tmp_path / name)
    assert seen(tmp_path / name) == [SEEN] * 2


def test_sixteen_bits_of_either_byte_order_are_the_same(tmp_path):
    Image.fromarray(RAMP[None].astype(">u2")).save(tmp_path / "ramp.tif")
    with Image.open(tmp_path / "ramp.tif") as file:
        assert file.mode == "I;16B"
    assert seen(tmp_path / "ramp.tif") == [SEEN]


def test_sixteen_bits_whose_zero_is_white_are_inverted(tmp_path):
    Image.fromarray(RAMP[None]).save(tmp_path / "ramp.tif")
    content = bytearray((tmp_path / "ramp.tif").read_bytes())
    entry = struct.pack("<HHI", 262, 3, 1)
    place = content.index(entry) + 8
    content[place : place + 2] = struct.pack("<H", 0)
    (tmp_path / "ramp.tif").write_bytes(bytes(content))
    assert seen(tmp_path / "ramp.tif") == [SEEN[::-1]]


def test_twelve_bits_of_grey_become_eight_by_their_range(tmp_path):
    # Two samples of 12 bits are three bytes.
    samples = [0, 4095, 2048, 1024]
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in zip(samples[::2], samples[1::2], strict=True)
    )
    entries = [(256, 4, 4), (257, 4, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 0), (277, 3, 1)]
    entries += [(278, 4, 1), (279, 4, len(packed))]
    start = 8 + 2 + 12 * len(entries) + 4
    entries = [(tag, kind, start if tag == 273 else value) for tag, kind, value in entries]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    head += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries) + struct.pack("<I", 0)
    (tmp_path / "twelve.tif").write_bytes(head + packed)
    assert seen(tmp_path / "twelve.tif") == [[0, 255, 128, 64]]


def test_sixteen_bits_of_colour_are_seen_within_one_level(tmp_path):
    colours = np.stack([RAMP, RAMP[::-1], RAMP // 3], 1)
    png(tmp_path / "rgb.png", (8, 1, 16, 2), [colours.astype(">u2").tobytes()])
    alpha = np.concatenate([colours, np.full((8, 1), 65535)], 1)
    png(tmp_path / "rgba.png", (8, 1, 16, 6), [alpha.astype(">u2").tobytes()])
    png(tmp_path / "la.png", (8, 1, 16, 4), [np.stack([RAMP, RAMP * 0 + 65535], 1).astype(">u2").tobytes()])
    for name in ("rgb.png", "rgba.png"):
        assert np.abs(np.array(seen(tmp_path / name)[0]) - colours / 257).max() < 1
    assert np.abs(np.array(seen(tmp_path / "la.png")[0])[:, 0] - RAMP / 257).max() < 1


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_of_few_bits_runs_from_black_to_white(tmp_path, depth):
    top = 2**depth - 1
    count = 8 // depth
    samples = [0, top] * (count // 2) if count > 1 else [top]
    byte = sum(s << (8 - depth * (i + 1)) for i, s in enumerate(samples))
    png(tmp_path / "few.png", (len(samples), 1, depth, 0), [bytes([byte])])
    assert seen(tmp_path / "few.png") == [[255 * (s > 0) for s in samples]]


# Turned pictures


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_a_picture_stands_upright(tmp_path, name, orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    lossless = {"lossless": True} if name == "a.webp" else {"quality": 100} if name == "a.jpg" else {}
    blocks().save(tmp_path / name, exif=tags, **lossless)
    assert np.abs(corners(open_picture(tmp_path / name)).astype(int) - TURNED[orientation]).max() <= 2


def test_a_turned_sixteen_bit_picture_stands_upright(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(BLOCKS.astype(np.uint16) * 257).save(tmp_path / "a.png", exif=tags)
    assert seen(tmp_path / "a.png") == TURNED[6]


def test_damaged_exif_data_do_not_hide_the_picture(tmp_path):
    Image.fromarray(BLOCKS).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*garbage")
    assert seen(tmp_path / "a.png") == BLOCKS.tolist()


def test_the_data_set_and_the_mask_are_upright(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(BLOCKS).save(tmp_path / "a.png", exif=tags)
    data = Folder(root=str(tmp_path), size=2, channels=1).load()
    assert data.items[0, 0].tolist() == [[170, 0], [255, 85]]
    known = parse_mask(str(tmp_path / "a.png"), (1, 2, 2))
    assert (~known).tolist() == [[True, False], [True, False]]


# Modes

GREEN = (40, 200, 90)
SAVED = {
    "1": ("png", 255, (255, 255, 255)),
    "L": ("png", 77, (77, 77, 77)),
    "LA": ("png", (77, 255), (77, 77, 77)),
    "RGB": ("png", GREEN, GREEN),
    "RGBA": ("png", (*GREEN, 255), GREEN),
    "YCbCr": ("tif", (128, 128, 128), (128, 128, 128)),
    "CMYK": ("tif", (255, 0, 0, 0), (0, 255, 255)),
    "LAB": ("tif", (255, 128, 128), (255, 255, 255)),
    "PA": ("tif", (3, 255), None),
}


@pytest.mark.parametrize("mode", SAVED)
def test_every_mode_is_seen_in_its_colours(tmp_path, mode):
    ending, pixel, expected = SAVED[mode]
    if mode == "PA":
        image = Image.new("P", (4, 4), 3)
        image.putpalette([0, 0, 0] * 3 + list(GREEN))
        image, expected = image.convert("PA"), GREEN
    else:
        image = Image.new(mode, (4, 4), pixel)
    image.save(tmp_path / f"a.{ending}")
    assert np.abs(np.subtract(first(tmp_path / f"a.{ending}"), expected)).max() <= (mode == "LAB")
    one = ImageFiles([tmp_path / f"a.{ending}"], 4, channels=1)[0]
    grey = Image.new("RGB", (1, 1), expected).convert("L").getpixel((0, 0))
    assert abs(int(one[0, 0, 0]) - grey) <= (mode == "LAB")


def test_lab_colours_are_those_of_the_space(tmp_path):
    # sRGB red is L 53.2, a 80.1, b 67.2; within 8-bit rounding of the three.
    Image.new("LAB", (4, 4), (round(53.24 * 2.55), 128 + 80, 128 + 67)).save(tmp_path / "a.tif")
    assert np.abs(np.subtract(first(tmp_path / "a.tif"), (255, 0, 0))).max() <= 12


def test_inks_of_a_jpeg_are_not_inverted(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(np.subtract(first(tmp_path / "a.jpg"), (255, 0, 0))).max() <= 3


def test_a_palette_is_seen_in_its_colours(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, *GREEN])
    for name in ("a.png", "a.gif", "a.bmp", "a.tif"):
        image.save(tmp_path / name)
        assert first(tmp_path / name) == list(GREEN)


@pytest.mark.parametrize(("mode", "name"), [("I", "a.tif"), ("F", "a.tif")])
def test_numbers_without_a_white_are_refused_with_their_mode(tmp_path, mode, name):
    Image.new(mode, (4, 4), 1000).save(tmp_path / name)
    with pytest.raises(UserError, match=rf"cannot read the image .*{name}: a TIFF file of mode {mode} does not say"):
        open_picture(tmp_path / name)
    with pytest.raises(UserError, match=f"mode {mode}"):
        Folder(root=str(tmp_path)).load()
    with pytest.raises(UserError, match=f"mode {mode}"):
        parse_mask(str(tmp_path / name), (1, 4, 4))


def test_another_format_is_refused_by_name(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", format="PCX")
    with pytest.raises(UserError, match="a PCX file of mode RGB is none of PNG, JPEG"):
        open_picture(tmp_path / "a.png")


def test_the_content_decides_the_format_not_the_ending(tmp_path):
    Image.new("RGB", (8, 8), GREEN).save(tmp_path / "a.jpg", format="PNG")
    assert first(tmp_path / "a.jpg") == list(GREEN)


# Transparency


def test_what_is_transparent_shows_the_background(tmp_path):
    Image.new("RGBA", (4, 4), (*GREEN, 0)).save(tmp_path / "rgba.png")
    Image.new("LA", (4, 4), (9, 0)).save(tmp_path / "la.png")
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, *GREEN])
    palette.save(tmp_path / "p.png", transparency=1)
    palette.save(tmp_path / "p.gif", transparency=1)
    palette.save(tmp_path / "bytes.png", transparency=bytes([255, 0]))
    Image.new("L", (4, 4), 9).save(tmp_path / "l.png", transparency=9)
    Image.new("RGB", (4, 4), GREEN).save(tmp_path / "rgb.png", transparency=GREEN)
    Image.new("1", (4, 4), 0).save(tmp_path / "one.png", transparency=0)
    png(tmp_path / "sixteen.png", (1, 1, 16, 0), [struct.pack(">H", 700)], (b"tRNS", struct.pack(">H", 700)))
    for path in tmp_path.iterdir():
        assert first(path) == [255] * 3, path
        assert first(path, background="#102030") == [16, 32, 48], path
        with pytest.raises(UserError, match="transparent pixels"):
            open_picture(path, background=None)


def test_half_of_a_transparent_pixel_is_mixed(tmp_path):
    Image.new("RGBA", (1, 1), (0, 100, 200, 51)).save(tmp_path / "a.png")
    assert first(tmp_path / "a.png") == [204, 224, 244]


def test_a_colour_key_of_another_depth_is_refused(tmp_path):
    key = (b"tRNS", struct.pack(">HHH", 257, 514, 771))
    png(tmp_path / "a.png", (1, 1, 16, 2), [struct.pack(">HHH", 257, 514, 771)], key)
    png(tmp_path / "b.png", (4, 1, 2, 0), [b"\x1b"], (b"tRNS", struct.pack(">H", 2)))
    for name in ("a.png", "b.png"):
        with pytest.raises(UserError, match="another depth than 8 bits"):
            open_picture(tmp_path / name)


def test_a_mask_with_transparent_pixels_is_refused(tmp_path):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.paste((255, 255, 255, 255), (0, 0, 2, 2))
    image.save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=r"--mask .*transparent pixels \(mode RGBA\)"):
        parse_mask(str(tmp_path / "mask.png"), (3, 4, 4))


def test_a_dark_sixteen_bit_mask_is_not_white(tmp_path):
    values = np.full((4, 4), 200, dtype=np.uint16)
    values[0] = 65535
    Image.fromarray(values).save(tmp_path / "mask.png")
    assert (~parse_mask(str(tmp_path / "mask.png"), (1, 4, 4))).sum(1).tolist() == [4, 0, 0, 0]


@pytest.mark.parametrize("background", ["whit", "#12", "#11223344", "7"])
def test_a_background_that_is_no_colour_is_refused(background):
    with pytest.raises(UserError, match=r"data\.background: expected a colour such as white"):
        load_dataset({"name": "folder", "background": background})


# Frames


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_a_frame_is_chosen_and_the_first_is_the_default(tmp_path, name):
    colours = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]
    frames = [Image.new("RGB", (8, 8), colour) for colour in colours]
    frames[0].save(
        tmp_path / name, save_all=True, append_images=frames[1:], **({"lossless": True} if name == "a.webp" else {})
    )
    assert first(tmp_path / name) == list(colours[0])
    for frame, colour in enumerate(colours):
        assert first(tmp_path / name, frame=frame) == list(colour)
        items = Folder(root=str(tmp_path), size=4, frame=frame).load().items
        assert items[0, :, 0, 0].tolist() == list(colour)
    with pytest.raises(UserError, match="it has no frame 3"):
        open_picture(tmp_path / name, frame=3)


def test_an_animated_png_shows_its_animation_and_not_the_picture_for_old_viewers(tmp_path):
    red, green, blue = (Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250)))
    red.save(tmp_path / "a.png", save_all=True, default_image=True, append_images=[green, blue])
    assert first(tmp_path / "a.png") == [0, 250, 0]
    assert first(tmp_path / "a.png", frame=1) == [0, 0, 250]


def test_what_the_first_frame_of_a_gif_leaves_open_shows_the_background(tmp_path):
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, *GREEN])
    image.save(tmp_path / "a.gif")
    content = bytearray((tmp_path / "a.gif").read_bytes())
    content[6:10] = struct.pack("<HH", 4, 4)
    place = content.index(b"\x2c\0\0\0\0") + 1
    content[place : place + 4] = struct.pack("<HH", 1, 1)
    (tmp_path / "a.gif").write_bytes(bytes(content))
    pixels = np.array(seen(tmp_path / "a.gif"))
    assert (pixels[1:3, 1:3] == GREEN).all()
    assert (pixels[[0, 3]] == 255).all()
    assert (pixels[:, [0, 3]] == 255).all()


def test_a_still_picture_has_one_frame(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"it has no frame 1: data\.frame is counted from 0"):
        open_picture(tmp_path / "a.png", frame=1)


# Colours


def test_a_profile_of_other_colours_is_applied(tmp_path):
    swapped = swapped_profile()
    Image.new("RGB", (4, 4), (200, 30, 60)).save(tmp_path / "a.png", icc_profile=swapped)
    Image.new("RGBA", (4, 4), (200, 30, 60, 255)).save(tmp_path / "b.png", icc_profile=swapped)
    for name in ("a.png", "b.png"):
        assert np.abs(np.subtract(first(tmp_path / name), (30, 200, 60))).max() <= 2


def swapped_profile():
    """sRGB with the primaries of red and green exchanged: a profile whose effect is known exactly."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", content[128:132])[0]
    places = {bytes(content[p : p + 4]): p for p in range(132, 132 + 12 * count, 12)}
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    content[red : red + 4], content[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(content).replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be")).replace(b"sRGB", b"mine")


def grey_profile(gamma):
    """A profile of grey whose levels are light to the power of 1 / gamma."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"grey\0" + bytes(80)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": white}
    tags[b"kTRC"] = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(256 * gamma), 0)
    start, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    head = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(body), bytes(4), 0x02100000, b"mntr", b"GRAY", b"XYZ ", bytes(12), b"acsp"
    )
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


def test_a_profile_of_grey_is_applied(tmp_path):
    Image.new("L", (4, 4), 55).save(tmp_path / "a.png", icc_profile=grey_profile(1.0))
    Image.new("LA", (4, 4), (55, 255)).save(tmp_path / "b.png", icc_profile=grey_profile(1.0))
    Image.fromarray(np.full((4, 4), 55 * 257, dtype=np.uint16)).save(tmp_path / "c.png", icc_profile=grey_profile(1.0))
    encoded = 255 * (1.055 * (55 / 255) ** (1 / 2.4) - 0.055)
    for name in ("a.png", "b.png", "c.png"):
        assert first(tmp_path / name) == pytest.approx([encoded] * 3, abs=1.5)


def test_a_profile_of_srgb_a_damaged_one_or_one_of_another_space_changes_nothing(tmp_path):
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for number, content in enumerate((own, b"garbage" * 50, own[:200])):
        Image.new("RGB", (4, 4), GREEN).save(tmp_path / f"{number}.png", icc_profile=content)
        assert first(tmp_path / f"{number}.png") == list(GREEN)
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.png", icc_profile=swapped_profile())
    assert first(tmp_path / "grey.png") == [77] * 3


def test_the_gamma_of_a_png_is_applied_as_browsers_do(tmp_path):
    linear = (b"gAMA", struct.pack(">I", 100000))
    png(tmp_path / "linear.png", (1, 1, 8, 0), [b"\x37"], linear)
    assert seen(tmp_path / "linear.png") == [[round(255 * (0x37 / 255) ** (1 / 2.2))]]
    png(tmp_path / "usual.png", (1, 1, 8, 0), [b"\x37"], (b"gAMA", struct.pack(">I", 45455)))
    assert seen(tmp_path / "usual.png") == [[0x37]]
    png(tmp_path / "srgb.png", (1, 1, 8, 0), [b"\x37"], (b"sRGB", b"\0"), linear)
    assert seen(tmp_path / "srgb.png") == [[0x37]]


def test_primaries_without_a_profile_are_refused_unless_they_are_srgbs(tmp_path):
    usual = [31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000]
    png(tmp_path / "usual.png", (1, 1, 8, 2), [bytes(GREEN)], (b"cHRM", struct.pack(">8I", *usual)))
    assert first(tmp_path / "usual.png") == list(GREEN)
    wide = [31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000]
    png(tmp_path / "wide.png", (1, 1, 8, 2), [bytes(GREEN)], (b"cHRM", struct.pack(">8I", *wide)))
    with pytest.raises(UserError, match="primary colours .*cHRM"):
        open_picture(tmp_path / "wide.png")


# Damage


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.bmp", "a.tif", "a.webp", "a.jp2", "a.ppm"])
def test_a_cut_file_is_one_sentence(tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for share in (0.01, 0.3, 0.6):
        (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match="cannot read the image") as error:
            open_picture(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_bomb_and_a_picture_without_pixels_are_one_sentence(tmp_path):
    png(tmp_path / "bomb.png", (60000, 60000, 8, 0), [b"\0"])
    png(tmp_path / "none.png", (0, 4, 8, 0), [b"\0"])
    (tmp_path / "none.ppm").write_bytes(b"P6 0 4 255\n")
    for name in ("bomb.png", "none.png", "none.ppm"):
        with pytest.raises(UserError, match="cannot read the image") as error:
            open_picture(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_large_picture_is_read_without_a_warning(tmp_path, recwarn):
    Image.new("1", (9500, 9500)).save(tmp_path / "large.png")
    assert open_picture(tmp_path / "large.png").size == (9500, 9500)
    assert not recwarn.list


@pytest.mark.parametrize("resident_mb", [0, 2048])
def test_a_crop_larger_than_the_image_is_refused(tmp_path, resident_mb):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png has 30x20 pixels, fewer than data\.crop 25"):
        Folder(root=str(tmp_path), size=8, crop=25, resident_mb=resident_mb).load()
    assert Folder(root=str(tmp_path), size=8, crop=20, resident_mb=resident_mb).load().shape == (3, 8, 8)


def test_what_pillow_logs_of_a_damaged_file_stays_out_of_the_terminal(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    place = content.index(struct.pack("<HHI", 277, 3, 1)) + 8
    content[place : place + 2] = struct.pack("<H", 99)
    (tmp_path / "a.tif").write_bytes(bytes(content))
    call = f"from msgm.data.pictures import open_picture; open_picture({str(tmp_path / 'a.tif')!r})"
    ended = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=False)
    assert "samples" not in ended.stderr.split("Traceback")[0]
    assert "UserError: cannot read the image" in ended.stderr


def test_what_is_read_stays_when_the_file_is_closed(tmp_path):
    Image.new("RGB", (8, 8), GREEN).save(tmp_path / "a.png")
    image = open_picture(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    assert image.mode == "RGB"
