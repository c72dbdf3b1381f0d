"""Golomb-Rice codes for gaps between sparse positions (Rice 1979). Knows no vector and no codec.

A gap of width w is gap >> w in unary (so many zeros, then a one) and its lower w bits. All unary
parts stand first, then the lower bits plane by plane, so that NumPy reads and writes them without
a loop over gaps. For positions kept at random this is within 3 % of their entropy.
"""

import operator
from collections.abc import Sequence

import numpy as np

from fleetfl.codecs import CodecError

MAX_WIDTH = 31
PLACE_VALUES = 1 << np.arange(MAX_WIDTH)


def width(count: int, span: int) -> int:
    """The best width for `count` positions that lie at random in `span` places; integers only.

    1 + floor(log2(log(phi - 1) / log(m / (m + 1)))) for a mean gap of m (Kiely, IPN 42-159, 2004),
    with 1 / log(1 + 1/m) taken as m + 1/2.
    """
    return (77 * (2 * span - count) // (320 * count)).bit_length() if count else 0


def encode(gaps: np.ndarray, widths: np.ndarray) -> bytes:
    """Gaps from 0, integers [N], each with its width, uint8 [N]."""
    quotients = gaps >> widths
    ends = np.cumsum(quotients + 1)
    unary = np.zeros(ends[-1] if gaps.size else 0, bool)
    unary[ends - 1] = True
    planes = [gaps[widths > bit] >> bit & 1 for bit in range(int(widths.max(initial=0)))]
    return np.packbits(np.concatenate([unary, *planes]), bitorder="little").tobytes()


def decode(
    data: bytes | memoryview, counts: Sequence[int], widths: Sequence[int], limit: int
) -> np.ndarray:
    """The gaps, int64 [N], together at most `limit`: first counts[0] of width widths[0], and so on.

    Raises CodecError for anything else, with memory bounded by N, `limit` and the lower bits.
    """
    count, num_lower = sum(counts), sum(map(operator.mul, counts, widths))
    if 8 * len(data) >= count + limit + num_lower + 8:
        raise CodecError(f"{len(data)} bytes for {count} gaps of at most {limit} together")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    gaps = bits.view(np.bool_).nonzero()[0][:count]  # so far, where their unary parts end
    end = int(gaps[-1]) + 1 if gaps.size else 0
    if gaps.size < count or not 0 <= bits.size - end - num_lower < 8:
        raise CodecError(f"{len(data)} bytes are not {count} gaps")
    gaps[1:] -= gaps[:-1] + 1
    gaps <<= np.repeat(np.array(widths, np.int64), counts)
    gaps |= _lower(bits[end : end + num_lower], counts, widths)
    if bits[end + num_lower :].any() or gaps.max(initial=0) > limit or gaps.sum() > limit:
        raise CodecError(f"{count} gaps are more than {limit} together, or bits follow them")
    return gaps


def _lower(bits: np.ndarray, counts: Sequence[int], widths: Sequence[int]) -> np.ndarray:
    """Lower bits of the N gaps as integers [N], from the planes after the unary parts."""
    widest, at = max(widths, default=0), 0
    nothing, parts = np.zeros(max(counts, default=0), np.uint8), []
    for bit in range(widest):
        for number, width in zip(counts, widths, strict=True):
            if width > bit:
                parts.append(bits[at : at + number])
                at += number
            else:
                parts.append(nothing[:number])
    if not parts:
        return np.zeros(sum(counts), np.uint8)
    place_values = PLACE_VALUES[:widest].astype(np.uint8 if widest <= 8 else np.int64)
    return place_values @ np.concatenate(parts).reshape(widest, -1)
