"""Where a model is computed, and in which arithmetic. The one place that knows names of devices."""

from typing import Literal

import torch

from fleetfl.models import ModelError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]


def chosen_device(name: str) -> torch.device:
    """Device of this name; `auto` is an NVIDIA or AMD GPU, else Apple's, else the processor.

    Raises ModelError if it is not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(each for each, is_there in there.items() if is_there)
    elif not there.get(name, False):
        found = ", ".join(each for each, is_there in there.items() if is_there)
        raise ModelError(f"model.device {name!r}: torch finds none here, expected auto or {found}")
    return torch.device(name)


def chosen_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Type of the backbone's arithmetic; `auto` is bfloat16 where the device multiplies it natively.

    It is twice as fast there and slow elsewhere, also where the libraries were told to use AVX2 only.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX2":
        return False
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
