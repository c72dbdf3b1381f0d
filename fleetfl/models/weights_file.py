"""Weights from a file into a module. No pickle: safetensors, or torch files read as weights only.

Every tensor of the module comes from the file: what a file lacks would be random, other in each process.
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError  # what torch raises for a file that is more than weights
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models import vision_transformer
from timm.models.vision_transformer import VisionTransformer

from fleetfl.models import ModelError

log = logging.getLogger(__name__)

Weights = dict[str, torch.Tensor]

WRAPPERS = (
    *("state_dict_ema", "model_ema", "teacher", "state_dict", "model_state_dict", "model"),
    *("module", "network", "net", "weights", "encoder", "student"),
)
"""Keys under which training scripts save their weights; of several the first is taken."""
HEADS = frozenset(
    {"head", "heads", "head_dist", "fc", "classifier", "cls_classifier", "distillation_classifier"}
    | {"pre_logits", "mask_token", "projector", "predictor", "decoder", "lm_head"}
    | {"text_model", "text_projection", "visual_projection", "logit_scale", "logit_bias", "text"}
)
"""Name levels of heads: their tensors may be in a file though the backbone has no place for them."""
TOLD = 4
"""Largest number of names that one error lists."""


def load_into(module: torch.nn.Module, path: Path) -> str:
    """Copy the file's weights into `module`, whose dtypes stay; gives their `weights_sha256`.

    A ViT's positions are resampled. A classification head in the file is left out, and said. Raises
    ModelError if the file is missing, damaged, or does not hold this module's weights.
    """
    source = f"checkpoint {path}"
    return put_into(module, _within(_unwrapped(_read(path), source), module, source), source)


def put_into(module: torch.nn.Module, weights: Weights, source: str) -> str:
    """Copy named weights into `module` as `load_into` does; `source` says in words where they are from."""
    wanted = module.state_dict()
    fitted = _converted(module, weights, source)
    unfit = objection(type(module).__name__, fitted, wanted)
    if unfit:
        raise ModelError(f"{source} does not fit: {unfit}")
    module.load_state_dict({name: fitted[name] for name in wanted}, strict=True)
    # What was resampled counts as it came: processors differ in how they round it.
    resampled = {n for n in wanted if n in weights and weights[n].shape != fitted[n].shape}
    return weights_sha256({n: (weights if n in resampled else fitted)[n] for n in wanted})


def weights_sha256(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256, in hexadecimal, over names, shapes and float32 values: file formats and dtypes do not
    change it.
    """
    whole = sha256()
    for name in sorted(weights):
        tensor = weights[name].detach()
        kind = torch.float32 if tensor.is_floating_point() else torch.int64
        whole.update(f"{name} {tuple(tensor.shape)} ".encode())
        whole.update(tensor.to(kind).contiguous().numpy().tobytes())
    return whole.hexdigest()


def objection(what: str, found: Mapping[str, torch.Tensor], wanted: Mapping[str, Any]) -> str:
    """Why these weights are not those that `what` needs, in one line; empty if they are.

    `found` may hold heads beside them.
    """
    lacking = sorted(wanted.keys() - found.keys())
    extra = sorted(name for name in found.keys() - wanted.keys() if not is_head(name))
    shared = [name for name in wanted if name in found]
    shapes = [
        f"{name} {list(found[name].shape)} for {list(wanted[name].shape)}"
        for name in shared
        if found[name].shape != wanted[name].shape
    ]
    faults = (
        ("it lacks", lacking),
        ("it has no place for", extra),
        ("other shapes:", shapes),
        ("values that are not finite in", sorted(n for n in shared if not _is_finite(found[n]))),
    )
    told = [f"{words} {named(names)}" for words, names in faults if names]
    return f"{what}: {'; '.join(told)}" if told else ""


