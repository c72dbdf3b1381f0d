"""Residuals in few bits, so that memory and disk hold the same ones. Knows no codec and no file.

A residual is rounded to whole steps, a power of two: 2 to 4 of them are its root mean square. Which way each
value goes is drawn so that in the mean nothing is lost: what is too small for a step arrives all the same,
now and then. That costs 1 to 4 % of the residual's energy an update, where its decay (0.9) takes 19 %.
"""

import struct
import zlib

import numpy as np

from fleetfl.codecs import CodecError, squeeze, unsqueeze

STEPS_A_RMS = 2
MOST = 127
"""Steps that a value may have."""
LEVEL = 1
"""Of zstd, which here does no more than Huffman's code: higher ones save nothing."""
COARSE, EXACT = b"\1", b"\0"


def coarse(residual: np.ndarray) -> np.ndarray:
    """float32 [P] in whole steps, drawn by its content: the same residual gives the same ones."""
    wide = residual.astype(np.float64)
    rms = float(np.sqrt(np.square(wide).mean())) if wide.size else 0.0
    largest = float(np.abs(wide).max(initial=0.0))
    finest = max(rms / STEPS_A_RMS, 2.0 * largest / MOST)
    if not 2.0**-120 < finest < 2.0**120:
        return residual  # zeros, or what no float32 step divides
    step = float(np.ldexp(0.5, np.frexp(finest)[1]))
    draws = np.random.Generator(np.random.PCG64(zlib.crc32(wide.tobytes()))).random(wide.size)
    return (np.floor(wide / step + draws) * step).astype(np.float32)


def packed(residual: np.ndarray) -> bytes:
    """float32 [P] without loss: half a byte a value if it is coarse, else four."""
    exact = np.ascontiguousarray(residual, "<f4")
    exponent = _exponent_of_step(exact)
    steps = np.ldexp(exact.astype(np.float64), -exponent)
    if np.isfinite(steps).all() and np.abs(steps).max(initial=0.0) <= MOST:
        head = COARSE + struct.pack("<h", exponent)
        return head + squeeze(steps.astype(np.int8).tobytes(), LEVEL)
    return EXACT + exact.tobytes()


def unpacked(content: bytes, max_values: int = 2**28) -> np.ndarray:
    """What `packed` was given. Raises CodecError for anything else."""
    kind, rest = content[:1], content[1:]
    if kind == EXACT and len(rest) % 4 == 0:
        return np.frombuffer(rest, "<f4").astype(np.float32)
    if kind != COARSE or len(rest) < 2:
        raise CodecError(f"a residual that begins with {kind!r}, of {len(content)} bytes")
    (exponent,) = struct.unpack("<h", rest[:2])
    steps = np.frombuffer(unsqueeze(rest[2:], max_values), np.int8)
    return np.ldexp(steps.astype(np.float32), exponent).astype(np.float32)


def _exponent_of_step(vector: np.ndarray) -> int:
    """The largest n for which every value is a whole multiple of 2^n; 0 if all are 0 or some not finite."""
    mantissas, exponents = np.frexp(vector[vector != 0])
    if not mantissas.size or not np.isfinite(mantissas).all():
        return 0
    whole = np.ldexp(mantissas.astype(np.float64), 24).astype(np.int64)
    _, lowest_bit = np.frexp((whole & -whole).astype(np.float64))
    return int((exponents - 24 + lowest_bit - 1).min())
