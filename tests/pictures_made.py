"""Pictures for tests, sound and hostile, made as they are needed."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 210), "grey": (99,) * 3}


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(data):
    """As Pillow has it, uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).copy()


def quarters(width=96, height=64):
    """Red, green above blue, grey: every way to turn or mirror it is told apart."""
    image = Image.new("RGB", (width, height), COLOURS["grey"])
    image.paste(COLOURS["red"], (0, 0, width // 2, height // 2))
    image.paste(COLOURS["green"], (width // 2, 0, width, height // 2))
    image.paste(COLOURS["blue"], (0, height // 2, width // 2, height))
    return image


def noise(height=64, width=64, kind="PNG", **options):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return saved(Image.fromarray(pixels), kind, **options)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, bits, colour, rows, *extra, late=()):
    """`rows` are a picture's bytes without filters; `extra` chunks come before them, `late` after."""
    size = len(rows) // height if height else 0
    filtered = b"".join(b"\0" + rows[at : at + size] for at in range(0, size * height, size or 1))
    about = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", about), *extra, chunk(b"IDAT", zlib.compress(filtered)), *late]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def with_chunk(name, data, *, late=False):
    """A grey PNG of 64 x 64 with one chunk more."""
    added = {"late": [chunk(name, data)]} if late else {}
    return png(
        64, 64, 8, 2, bytes([99]) * 64 * 64 * 3, *([] if late else [chunk(name, data)]), **added
    )


def empty_png(width, height, bits, colour):
    """All zeros: a few kilobytes, whatever its size."""
    row = b"\0" * (1 + (width * bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    about = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", about) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def segments(jpeg):
    """A JPEG's segments, each scan with what follows it."""
    found, at = [], 2
    while jpeg[at + 1] != 0xD9:
        end = at + 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0]
        if jpeg[at + 1] == 0xDA:
            while not (
                jpeg[end] == 0xFF and jpeg[end + 1] != 0 and not 0xD0 <= jpeg[end + 1] <= 0xD7
            ):
                end += 1
        found.append(jpeg[at:end])
        at = end
    return found


def scan_bomb(side, repeats):
    """A progressive JPEG whose last scan is there so many times more: fifty bytes each."""
    plain = saved(Image.new("L", (side, side), 128), "JPEG", progressive=True, quality=50)
    parts = segments(plain)
    return b"\xff\xd8" + b"".join(parts) + parts[-1] * repeats + b"\xff\xd9"


def exif(orientation, order="MM", entries=()):
    """EXIF whose first folder has `entries`, each 12 bytes, and the orientation."""
    mark = "<" if order == "II" else ">"
    told = struct.pack(f"{mark}HHIHH", 0x0112, 3, 1, orientation, 0)
    head = order.encode() + struct.pack(f"{mark}HIH", 42, 8, len(entries) + 1)
    return b"Exif\0\0" + head + b"".join(entries) + told + bytes(4)
