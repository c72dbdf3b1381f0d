"""Picture files to pixels: what they mean, what is refused, and what hostile ones may cost."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fleetfl.pictures import Bounds, PictureError, look, picture
from tests import pictures_made as made

pytestmark = pytest.mark.unit

BOMB = zlib.compress(bytes(3 * 2**20), 9)
QUARTERS = np.asarray(made.quarters())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_plain_pictures_come_out_as_the_decoder_has_them(kind):
    data = made.noise(40, 56, kind)
    np.testing.assert_array_equal(
        picture(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    )
    assert picture(data).flags.writeable


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a.transpose(1, 0, 2)[::-1, ::-1]),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
@pytest.mark.parametrize("order", ["MM", "II"])
def test_a_picture_is_turned_upright(kind, orientation, upright, order):
    told = made.exif(orientation, order)
    data = made.saved(
        made.quarters(), kind, exif=told, **({"quality": 95} if kind != "PNG" else {})
    )
    off = np.abs(picture(data).astype(int) - upright(QUARTERS)).mean()
    assert off < 3


@pytest.mark.parametrize(
    "broken",
    [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(30)],
)
def test_unreadable_exif_is_no_reason_to_refuse(broken):
    np.testing.assert_array_equal(
        picture(made.saved(made.quarters(), "JPEG", exif=broken)),
        picture(made.saved(made.quarters(), "JPEG")),
    )


def test_grey_of_16_bits_is_scaled_over_the_whole_range():
    ramp = np.arange(0, 65_536, 16, dtype=np.uint16).reshape(64, 64)
    seen = picture(made.saved(Image.fromarray(ramp)))
    assert np.abs(seen[..., 0] - ramp / 257).max() <= 0.5
    assert (seen[..., 0] == seen[..., 2]).all()


@pytest.mark.parametrize("low", [0, 7_000, 29_235, 60_000])
def test_a_thermal_camera_keeps_its_contrast(low):
    """863 of the 65,536 values: 29,235 for the coldest. A dead pixel changes nothing."""
    shape = np.linspace(0, 863, 96 * 64).reshape(64, 96)
    values = (low + shape).astype(np.uint16)
    values[0, 0] = 65_535
    seen = picture(made.saved(Image.fromarray(values)))[..., 0]
    assert seen[0, 1] == 0
    assert seen[-1, -1] == 255
    assert np.abs(seen[1:].astype(int) - np.clip(shape[1:] * 255 / 863, 0, 255)).max() < 4


def test_a_thermal_picture_of_nothing_stays_flat():
    """Noise of 4 counts: 256 of them are spread over the range, so at most 4 * 255 / 256."""
    values = np.random.default_rng(0).integers(30_000, 30_005, (64, 64)).astype(np.uint16)
    assert np.ptp(picture(made.saved(Image.fromarray(values)))) <= 4


def test_colour_and_grey_of_16_bits_with_alpha():
    """(0x1234, 0x8000, 0xFFFF) is (18, 128, 255) in 8 bits."""
    pixel = struct.pack(">HHH", 0x1234, 0x8000, 0xFFFF)
    assert (picture(made.png(3, 2, 16, 2, pixel * 6)) == (18, 128, 255)).all()
    opaque, hidden = pixel + b"\xff\xff", pixel + b"\0\0"
    np.testing.assert_array_equal(
        picture(made.png(2, 1, 16, 6, opaque + hidden))[0], [(18, 128, 255), (255, 255, 255)]
    )
    assert (picture(made.png(1, 1, 16, 4, b"\x80\0\xff\xff")) == 128).all()


def test_colours_that_nobody_can_see_do_not_count():
    """Half of a red pixel over white: (220 + 255) / 2, (30 + 255) / 2."""
    shown = made.quarters().convert("RGBA")
    alpha = Image.new("L", shown.size, 255)
    alpha.paste(0, (0, 0, 20, 64))
    alpha.paste(128, (20, 0, 48, 32))
    one, other = shown.copy(), shown.copy()
    other.paste((255, 0, 255), (0, 0, 20, 64))
    seen = []
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        for image in (one, other):
            image.putalpha(alpha)
            seen.append(picture(made.saved(image, kind, **options)))
    assert (seen[0] == seen[1]).all()
    assert (seen[2] == seen[3]).all()
    assert (seen[0][:, :20] == 255).all()
    assert np.abs(seen[0][:32, 20:48].astype(int) - (237, 142, 142)).max() <= 1
    np.testing.assert_array_equal(seen[0][:, 48:], QUARTERS[:, 48:])


@pytest.mark.parametrize(
    ("bits", "colour", "key", "rows"),
    [
        (1, 0, b"\0\1", b"\x40"),  # 0 1 0 0 0 0 0 0
        (2, 0, b"\0\2", b"\x20"),  # 0 2 0 0
        (4, 0, b"\0\x09", b"\x09"),  # 0 9
        (8, 0, b"\0\x63", b"\0\x63"),
        (16, 0, b"\x12\x34", b"\0\0\x12\x34"),
        (8, 2, b"\0\1\0\2\0\3", b"\0\0\0\1\2\3"),
        (16, 2, b"\1\0\2\0\3\0", b"\0\0\0\0\0\0\1\0\2\0\3\0"),
    ],
)
def test_the_second_pixel_has_the_transparent_colour(bits, colour, key, rows):
    width = 8 // bits if bits < 8 else 2
    seen = picture(made.png(width, 1, bits, colour, rows, made.chunk(b"tRNS", key)))
    assert (seen[0, 0] == 0).all()
    assert (seen[0, 1] == 255).all()


@pytest.mark.parametrize("alphas", [b"\xff\x00", b"\xff\x80"])
def test_palettes_and_what_is_transparent_in_them(alphas):
    """The second colour, 0 of green, hidden or half: white, or (0 + 255) / 2."""
    palette = made.chunk(b"PLTE", bytes([200, 100, 50, 0, 0, 0]))
    seen = picture(made.png(2, 1, 8, 3, b"\0\1", palette, made.chunk(b"tRNS", alphas)))[0]
    assert tuple(seen[0]) == (200, 100, 50)
    assert abs(int(seen[1, 1]) - (255 if alphas[1] == 0 else 127)) <= 1


def test_other_modes_become_rgb():
    grey = np.asarray(made.quarters().convert("L"))
    assert (picture(made.saved(made.quarters().convert("L")))[..., 1] == grey).all()
    bits = np.asarray(made.quarters().convert("1")) * 255
    assert (picture(made.saved(made.quarters().convert("1")))[..., 1] == bits).all()
    half = Image.merge("LA", (Image.new("L", (4, 4), 0), Image.new("L", (4, 4), 0)))
    assert (picture(made.saved(half)) == 255).all()
    cmyk = picture(made.saved(made.quarters().convert("CMYK"), "JPEG", quality=95))
    assert np.abs(cmyk.astype(int) - QUARTERS).mean() < 4


def ycck():
    """Adobe's YCCK (transform 2): C, M, Y stored as YCbCr of them as they are, K inverted as in CMYK.

    Pillow inverts all that it writes as CMYK.
    """
    *ink, black = made.quarters().convert("CMYK").split()
    stored = [255 - np.asarray(c) for c in Image.merge("RGB", ink).convert("YCbCr").split()]
    channels = [*map(Image.fromarray, stored), black]
    data = made.saved(Image.merge("CMYK", channels), "JPEG", quality=95, subsampling=0)
    at = data.index(b"Adobe")
    return data[: at + 11] + b"\2" + data[at + 12 :]


def test_ycck():
    assert np.abs(picture(ycck()).astype(int) - QUARTERS).mean() < 5


def test_whole_progressive_pictures_are_read():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    data = made.saved(image.resize((900, 600)), "JPEG", progressive=True)
    assert data.count(b"\xff\xda") == 10
    assert picture(data, Bounds(max_pixels=900 * 600)).shape == (600, 900, 3)


def test_fit_gives_coarser_pictures_but_never_too_coarse():
    for kind in ("PNG", "JPEG", "WEBP"):
        assert picture(made.noise(500, 730, kind), fit=100).shape[0] in range(100, 200)
        assert picture(made.noise(500, 730, kind), fit=300).shape == (500, 730, 3)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "nothing in it"),
        (b"GIF89a" + bytes(20), "a GIF picture"),
        (b"\0\0\0\x18ftypheic", "HEIF"),
        (b"hello", "begins with b'hello'"),
        (made.saved(made.quarters(), "BMP"), "a BMP picture"),
        (made.saved(made.quarters(), "TIFF"), "a TIFF picture"),
        (made.noise()[:100], "ends early"),
        (made.noise()[:-12], "ends early"),
        (made.noise(kind="JPEG")[:300], "ends early"),
        (made.noise(400, 400, "JPEG")[:-900], "truncated"),
        (made.noise(kind="WEBP")[:-3], "ends early"),
        (made.empty_png(20_000, 10_000, 1, 0), "20000 x 10000, expected at most 32000000 pixels"),
        (made.empty_png(70_000, 1, 1, 0), "sides of 1 to 65535"),
        (made.scan_bomb(5600, 20), "scans, expected at most 16"),
        (made.with_chunk(b"gAMA", b"\0"), "gAMA"),
        (made.with_chunk(b"zTXt", b"k\0\0" + BOMB), "large"),
        (made.with_chunk(b"iTXt", b"k\0\1\0\0\0" + BOMB), "large"),
        (made.with_chunk(b"iCCP", b"k\0\0" + BOMB), "large"),
        (made.with_chunk(b"acTL", struct.pack(">II", 3, 0)), "animation of 3 frames"),
        (made.with_chunk(b"IHDR", bytes(13)), "header"),
        (made.png(1, 1, 8, 2, bytes(3), *[made.chunk(b"iTXt", b"k\0\1\0\0\0")] * 65), "over 64 texts"),
        (made.png(1, 1, 8, 2, bytes(3), *[made.chunk(b"tEXt", b"")] * 70_000), "over 65536"),
        (made.png(0, 0, 8, 2, b""), "0 x 0"),
        (b"\xff\xd8\xff" + b"\xff\xe1\0\2" * 5000, "over 4096 segments"),
    ],
)  # fmt: skip
def test_what_is_no_picture_within_bounds_is_refused_in_words(data, says):
    with pytest.raises(PictureError, match="not a whole PNG or JPEG") as refused:
        picture(data)
    assert says in str(refused.value)


def test_animations_are_refused():
    frames = [made.quarters(), made.quarters().transpose(Image.Transpose.ROTATE_180)]
    for kind in ("PNG", "WEBP"):
        with pytest.raises(PictureError, match="an animation of 2 frames"):
            picture(
                made.saved(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
            )


def test_short_chunks_of_all_kinds_are_a_picture_or_refused():
    names = b"gAMA cHRM sRGB pHYs tEXt zTXt iTXt iCCP eXIf acTL fcTL fdAT tRNS PLTE bKGD tIME IEND"
    for name in names.split():
        for size in (0, 1, 3, 4, 7, 12, 13, 26):
            for late in (False, True):
                seen_or_refused(made.with_chunk(name, bytes(size), late=late))


def seen_or_refused(data):
    with contextlib.suppress(PictureError):
        assert picture(data).dtype == np.uint8


def test_a_scan_bomb_is_refused_before_it_is_unpacked():
    """143 KB that took 13.6 s: 5600 x 5600 and 406 scans; each refused one costs milliseconds."""
    with pytest.raises(PictureError, match="406 scans"):
        look(made.scan_bomb(5600, 400))


def test_exif_of_a_thousand_fields_is_not_unpacked():
    """Each claims the same 60 KB: Pillow would have 300 MB of them. The orientation lies behind them."""
    field = [struct.pack(">HHII", 0x9000 + n, 7, 60_000, 8) for n in range(4000)]
    told = made.exif(6, entries=field)
    data = made.saved(made.quarters(), "JPEG", exif=told)
    assert look(data).data.find(b"Exif") < 0
    assert picture(data).shape == (64, 96, 3)


def test_a_file_over_its_bound_is_refused():
    with pytest.raises(PictureError, match="expected at most 1000"):
        picture(made.noise(), Bounds(max_bytes=1000))
