"""Headers of picture files, read and bounded before a decoder sees the bytes. Knows no Pillow.

A decoder unpacks whatever a header asks for, so everything that costs time or memory is bounded here: pixels,
scans of a JPEG, chunks of a PNG, frames. Metadata that no pixel depends on is taken out of a JPEG.
"""

import re
import struct
import zlib
from dataclasses import dataclass

from fleetfl import FleetflError

MAX_SIDE = 65_535
"""Longest side, pixels. JPEG has no longer ones; a decoder keeps whole rows besides the picture."""
SCANS_AT_MOST = 16
"""Most passes over a picture of `max_pixels`; smaller ones may have more. Progressive JPEGs need ten."""
MAX_CHUNKS = 65_536
MAX_PACKED_CHUNKS = 64
"""Most packed texts and profiles of a PNG, each of which may unpack to a megabyte."""
MAX_SEGMENTS = 4096
"""Most segments of a JPEG before its first scan; a profile or a depth map takes some hundreds."""
MAX_EXIF_ENTRIES = 512

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the segments that state a JPEG's size."""
JPEG_METADATA = (frozenset(range(0xE0, 0xF0)) | {0xFE}) - {0xE0, 0xEE}
"""Markers of the segments that no pixel depends on; JFIF's and Adobe's say how colours are stored."""
PACKED_CHUNKS = (b"zTXt", b"iTXt", b"iCCP")
OTHERS = {
    b"GIF8": "a GIF picture",
    b"BM": "a BMP picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 picture",
    b"\xff\x0a": "a JPEG XL picture",
    b"\0\0\0\x0cJXL ": "a JPEG XL picture",
    b"\x1f\x8b": "packed with gzip",
    b"PK\x03\x04": "a ZIP archive",
    b"%PDF": "a PDF document",
    b"\x93NUMPY": "a NumPy array",
}


class PictureError(FleetflError, ValueError):
    """Bytes that are no picture we take; says what was found and what was expected."""


@dataclass(frozen=True)
class Bounds:
    """Limits on a picture; a larger one is refused before it is unpacked."""

    max_pixels: int = 32_000_000
    """Most pixels, width times height."""
    max_bytes: int = 64 * 2**20
    """Largest file, bytes."""


@dataclass(frozen=True)
class Header:
    """Header and bytes of a picture that is within its bounds and not unpacked yet."""

    kind: str
    """Format: PNG, JPEG, WEBP or BMP."""
    width: int
    """Width, pixels."""
    height: int
    """Height, pixels."""
    data: bytes
    """Bytes for the decoder; a JPEG's are without metadata."""
    bits: int = 8
    """Bits of a sample in a PNG; 8 in other formats."""
    scans: int = 1
    """Most passes over all pixels that decoding takes."""
    exif: bytes = b""
    """EXIF segment of a JPEG; empty if there is none."""

    @property
    def work(self) -> int:
        """Number of pixels that decoding visits, a measure of its time."""
        return self.width * self.height * self.scans


def header(data: bytes, bounds: Bounds, kinds: tuple[str, ...]) -> Header:
    """Header of the picture in `data`. Raises PictureError, and on hostile bytes whatever parsing them
    raises.
    """
    if len(data) > bounds.max_bytes:
        raise PictureError(f"{len(data)} bytes, expected at most {bounds.max_bytes}")
    found = _read(data, kinds)
    if found.width * found.height > bounds.max_pixels:
        raise PictureError(
            f"picture of {found.width} x {found.height}, expected at most {bounds.max_pixels} pixels"
        )
    if not (0 < found.width <= MAX_SIDE and 0 < found.height <= MAX_SIDE):
        raise PictureError(
            f"picture of {found.width} x {found.height}, expected sides of 1 to {MAX_SIDE} pixels"
        )
    if found.work > SCANS_AT_MOST * bounds.max_pixels:
        raise PictureError(
            f"picture of {found.width} x {found.height} in {found.scans} scans, "
            f"expected at most {SCANS_AT_MOST * bounds.max_pixels // (found.width * found.height)}"
        )
    return found


def _read(data: bytes, kinds: tuple[str, ...]) -> Header:
    if data.startswith(PNG) and "PNG" in kinds:
        return _png(data)
    if data.startswith(JPEG) and "JPEG" in kinds:
        return _jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and "WEBP" in kinds:
        return _webp(data)
    if data.startswith(b"BM") and "BMP" in kinds:
        return _bmp(data)
    raise PictureError(_other(data))


def _other(data: bytes) -> str:
    if not data:
        return "there is nothing in it"
    if data[4:8] == b"ftyp":
        return f"it is a HEIF or AVIF picture or a film ({data[8:12].decode('latin-1')!r})"
    for start, what in OTHERS.items():
        if data.startswith(start):
            return f"it is {what}"
    return f"it begins with {data[:8]!r}"


