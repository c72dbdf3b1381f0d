"""A million hostile pictures through the one reader of pictures, and bodies and headers through the endpoint.

Claim: nothing but PictureError comes out of fleetfl.pictures, and no answer of the endpoint has a status of
500 or above; no picture takes SLOWEST_MS of processor time, and memory grows by less than BOUND_BYTES.

Run: python benchmarks/fuzz_pictures.py [--pictures 1000000] [--requests 20000] [--seed 0] [--json FILE]

Pictures are small sound ones of every format and mode, edited: bits, bytes, cuts, copies, hostile numbers;
PNG chunks of all names, of odd sizes, in odd order, packed and nested, with their checksums put right; JPEG
segments copied, dropped and swapped; scans repeated; EXIF that points anywhere; headers that claim another
size. Requests are such bodies under odd headers, cut or hung up, wrapped in forms, JSON and base64.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fleetfl.pictures import Bounds, PictureError, picture

BOUNDS = Bounds(max_pixels=10_000, max_bytes=100_000)
BOUND_BYTES = 64 * 2**20
SLOWEST_MS = 250.0
"""Of processor time; most take a tenth of one."""
NUMBERS = [
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    32_767,
    65_535,
    65_536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
]
CHUNKS = (
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP sBIT bKGD hIST pHYs sPLT tEXt zTXt iTXt tIME eXIf acTL "
    b"fcTL fdAT cICP CgBI DDAT qqqq"
).split()
BOMB = zlib.compress(bytes(1_500_000), 9)
Part = tuple[bytes, bytes]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


class Corpus:
    """Sound pictures, and edits of them. The same seed gives the same bytes."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.sound = sound_pictures(np.random.default_rng(seed))
        self.pngs = [data for data in self.sound if data.startswith(b"\x89PNG")]
        self.jpegs = [data for data in self.sound if data.startswith(b"\xff\xd8")]
        self.kinds: list[tuple[int, Callable[[], bytes]]] = [
            (6, self.edited_bytes), (5, self.chunks), (4, self.repacked), (4, self.segments),
            (2, self.exif), (1, self.claim), (1, self.scans), (1, self.noise), (1, self.whole),
        ]  # fmt: skip
        self.weights = [weight for weight, _ in self.kinds]

    def next(self) -> tuple[str, bytes]:
        """What was done, and the picture."""
        (_, make), *_ = self.dice.choices(self.kinds, self.weights)
        return make.__name__, make()

    def whole(self) -> bytes:
        return self.dice.choice(self.sound)

    def noise(self) -> bytes:
        start = self.dice.choice(
            (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x20\0\0\0WEBPVP8X", b"BM")
        )
        return start + self.dice.randbytes(self.dice.choice((0, 1, 3, 20, 100, 2000)))

    def edited(self, data: bytes) -> bytes:
        dice, edited = self.dice, bytearray(data)
        for _ in range(dice.choice((1, 1, 2, 3, 8))):
            size = len(edited)
            at = dice.randrange(min(size, 64) if dice.random() < 0.5 else size) if size else 0
            how = dice.randrange(7)
            if how == 0 and size:
                edited[at] ^= 1 << dice.randrange(8)
            elif how == 1 and size:
                edited[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
            elif how == 2:
                del edited[at:]
            elif how == 3:
                del edited[at : at + dice.choice((1, 2, 4, 100))]
            elif how == 4:
                edited[at:at] = dice.randbytes(dice.choice((1, 2, 4, 100)))
            elif how == 5:
                edited[at : at + 4] = struct.pack(dice.choice("<>") + "I", dice.choice(NUMBERS))
            else:
                start = dice.randrange(size) if size else 0
                edited[at:at] = edited[start : start + dice.choice((4, 64, 1024))]
        return bytes(edited)

    def edited_bytes(self) -> bytes:
        return self.edited(self.whole())

    def chunks(self) -> bytes:
        """Chunks more, fewer, doubled and shuffled, with right checksums."""
        dice, parts = self.dice, png_parts(self.dice.choice(self.pngs))
        for _ in range(dice.choice((1, 1, 2, 4))):
            at = dice.randrange(len(parts) + 1)
            how = dice.randrange(5)
            if how < 3:
                parts.insert(at, (dice.choice(CHUNKS), self.filling()))
            elif how == 3 and parts:
                parts.insert(at, dice.choice(parts))
            elif parts:
                del parts[min(at, len(parts) - 1)]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)

    def filling(self) -> bytes:
        dice = self.dice
        how = dice.randrange(6)
        if how == 0:
            return b"k\0" + dice.choice((b"\0", b"\1\0\0\0", b"")) + BOMB
        if how == 1:  # a picture in a picture's text, packed again and again
            data = dice.choice(self.sound)[:2000]
            for _ in range(dice.randrange(1, 20)):
                data = zlib.compress(data, 1)
            return b"Raw profile type exif\0\0" + data
        if how == 2:
            return b"".join(
                struct.pack(">I", dice.choice(NUMBERS)) for _ in range(dice.randrange(8))
            )
        return dice.randbytes(
            dice.choice((0, 1, 2, 3, 4, 6, 7, 8, 9, 12, 13, 25, 26, 27, 32, 256, 768))
        )

    def repacked(self) -> bytes:
        """What lies in a PNG's chunks edited, packed again, with right checksums."""
        parts = png_parts(self.dice.choice(self.pngs))
        at = self.dice.randrange(len(parts))
        name, data = parts[at]
        is_packed = name == b"IDAT"
        edited = self.edited(zlib.decompress(data) if is_packed else data)
        parts[at] = name, zlib.compress(edited, 1) if is_packed else edited
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)

    def segments(self) -> bytes:
        dice, parts = self.dice, jpeg_parts(self.dice.choice(self.jpegs))
        for _ in range(dice.choice((1, 1, 2, 4))):
            at = dice.randrange(len(parts))
            how = dice.randrange(5)
            if how == 0:
                parts.insert(at, dice.choice(parts))
            elif how == 1 and len(parts) > 1:
                del parts[at]
            elif how == 2:
                parts[at] = self.edited(parts[at])
            elif how == 3:
                other = dice.randrange(len(parts))
                parts[at], parts[other] = parts[other], parts[at]
            else:
                data = dice.randbytes(dice.choice((0, 1, 5, 12, 64, 200)))
                head = struct.pack(">BBH", 0xFF, dice.randrange(0xC0, 0xFF), len(data) + 2)
                parts.insert(at, head + data)
        return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"

    def exif(self) -> bytes:
        dice = self.dice
        order = dice.choice("<>")
        tags = [
            0x0112,
            0x011A,
            0x0128,
            0x8769,
            0x8825,
            0xA005,
            0x0201,
            0x014A,
            dice.randrange(65_536),
        ]
        entries = b"".join(
            struct.pack(
                f"{order}HHII",
                dice.choice(tags),
                dice.randrange(14),
                dice.choice(NUMBERS),
                dice.choice(NUMBERS),
            )
            for _ in range(dice.choice((0, 1, 3, 40)))
        )
        head = (b"II" if order == "<" else b"MM") + struct.pack(
            f"{order}HIH", 42, dice.choice((8, 8, 0, 4, 2**32 - 1)), dice.choice((1, 3, 40, 65_535))
        )
        body = b"Exif\0\0" + head + entries + struct.pack(f"{order}I", dice.choice(NUMBERS))
        if dice.random() < 0.5:
            segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
            return b"\xff\xd8" + segment + dice.choice(self.jpegs)[2:]
        first, *rest = png_parts(dice.choice(self.pngs))
        parts = [first, (b"eXIf", body[6:]), *rest]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)

    def claim(self) -> bytes:
        """A header of another size, depth and kind than what follows."""
        dice = self.dice
        _, *rest = png_parts(dice.choice(self.pngs))
        about = struct.pack(
            ">IIBBBBB", dice.choice(NUMBERS[:10]), dice.choice(NUMBERS[:10]),
            dice.choice((0, 1, 2, 4, 8, 16, 255)), dice.choice((0, 2, 3, 4, 6, 7)), dice.choice((0, 0, 1)),
            dice.choice((0, 0, 1)), dice.randrange(3),
        )  # fmt: skip
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in [(b"IHDR", about), *rest])

    def scans(self) -> bytes:
        parts = jpeg_parts(self.dice.choice(self.jpegs))
        scan = self.dice.choice([part for part in parts if part[1] == 0xDA])
        return (
            b"\xff\xd8"
            + b"".join(parts)
            + scan[:600] * self.dice.choice((1, 5, 40, 150))
            + b"\xff\xd9"
        )


