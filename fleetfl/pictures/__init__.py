"""Picture files to pixels, the same way for endpoint and vehicles. The one place that reads with Pillow.

Whatever the bytes are, the outcome is a picture or a PictureError. What they mean is settled here too:

- EXIF orientation is applied; other metadata (profiles, gamma, texts) changes nothing.
- What is transparent shows white behind it; colours under full transparency do not count.
- Grey of 16 bits is scaled to 8, not clipped. Where its values use less than a quarter of the range, as a
  thermal camera's do, what they use is spread over all of 0 to 255; 0.5 % at either end may lie beyond it.
- Colour of 16 bits keeps its upper 8; CMYK, YCCK and palettes become RGB.
- A file that ends early is refused, however little is missing. So are animations.
"""

import io
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from fleetfl.pictures.headers import Bounds, Header, PictureError, header, orientation

__all__ = [
    "BACKGROUND",
    "KINDS",
    "Bounds",
    "Header",
    "PictureError",
    "decoded",
    "look",
    "picture",
    "scaled",
]

KINDS = ("PNG", "JPEG", "WEBP")
BACKGROUND = (255, 255, 255)
"""Colour, RGB, that shows where a picture is transparent."""
NARROW = 16_384
"""Number of the 65,536 values of 16-bit grey below which a picture is spread over the whole range."""
LEAST_SPAN = 256
"""Least number of grey values spread over the whole range, so that sensor noise does not become a picture."""

_READERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_P = ParamSpec("_P")
_T = TypeVar("_T")


def _door(call: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorator that turns whatever decoding raises (Pillow alone has a dozen kinds) into a PictureError."""

    @wraps(call)
    def behind_it(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return call(*args, **kwargs)
        except PictureError as bad:
            raise PictureError(f"not a whole PNG or JPEG (or WebP) picture: {bad}") from bad
        except Exception as broken:
            why = f"{type(broken).__name__}: {str(broken)[:200]}".rstrip(": ")
            raise PictureError(f"not a whole PNG or JPEG (or WebP) picture: {why}") from broken

    return behind_it


def picture(
    data: bytes,
    bounds: Bounds = Bounds(),  # noqa: B008 (it is frozen)
    *,
    fit: int | None = None,
    kinds: tuple[str, ...] = KINDS,
) -> np.ndarray:
    """A file's bytes -> uint8 [H, W, 3]. Raises PictureError naming what is wrong.

    With `fit` it may come out smaller by a whole factor, with both sides still at least so many pixels.
    """
    return decoded(look(data, bounds, kinds=kinds), fit=fit)


@_door
def look(
    data: bytes,
    bounds: Bounds = Bounds(),  # noqa: B008
    *,
    kinds: tuple[str, ...] = KINDS,
) -> Header:
    """The picture's header, read in milliseconds. Raises PictureError if it is out of bounds."""
    return header(data, bounds, kinds)


@_door
def decoded(about: Header, *, fit: int | None = None) -> np.ndarray:
    """Unpack what `look` found -> uint8 [H, W, 3], in time that `about.work` bounds. Raises PictureError."""
    image = _READERS[about.kind](io.BytesIO(about.data))
    if image.size != (about.width, about.height):
        raise PictureError(f"picture of {image.size}, its header says {about.width, about.height}")
    if getattr(image, "n_frames", 1) > 1:
        raise PictureError(f"an animation of {getattr(image, 'n_frames', 0)} frames")
    if fit is not None and about.kind == "JPEG":
        image.draft(None, (fit, fit))  # the detail that scaling throws away is not even unpacked
    image.load()
    rgb = _rgb(image, about.bits)
    factor = 1 if fit is None else min(rgb.size) // fit
    if factor > 1:
        rgb = rgb.reduce(factor)
    turn = _UPRIGHT.get(orientation(about.exif or image.info.get("exif") or b""))
    return np.array(rgb if turn is None else rgb.transpose(turn))


def scaled(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [size, size, 3], each pixel the average of what it stands for."""
    return np.array(
        Image.fromarray(pixels).resize((size, size), resample=Image.Resampling.BILINEAR)
    )


def _rgb(image: Image.Image, bits: int) -> Image.Image:
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        return _grey16(np.asarray(image), key if isinstance(key, int) else None)
    if key is not None and image.mode != "P":
        image.info["transparency"] = _as_stored(key, bits)
    if key is None and image.mode not in ("RGBA", "LA", "PA", "RGBa", "La"):
        return image.convert("RGB")
    see_through = image.convert("RGBA")
    composed = Image.new("RGB", image.size, BACKGROUND)
    composed.paste(see_through, mask=see_through.getchannel("A"))
    return composed


def _as_stored(key: int | tuple[int, ...], bits: int) -> int | tuple[int, ...]:
    """The transparent colour, which a PNG gives in the file's depth, in the 8 bits that Pillow made of it."""
    if isinstance(key, tuple):
        return tuple(_as_stored(each, bits) for each in key)  # pyright: ignore[reportReturnType]
    return key >> 8 if bits == 16 else key * 255 // (2**bits - 1)


def _grey16(values: np.ndarray, key: int | None) -> Image.Image:
    """Integers [H, W] of 16 bits, `key` for transparent -> RGB."""
    counts = np.bincount(np.clip(values, 0, 65_535).ravel(), minlength=65_536)
    if key is not None and 0 <= key < 65_536:
        counts[key] = 0
    below = counts.cumsum()
    low, high = np.searchsorted(below, (0.005 * below[-1], 0.995 * below[-1]))
    levels = np.arange(65_536)
    if high - low < NARROW:
        span = max(int(high - low), LEAST_SPAN)
        table = (levels - low) * 255.0 / span
    else:
        table = levels / 257
    grey = np.clip(np.rint(table), 0, 255).astype(np.uint8)[np.clip(values, 0, 65_535)]
    if key is not None:
        grey[values == key] = BACKGROUND[0]
    return Image.fromarray(grey).convert("RGB")
