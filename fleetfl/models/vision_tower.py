"""A transformers vision model as a plain module: pixels in, one feature vector an image out."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.utils import logging as their_logging

from fleetfl.models import ModelError
from fleetfl.models.weights_file import is_head, named, one_line

TOWERS = {
    "clip": "CLIPVisionModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}
"""Class of the vision tower, by model type, where a checkpoint holds a text tower beside it."""

WITHOUT_INFLUENCE = frozenset(
    {
        "transformers_version",
        "_name_or_path",
        "architectures",
        "dtype",
        "torch_dtype",
        "return_dict",
    }
    | {"chunk_size_feed_forward", "problem_type", "initializer_range", "initializer_factor"}
    | {"image_size", "projection_dim", "encoder_stride", "use_mask_token", "use_cache"}
)
"""Settings of an architecture that change no feature, or that are told by another part of the meaning."""


class VisionTower(nn.Module):
    """float32 [B, 3, S, S] -> float32 [B, D]: the pooled output, or the first token's where there is none."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        out = self.tower(pixel_values=pixels)
        pooled = getattr(out, "pooler_output", None)
        return out.last_hidden_state[:, 0] if pooled is None else pooled


def loaded(name: str, *, pooler: bool) -> tuple[VisionTower, Any, dict[str, Any]]:
    """The tower in float32, its settings, and those of its picture processor.

    Raises ModelError for what cannot be loaded, and names weights that the checkpoint lacks.
    """
    source = f"transformers model {name!r}"
    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(f"{source} cannot be made: the folder has no config.json")
    offline = {"local_files_only": True} if folder.is_dir() else {}
    with _quiet():
        try:
            settings: Any = transformers.AutoConfig.from_pretrained(name, **offline)
            loader: Any = getattr(transformers, TOWERS.get(settings.model_type, "AutoModel"))
            # In float32 whatever the folder says: halves are widened, exactly.
            tower, found = loader.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True, **offline
            )
            processor: Any = transformers.AutoImageProcessor.from_pretrained(name, **offline)
            pictures = processor.to_dict()
        except Exception as failed:
            raise ModelError(f"{source} cannot be made: {one_line(failed)}") from failed
    _require_whole(tower, found, source, pooler=pooler)
    return VisionTower(tower.float()), getattr(settings, "vision_config", settings), pictures


def computed(settings: Any) -> dict[str, Any]:
    """The settings of an architecture that decide what is computed with its weights, as plain values.

    Empty and false ones are left out, so that a setting that a later transformers adds changes nothing.
    """
    return {
        name: value
        for name, value in settings.to_dict().items()
        if name not in WITHOUT_INFLUENCE
        and "dropout" not in name
        and not name.startswith(("output_", "out_", "decoder_", "drop_path"))
        and (isinstance(value, str | int | float) or _are_numbers(value))
        and value is not False
    }


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value)


def _require_whole(tower: Any, found: dict[str, Any], source: str, *, pooler: bool) -> None:
    """Raises ModelError unless every weight came from the checkpoint; without `pooler` it is taken out."""
    if not pooler:
        if getattr(tower, "pooler", None) is None:
            raise ModelError(
                f"{source} has no pooler that could be left out, expected pooler: true"
            )
        tower.pooler = None
    lacking = _wanted(found["missing_keys"], pooler=pooler)
    extra = {key for key in _wanted(found["unexpected_keys"], pooler=pooler) if not is_head(key)}
    unlike = [str(each) for each in (*found["mismatched_keys"], *found.get("error_msgs", ()))]
    faults = (
        ("it lacks", sorted(lacking)),
        ("there is no place for", sorted(extra)),
        ("other shapes:", unlike),
    )
    told = [f"{words} {named(keys)}" for words, keys in faults if keys]
    if not told:
        return
    is_poolers = pooler and lacking and all(map(_is_of_pooler, lacking))
    advice = " (with `pooler: false` the first token is taken)" if is_poolers else ""
    kind = type(tower).__name__
    raise ModelError(f"{source} does not fit {kind}: {'; '.join(told)}{advice}")


def _wanted(keys: Iterable[Any], *, pooler: bool) -> set[str]:
    """Names of weights, without the pooler's unless it is wanted."""
    return {name for name in map(str, keys) if pooler or not _is_of_pooler(name)}


def _is_of_pooler(name: str) -> bool:
    return name.startswith("pooler.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Context in which transformers prints neither bars nor tables: errors say what matters in them."""
    level, had_bars = their_logging.get_verbosity(), their_logging.is_progress_bar_enabled()
    their_logging.set_verbosity_error()
    their_logging.disable_progress_bar()
    try:
        yield
    finally:
        their_logging.set_verbosity(level)
        if had_bars:
            their_logging.enable_progress_bar()