def sound_pictures(dice: np.random.Generator) -> list[bytes]:
    pixels = dice.integers(0, 256, (12, 9, 3), np.uint8)
    rgb = Image.fromarray(pixels)
    deep = Image.fromarray(dice.integers(0, 65_536, (9, 12)).astype(np.uint16))
    palette = rgb.quantize(16)
    modes = [rgb, deep, palette, *(rgb.convert(mode) for mode in ("L", "1", "LA", "RGBA"))]
    options: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((image, "PNG", {}) for image in modes),
        (palette, "PNG", {"transparency": 3}), (palette, "PNG", {"transparency": bytes(range(16))}),
        (rgb.convert("L"), "PNG", {"transparency": 9}), (rgb, "PNG", {"transparency": (1, 2, 3)}),
        (rgb, "PNG", {"dpi": (72, 72), "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),
        (rgb, "PNG", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        (rgb, "JPEG", {}), (rgb, "JPEG", {"progressive": True}), (rgb.convert("L"), "JPEG", {}),
        (rgb.convert("CMYK"), "JPEG", {}), (rgb, "JPEG", {"subsampling": 0, "optimize": True}),
        (rgb, "WEBP", {}), (rgb, "WEBP", {"lossless": True}), (rgb.convert("RGBA"), "WEBP", {}),
        (rgb, "WEBP", {"save_all": True, "append_images": [rgb.rotate(180)]}), (rgb, "BMP", {}),
        (palette, "BMP", {}), (rgb.convert("1"), "BMP", {}),
    ]  # fmt: skip
    found = []
    for image, kind, more in options:
        buffer = io.BytesIO()
        image.save(buffer, kind, **more)
        found.append(buffer.getvalue())
    return found


def png_parts(png: bytes) -> list[Part]:
    parts, at = [], 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        parts.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return parts


def jpeg_parts(jpeg: bytes) -> list[bytes]:
    """Segments, each scan with what follows it."""
    parts, at = [], 2
    while jpeg[at + 1] != 0xD9:
        end = at + 2 + struct.unpack_from(">H", jpeg, at + 2)[0]
        if jpeg[at + 1] == 0xDA:
            while not (
                jpeg[end] == 0xFF and jpeg[end + 1] != 0 and not 0xD0 <= jpeg[end + 1] <= 0xD7
            ):
                end += 1
        parts.append(jpeg[at:end])
        at = end
    return parts


def fuzz_pictures(count: int, seed: int) -> dict[str, Any]:
    """Counts by outcome, the slowest, memory, and what broke the claim."""
    corpus, ends, broken, slowest = Corpus(seed), Counter[str](), [], (0.0, "")
    for data in corpus.sound:
        attempt(data, None)
    before = peak_bytes()
    for number in range(count):
        how, data = corpus.next()
        began = time.thread_time()
        end = attempt(data, corpus.dice.choice((None, None, 4)))
        took = time.thread_time() - began
        slowest = max(slowest, (1e3 * took, f"{how}, number {number}"))
        ends[
            f"{how}: {'picture' if end == 'picture' else 'refused' if end == 'refused' else 'BROKEN'}"
        ] += 1
        if end not in ("picture", "refused"):
            broken.append(f"{how}, number {number}: {end}")
    grown = peak_bytes() - before
    if slowest[0] > SLOWEST_MS:
        broken.append(f"{slowest[1]} took {slowest[0]:.0f} ms")
    if grown > BOUND_BYTES:
        broken.append(f"memory grew by {grown} bytes")
    return {
        "pictures": count, "ends": dict(ends), "slowest_ms": round(slowest[0], 1), "slowest": slowest[1],
        "grown_bytes": grown, "broken": broken,
    }  # fmt: skip


def attempt(data: bytes, fit: int | None) -> str:
    try:
        seen = picture(data, BOUNDS, fit=fit, kinds=("PNG", "JPEG", "WEBP", "BMP"))
    except PictureError:
        return "refused"
    except BaseException:
        return traceback.format_exc(limit=-3)
    fits = seen.dtype == np.uint8 and seen.ndim == 3 and seen.shape[2] == 3
    return (
        "picture" if fits and seen.size <= 3 * BOUNDS.max_pixels else f"{seen.dtype} {seen.shape}"
    )


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Request:
    """A client below HTTP; what the application sends is kept."""

    def __init__(self, dice: random.Random, corpus: Corpus) -> None:
        self.dice = dice
        self.status, self.body = 0, b""
        _, body = corpus.next()
        body = dice.choice((lambda b: b, lambda b: b, base64.b64encode, form, as_json, quoted))(
            body
        )
        cuts = sorted(dice.randrange(len(body) + 1) for _ in range(dice.choice((0, 0, 1, 5))))
        self.parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        self.ends = dice.choice(("whole", "whole", "whole", "leaves"))
        path = dice.choice(
            ["/v1/classify"] * 30
            + ["/readyz", "/v1/model", "/docs", "/\udcff", "/v1/classify/..", ""]
        )
        names = [
            b"content-type",
            b"content-length",
            b"content-encoding",
            b"accept",
            b"expect",
            b"host",
            b"\xff",
        ]
        values = [
            b"", b"multipart/form-data", b"multipart/form-data; boundary=x", b"application/json",
            b"image/png", b"\xff\xfe", b"-1", b"9" * 40, b"1e3", b"gzip", b"\0", b"x" * 5000,
            "\u0665".encode(), b'a;b;c="',
        ]  # fmt: skip
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": dice.choice(("1.0", "1.1", "2")),
            "method": dice.choice(["POST"] * 30 + ["GET", "HEAD", "PUT", "OPTIONS", "DELETE", "TRACE", "QQ"]),
            "path": path, "raw_path": path.encode("utf-8", "surrogateescape"),
            "query_string": dice.choice((b"", b"a=%ff&b", b"\xff")), "root_path": "", "scheme": "http",
            "headers": [(dice.choice(names), dice.choice(values)) for _ in range(dice.randrange(5))],
            "client": ("c", 1), "server": ("s", 1),
        }  # fmt: skip

    async def receive(self) -> dict[str, Any]:
        if self.parts:
            part = self.parts.pop(0)
            more = bool(self.parts) or self.ends != "whole"
            return {"type": "http.request", "body": part, "more_body": more}
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


def form(body: bytes) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + body + b"\r\n--x--"


def as_json(body: bytes) -> bytes:
    return json.dumps({"image": base64.b64encode(body).decode()}).encode()


def quoted(body: bytes) -> bytes:
    return b"data:image/png;base64," + base64.b64encode(body)


async def fuzz_requests(count: int, seed: int) -> dict[str, Any]:
    """Answers by status, and what broke the claim."""
    from actors.config import ServerConfig  # torch: only where the endpoint is tried
    from actors.serving.app import ServedModel, build_app
    from fleetfl.codecs import decoder
    from fleetfl.protocol.messages import Snapshot
    from fleetfl.vectors import digest

    http = {
        "max_body_bytes": BOUNDS.max_bytes,
        "max_pixels": BOUNDS.max_pixels,
        "precision": "float32",
    }
    settings = {
        "fleet": "f",
        "model": {"classes": ["a", "b"]},
        "transport": {"kind": "memory"},
        "http": http,
    }
    with tempfile.TemporaryDirectory() as folder:
        state = {"state": folder}
        dice, corpus, statuses, broken = random.Random(seed), Corpus(seed), Counter[int](), []

        async def wait_for_version(_: object) -> Snapshot:
            if served.card is not None:
                await asyncio.get_running_loop().create_future()
            vector = served.model.vector()
            body = decoder("float32", served.model.layout).encode(vector)
            return Snapshot("one", 0, bytes(8), digest(vector), "float32", body)

        served = ServedModel(ServerConfig.model_validate(settings | state), wait_for_version)
        app = build_app(served)
        async with app.router.lifespan_context(app):
            while served.card is None:
                await asyncio.sleep(0.01)
            for number in range(count):
                request = Request(dice, corpus)
                try:
                    await app(request.scope, request.receive, request.send)
                except BaseException:
                    broken.append(f"request {number}: {traceback.format_exc(limit=-3)}")
                statuses[request.status] += 1
                if request.status >= 500 or (
                    b"null" in request.body
                    and request.status == 200
                    and (request.scope["path"] == "/v1/classify")
                ):
                    broken.append(f"request {number}: {request.status} {request.body[:200]!r}")
    return {"requests": count, "statuses": dict(sorted(statuses.items())), "broken": broken}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    began = time.monotonic()
    result = {"seed": asked.seed, "of_pictures": fuzz_pictures(asked.pictures, asked.seed)}
    result["seconds"] = round(time.monotonic() - began, 1)
    if asked.requests:
        result["of_requests"] = asyncio.run(fuzz_requests(asked.requests, asked.seed))
    text = json.dumps(result, indent=1)
    print(text)
    if asked.json:
        asked.json.write_text(text)
    broken = [*result["of_pictures"]["broken"], *result.get("of_requests", {}).get("broken", [])]
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
