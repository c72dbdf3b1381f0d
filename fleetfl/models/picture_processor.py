"""Translates a transformers picture processor's settings into size, mean and deviation of each colour.

Settings that cannot be translated are refused by name. Knows neither transformers nor torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleetfl.models import ModelError

UNLIKE_OURS = (
    *("do_flip_channel_order", "do_color_quantize", "do_grayscale", "do_pad", "do_thumbnail"),
    *("do_align_long_axis", "rescale_offset", "offset", "do_crop_margin"),
)
"""Processing steps that fleetfl does not have."""

Colours = tuple[float, float, float]


@dataclass(frozen=True)
class Pictures:
    """Preprocessing that a model expects of its pictures."""

    size: int
    """Side of the square picture, pixels."""
    mean: Colours
    """Value subtracted from each colour on the scale 0 to 1."""
    std: Colours
    """Value that each colour is divided by after that."""


def pictures_of(processor: Mapping[str, Any], model_size: int | None, source: str) -> Pictures:
    """The preprocessing that a processor's settings ask for; `model_size`, pixels, is the model's own side.

    Raises ModelError naming a setting that cannot be translated.
    """
    for name in UNLIKE_OURS:
        if processor.get(name):
            raise ModelError(f"{source}: its picture processor sets {name}, which is not done here")
    scale = 255 * _scale(processor, source)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if processor.get("do_normalize", True):
        mean, std = (
            _colours(processor, "image_mean", source),
            _colours(processor, "image_std", source),
        )
    if 0 in std:
        raise ModelError(
            f"{source}: its picture processor has image_std {list(std)}, expected no zero"
        )
    if abs(scale - 1) > 1e-9:  # (x r - m) / s = (x / 255 - m / 255 r) / (s / 255 r)
        mean = (mean[0] / scale, mean[1] / scale, mean[2] / scale)
        std = (std[0] / scale, std[1] / scale, std[2] / scale)
    return Pictures(_size(processor, model_size, source), mean, std)


def _scale(processor: Mapping[str, Any], source: str) -> float:
    """Factor that a byte of a pixel is multiplied by."""
    if not processor.get("do_rescale", True):
        return 1.0
    factor = processor.get("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or factor <= 0:
        raise ModelError(f"{source}: its picture processor has rescale_factor {factor!r}")
    return float(factor)


def _colours(processor: Mapping[str, Any], name: str, source: str) -> Colours:
    value = processor.get(name)
    listed = [value] * 3 if isinstance(value, int | float) else value
    try:
        red, green, blue = listed  # pyright: ignore[reportGeneralTypeIssues, reportOptionalIterable]
        return float(red), float(green), float(blue)
    except (TypeError, ValueError) as odd:
        raise ModelError(
            f"{source}: its picture processor has {name} {value!r}, expected three numbers"
        ) from odd


def _size(processor: Mapping[str, Any], model_size: int | None, source: str) -> int:
    """The model's own size if the processor names it, else the last one that the processor makes."""
    names = ["size"] if processor.get("do_resize", True) else []
    names += ["crop_size"] if processor.get("do_center_crop") else []
    sides = [_side(processor[name], name, source) for name in names if processor.get(name)]
    if model_size is not None and (not sides or model_size in sides):
        return model_size
    if not sides:
        raise ModelError(f"{source}: neither model nor picture processor says the pictures' size")
    return sides[-1]


def _side(size: Any, name: str, source: str) -> int:
    given = {k: v for k, v in size.items() if v} if isinstance(size, Mapping) else {"edge": size}
    sides = set(given.values())
    known = (["edge"], ["shortest_edge"], ["height", "width"])
    if sorted(given) not in known or len(sides) != 1 or not isinstance(min(sides), int):
        raise ModelError(
            f"{source}: its picture processor has {name} {size!r}, expected one number of pixels, a "
            "shortest_edge, or a height and a width that are the same"
        )
    return int(sides.pop())