def _png(data: bytes) -> Header:
    """Header of a PNG whose chunks are all whole, and undamaged where the picture depends on them."""
    at, packed, about = len(PNG), 0, None
    for _ in range(MAX_CHUNKS):
        name, length, end = _png_chunk(data, at)
        if (about is None) != (name == b"IHDR"):
            raise PictureError("a PNG whose header is not its first chunk, or not its only one")
        if about is None:
            about = struct.unpack_from(">IIB", data, at + 8)
        elif name == b"acTL" and length >= 4 and _u32(data, at + 8) > 1:
            raise PictureError(f"an animation of {_u32(data, at + 8)} frames, expected a still one")
        elif name in PACKED_CHUNKS:
            packed += 1
            if packed > MAX_PACKED_CHUNKS:
                raise PictureError(f"a PNG with over {MAX_PACKED_CHUNKS} texts and profiles")
        elif name == b"IEND":
            width, height, bits = about
            return Header("PNG", width, height, data[:end], bits=bits)
        at = end
    raise PictureError(f"a PNG in over {MAX_CHUNKS} chunks")


def _png_chunk(data: bytes, at: int) -> tuple[bytes, int, int]:
    """Name, length and end of the chunk at offset `at`. Raises PictureError if it is cut off or damaged."""
    if at + 12 > len(data):
        raise PictureError(f"a PNG that ends early, after {len(data)} bytes")
    length, name = struct.unpack_from(">I4s", data, at)
    end = at + 12 + length
    if end > len(data):
        raise PictureError(f"a PNG that ends early, within a chunk {name!r} of {length} bytes")
    # In capitals: without it there is no picture.
    if name[:1].isupper() and zlib.crc32(data[at + 4 : end - 4]) != _u32(data, end - 4):
        raise PictureError(f"a PNG with a damaged chunk {name!r}")
    return name, length, end


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _jpeg(data: bytes) -> Header:
    """Header and bytes of a JPEG without metadata: a decoder reads EXIF, and hostile EXIF fills the
    memory.
    """
    kept, exif, size, at = [data[:2]], b"", None, 2
    for _ in range(MAX_SEGMENTS):
        marker, start, end = _jpeg_segment(data, at)
        if end == start:
            at = start
            continue
        if marker == 0xDA:
            if size is None:
                raise PictureError("a JPEG whose size is not told before its first scan")
            # What lies in thumbnails is counted too; whatever the decoder takes for a scan is among these.
            scans = max(1, data.count(b"\xff\xda"))
            whole = b"".join((*kept, b"\xff", data[start - 1 :]))
            return Header("JPEG", size[1], size[0], whole, scans=scans, exif=exif)
        if marker in JPEG_FRAMES:
            if size is not None:
                raise PictureError("a JPEG of two frames")
            size = struct.unpack_from(">HH", data, start + 3)
        if marker == 0xE1 and not exif and data[start + 2 : start + 8] == b"Exif\0\0":
            exif = data[start + 2 : end]
        if marker not in JPEG_METADATA:
            kept += [b"\xff", data[start - 1 : end]]
        at = end
    raise PictureError(f"a JPEG of over {MAX_SEGMENTS} segments before its first scan")


def _jpeg_segment(data: bytes, at: int) -> tuple[int, int, int]:
    """Marker, start and end of the next segment from offset `at` on; they are equal for one without content.

    Raises PictureError if there is none, or if it is cut off.
    """
    mark = re.compile(rb"\xff+[^\x00\xff]").search(data, at)
    if mark is None:
        raise PictureError(f"a JPEG that ends early, after {len(data)} bytes")
    start, marker = mark.end(), data[mark.end() - 1]
    if marker in (0xD8, 0xD9, 0x01) or 0xD0 <= marker <= 0xD7:
        return marker, start, start
    end = start + int.from_bytes(data[start : start + 2], "big")
    if end < start + 2 or end > len(data):
        raise PictureError(f"a JPEG that ends early, within a segment {marker:02X}")
    return marker, start, end


def _webp(data: bytes) -> Header:
    kind = data[12:16]
    if len(data) < 30 or len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise PictureError(f"a WebP that ends early, after {len(data)} bytes")
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        both = int.from_bytes(data[21:25], "little")
        width, height = (both & 0x3FFF) + 1, (both >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return Header("WEBP", width, height, data)


def _bmp(data: bytes) -> Header:
    if len(data) < 26:
        raise PictureError(f"a BMP that ends early, after {len(data)} bytes")
    if int.from_bytes(data[14:18], "little") == 12:
        return Header("BMP", *struct.unpack_from("<HH", data, 18), data)
    # Run lengths are unpacked in Python, a pixel at a time.
    if data[30:34] in (b"\1\0\0\0", b"\2\0\0\0"):
        raise PictureError("a BMP in run lengths, expected a plain one")
    width, height = struct.unpack_from("<ii", data, 18)
    return Header("BMP", width, abs(height), data)


def orientation(exif: bytes) -> int:
    """EXIF orientation, 1 to 8; 1, upright as stored, if EXIF does not say or cannot be read."""
    body = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(body[:4])
    if order is None or len(body) < 8:
        return 1
    (at,) = struct.unpack_from(f"{order}I", body, 4)
    if at + 2 > len(body):
        return 1
    (count,) = struct.unpack_from(f"{order}H", body, at)
    for entry in range(at + 2, at + 2 + 12 * min(count, MAX_EXIF_ENTRIES), 12):
        if entry + 12 > len(body):
            return 1
        tag, kind, many, value = struct.unpack_from(f"{order}HHIH", body, entry)
        if tag == 0x0112:
            return value if (kind, many) == (3, 1) and 1 <= value <= 8 else 1
    return 1
