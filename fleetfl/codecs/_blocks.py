"""Integers with one float32 scale a block of values, for int8 and int4.

The block size stands in front of the scales, so that a server decodes what any vehicle chose.
"""

import struct

import numpy as np

from fleetfl.codecs import CodecError, require_finite

MIN_BLOCK, MAX_BLOCK = 8, 65_536
MAX_SCALE = np.finfo(np.float32).max / np.float32(128)
"""Largest scale of a block: the lowest int8 times it is still finite."""
MAX_SCALE_BITS = int(MAX_SCALE.view(np.uint32))


def max_head_bytes(size: int) -> int:
    """Largest size in bytes of block size and scales, which the smallest blocks need."""
    return 4 + 4 * -(-size // MIN_BLOCK)


def quantized(vector: np.ndarray, block: int, largest: int) -> tuple[bytes, np.ndarray]:
    """Block size and scales as bytes, and int8 [P] from -largest to largest.

    Raises CodecError for values that are not finite or over largest * MAX_SCALE.
    """
    vector = require_finite(vector)
    padded = np.pad(vector, (0, -vector.size % block)).reshape(-1, block)
    scale = np.abs(padded).max(axis=1) / np.float32(largest)
    if scale.max(initial=0) > MAX_SCALE:
        limit = MAX_SCALE * np.float32(largest)
        raise CodecError(f"magnitude {np.abs(vector).max()}, expected at most {limit}")
    # A scale that rounds to zero (all values zero, or subnormal) stands for zeros.
    steps = padded / np.where(scale > 0, scale, np.float32(1))[:, None]
    np.clip(np.rint(steps, out=steps), -largest, largest, out=steps)
    head = struct.pack("<I", block) + scale.astype("<f4", copy=False).tobytes()
    return head, steps.astype(np.int8).ravel()[: vector.size]


def parted(body: bytes, size: int) -> tuple[int, np.ndarray, memoryview]:
    """Block size, scales (float32) and the rest of the body. Raises CodecError."""
    block = int.from_bytes(body[:4], "little")
    if not MIN_BLOCK <= block <= MAX_BLOCK:
        raise CodecError(f"block of {block} values, expected {MIN_BLOCK} to {MAX_BLOCK}")
    num_blocks = -(-size // block)
    end = 4 + 4 * num_blocks
    if len(body) < end:
        raise CodecError(f"{len(body)} bytes, expected {num_blocks} scales first")
    scale = np.frombuffer(body, "<f4", num_blocks, 4)
    # As integers, negative scales and those that are not finite are the largest.
    if scale.view("<u4").max(initial=0) > MAX_SCALE_BITS:
        raise CodecError(f"a block's scale is not from 0 to {MAX_SCALE}")
    return block, scale, memoryview(body)[end:]


def scaled(values: np.ndarray, scale: np.ndarray, block: int) -> np.ndarray:
    """int8 [P] times the scale of their block, float32 [P]."""
    padded = np.empty((scale.size, block), np.float32)
    vector = padded.ravel()
    vector[: values.size] = values
    vector[values.size :] = 0
    padded *= scale[:, None]
    return vector[: values.size]
