"""Check of a delta's shape and dtype, so that a misfit fails on arrival and not in a later step."""

import numpy as np


def require_fit(delta: np.ndarray, size: int) -> None:
    """Raises ValueError for another shape or dtype than float32 [size]."""
    if delta.shape != (size,) or delta.dtype != np.float32:
        raise ValueError(f"{delta.dtype} {delta.shape}, expected float32 ({size},)")
