"""Which instructions numerical libraries use: on virtual time the same on any x86-64 processor with AVX2.

NumPy, OpenBLAS, ATen, oneDNN and MKL have several versions of a sum, of which they take the one for the
newest instructions that the processor has, and those differ in the last bits. MKL also tells Intel's from
AMD's where a result has few columns (`fleetfl/models/stacked.py` gives it more) or one row, which fused
attention makes of the last token (docs/results/virtual-fleets.md).
"""

import os
import platform
import sys
from pathlib import Path

AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2,STRICT",
    "TIMM_FUSED_ATTN": "0",
    "OPENBLAS_CORETYPE": "Haswell",
    # All that NumPy 2.4 chooses at run time, under its names for it; what is left is x86-64-v2.
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    # Sums over threads depend on how many there are.
    "OMP_NUM_THREADS": "1",
}
"""Read by the libraries when they are first imported."""


def agree() -> bool:
    """Have the libraries use AVX2, here and in processes started from here, unless the environment says more.

    False, and nothing done, if they were imported already, or this processor has no AVX2.
    """
    if "numpy" in sys.modules or "torch" in sys.modules or not _has_avx2():
        return False
    os.environ.update({name: value for name, value in AVX2.items() if name not in os.environ})
    return True


def in_use() -> dict[str, str]:
    """For the record of a run: the processor's kind, and the newest instructions that ATen makes use of."""
    found = {"machine": platform.machine()}
    if "torch" in sys.modules:
        import torch

        found["instructions"] = torch.backends.cpu.get_cpu_capability()
    return found


def _has_avx2(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        return " avx2 " in cpuinfo.read_text()
    except OSError:  # not Linux
        return False
