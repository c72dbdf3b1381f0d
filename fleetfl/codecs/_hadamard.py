"""The Hadamard transform and random signs, by elementwise float32 and integer operations alone.

Every machine gets the same bits: there is no product of matrices and no sum whose order a library chooses.
"""

import numpy as np

SIGNS = (1.0 - 2.0 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)).astype(np.float32)
"""Signs for each byte's bits, lowest first, +1 for 0 and -1 for 1: float32 [256, 8]."""


def transform(values: np.ndarray) -> np.ndarray:
    """H X H transposed, float32 [B, A], of X = `values`, float32 [A, B], sizes powers of two.

    Twice it gives A * B * X. H is not normalized, its entries are +1 and -1. `values` is scratch
    space afterwards. Butterflies run along the first axis only, where they are contiguous.
    """
    values, spare = _butterflies(values, np.empty_like(values))
    turned = spare.reshape(values.shape[::-1])
    turned[...] = values.T
    return _butterflies(turned, values.reshape(turned.shape))[0]


def _butterflies(values: np.ndarray, spare: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = values.shape
    half = 1
    while half < rows:
        pairs = values.reshape(-1, 2, half * columns)
        out = spare.reshape(pairs.shape)
        np.add(pairs[:, 0], pairs[:, 1], out=out[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=out[:, 1])
        values, spare, half = spare, values, 2 * half
    return values, spare


def signs(seed: int, count: int) -> np.ndarray:
    """+1 and -1, float32 [count], from a seed of 32 bits: SplitMix64, whose stream is ours to keep.

    (Steele, Lea and Flood, OOPSLA 2014; output i mixes seed * 2**32 + i, one bit a sign.)
    """
    state = np.arange(-(-count // 64), dtype=np.uint64) + np.uint64(seed << 32)
    state = (state + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    words = state.astype("<u8", copy=False).view(np.uint8)
    return SIGNS.take(words, axis=0, mode="clip").reshape(-1)[:count]