def _is_finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def named(names: Iterable[str]) -> str:
    """The first few of the names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - TOLD} more" if len(listed) > TOLD else ""
    return ", ".join(listed[:TOLD]) + more


def one_line(broken: BaseException) -> str:
    """The first line of what a library says, with the kind of error where it says nothing."""
    text = str(broken).strip()
    return (text.splitlines()[0] if text else type(broken).__name__)[:200]


def is_head(name: str) -> bool:
    """Whether the tensor of this name stands behind, or beside, a backbone."""
    return not HEADS.isdisjoint(name.split("."))


def _read(path: Path) -> Any:
    """Content of the file as its format gives it, tensors by name or wrapped. Raises ModelError."""
    if path.is_dir():
        raise ModelError(f"checkpoint {path} is a folder, expected a file of weights")
    if not path.is_file():
        raise ModelError(f"checkpoint {path} is missing")
    try:
        with path.open("rb") as file:
            begin = file.read(64).lstrip().lower()
        if begin.startswith((b"<!doctype", b"<html", b"<?xml")):
            raise ValueError("it is a web page, not weights")
        if begin.startswith(b"version https://git-lfs"):
            raise ValueError("it only points to weights in Git LFS: `git lfs pull` fetches them")
        if path.suffix == ".safetensors" and not begin.startswith(b"pk\x03\x04"):
            return load_file(path)
        # timm's training checkpoints hold the arguments of their script.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as refused:
        raise ModelError(
            f"checkpoint {path} cannot be read: it is no file of weights, or holds objects and code beside "
            "them, which are never run; save the state_dict alone"
        ) from refused
    except Exception as broken:
        raise ModelError(f"checkpoint {path} cannot be read: {one_line(broken)}") from broken


def _unwrapped(content: Any, source: str) -> Weights:
    """The tensors by name, out of what training scripts put around them. Raises ModelError."""
    for _ in range(len(WRAPPERS)):
        if not isinstance(content, Mapping):
            raise ModelError(f"{source} holds a {type(content).__name__}, no named weights")
        inner = next((n for n in WRAPPERS if isinstance(content.get(n), Mapping)), None)
        if inner is None:
            break
        log.info("%s: its %r is taken, of %s", source, inner, named(map(str, content)))
        content = content[inner]
    weights = {str(name): t for name, t in content.items() if isinstance(t, torch.Tensor)}
    if not weights:
        keys = named(sorted(map(str, content)))
        raise ModelError(f"{source} holds no weights, only {keys or 'nothing'}")
    return weights


def _within(weights: Weights, module: torch.nn.Module, source: str) -> Weights:
    """The backbone's weights without a prefix that all of them have, such as `module.`.

    Raises ModelError if two prefixes fit equally well.
    """
    wanted = module.state_dict()
    prefixes = _prefixes(wanted, weights)
    most = max(prefixes.values(), default=0)
    if prefixes[""] == most or 2 * most < len(wanted):  # other names throughout: timm may know them
        return weights
    (prefix, count), *others = prefixes.most_common(2)
    if others and others[0][1] == count:
        raise ModelError(f"{source} holds several: under {prefix!r} and {others[0][0]!r}")
    inside = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    left = sorted({n.split(".")[0] for n in weights if not n.startswith(prefix)})
    log.info("%s: %r is taken; left out: %s", source, prefix, named(left) or "nothing")
    return inside


def _prefixes(wanted: Iterable[str], names: Iterable[str]) -> Counter[str]:
    """Number of wanted names that each prefix leads to; the empty prefix counts names as they are."""
    return Counter(
        name[: len(name) - len(known)]
        for known in wanted
        for name in names
        if name == known or name.endswith(f".{known}")
    )


def _converted(module: torch.nn.Module, weights: Weights, source: str) -> Weights:
    """The weights under timm's present names, with positions resampled. Raises ModelError."""
    home = sys.modules[type(module).__module__]
    convert: Any = getattr(home, "checkpoint_filter_fn", None)
    if convert is None and isinstance(module, VisionTransformer):
        convert = vision_transformer.checkpoint_filter_fn
    try:
        fitted = weights if convert is None else convert(dict(weights), module)
    except Exception as unfit:
        raise ModelError(
            f"{source} does not fit {type(module).__name__}: {one_line(unfit)}"
        ) from unfit
    behind = sorted(n for n in fitted.keys() - module.state_dict().keys() if is_head(n))
    if behind:
        log.info("%s: left out what stands behind a backbone: %s", source, named(behind))
    return fitted
