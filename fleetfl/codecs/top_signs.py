"""The largest values as a sign each, with one magnitude a tensor: a third of a bit a value at 5 %.

Its bias is large: it is meant for vehicles that carry the error over to their next update (error
feedback). Positions are gaps in Golomb-Rice codes, each tensor with the width that suits its density.
On recorded LoRA updates a perfect range coder with those densities would save 2 % of the body: too
little for another dependency and a loop over values.
"""

from math import ceil, prod
from typing import Literal

import numpy as np
from pydantic import Field

from fleetfl.codecs import CodecConfig, CodecError, Fidelity, _golomb, require_finite
from fleetfl.codecs._planes import MAX_VARINT_BYTES, pack, read_varints, unpack, varints
from fleetfl.codecs.bfloat16 import rounded, widened
from fleetfl.vectors import Layout


class Config(CodecConfig):
    """Settings of the codec top_signs."""

    kind: Literal["top_signs"] = "top_signs"
    keep: float = Field(default=0.05, gt=0, le=1)
    """Share of the values that is sent, zeros excepted. A larger share is more exact and takes more bytes."""
    by: Literal["magnitude", "share_of_rms"] = "magnitude"
    """Measure by which the largest values are chosen: their magnitude, or its ratio to their tensor's root
    mean square, which lets tensors with small values take part."""

    @property
    def fidelity(self) -> Fidelity:
        # Never farther from x than a vector of zeros.
        return Fidelity(1.0, "l2")

    def build(self, layout: Layout) -> "TopSigns":
        return TopSigns(self, layout)


class TopSigns:
    """Body: kept values of each tensor (varints), magnitudes of those that have some (bfloat16),
    signs (a bit each), positions.
    """

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.size = config, layout.size
        self.sizes = np.array([prod(shape) for _, shape in layout.shapes], np.int64)
        self.starts = np.cumsum(self.sizes) - self.sizes
        # Counts and magnitudes, a sign a value, and gaps: at no density over 1.25 bits a value.
        of_tensors = (MAX_VARINT_BYTES + 2) * len(self.sizes)
        self.max_body_bytes = of_tensors + self.size // 8 + 5 * self.size // 32 + 4

    def encode(self, vector: np.ndarray) -> bytes:
        vector = require_finite(vector)
        at = self._largest(np.abs(vector))
        values, tensors = vector[at], np.searchsorted(self.starts, at, "right") - 1
        counts = np.bincount(tensors, minlength=self.sizes.size)
        sums = np.bincount(tensors, np.abs(values), minlength=self.sizes.size)
        used = counts > 0
        magnitudes = rounded(sums[used] / counts[used])
        places = at - self.starts[tensors]
        gaps = np.diff(places, prepend=-1) - 1
        firsts = np.cumsum(counts)[used] - counts[used]
        gaps[firsts] = places[firsts]
        return b"".join(
            [
                varints(counts.tolist()),
                magnitudes.astype("<u2").tobytes(),
                pack((values < 0).astype(np.uint8), 1),
                _golomb.encode(gaps, np.repeat(self._widths(counts), counts)),
            ]
        )

    def _largest(self, magnitudes: np.ndarray) -> np.ndarray:
        """Ascending indices of the values to keep, int64; of equal values the first are taken."""
        if self.config.by == "share_of_rms":
            magnitudes = magnitudes / self._rms(magnitudes).repeat(self.sizes)
        count = min(ceil(self.config.keep * self.size), np.count_nonzero(magnitudes))
        if not count:
            return np.zeros(0, np.int64)
        threshold = np.partition(magnitudes, self.size - count)[self.size - count]
        chosen = magnitudes > threshold
        ties = np.flatnonzero(magnitudes == threshold)
        chosen[ties[: count - np.count_nonzero(chosen)]] = True
        return np.flatnonzero(chosen)

    def _rms(self, magnitudes: np.ndarray) -> np.ndarray:
        """Root mean square of each tensor, float64 [tensors]; 1 for tensors of zeros."""
        squares = np.cumsum(np.square(magnitudes, dtype=np.float64))
        ends = np.concatenate([[0.0], squares])[np.append(self.starts, self.size)]
        means = np.diff(ends) / np.maximum(self.sizes, 1)
        return np.sqrt(np.where(means > 0, means, 1.0))

    def _widths(self, counts: np.ndarray) -> np.ndarray:
        """Golomb-Rice widths in bits for the gaps between each tensor's kept values, uint8 [tensors]."""
        pairs = zip(counts.tolist(), self.sizes.tolist(), strict=True)
        return np.array([_golomb.width(count, size) for count, size in pairs], np.uint8)

    def decode(self, body: bytes) -> np.ndarray:
        numbers, rest = read_varints(body, self.sizes.size)
        counts = np.array(numbers, np.int64)
        if (counts > self.sizes).any():
            raise CodecError(f"{counts.max()} values are kept of a tensor that has fewer")
        used, total = counts > 0, int(counts.sum())
        signs_at = 2 * np.count_nonzero(used)
        gaps_at = signs_at + -(-total // 8)
        if len(rest) < gaps_at:
            raise CodecError(f"{len(rest)} bytes for {total} kept values, expected {gaps_at} first")
        magnitudes = widened(np.frombuffer(rest[:signs_at], "<u2"))
        is_negative = unpack(rest[signs_at:gaps_at], 1, total)
        widths = self._widths(counts).tolist()
        gaps = _golomb.decode(rest[gaps_at:], numbers, widths, self.size)
        ends = np.cumsum(gaps + 1)
        firsts = np.cumsum(counts)[used] - counts[used]
        before = (ends - gaps - 1)[firsts]
        places = ends - 1 - before.repeat(counts[used])
        if (places >= self.sizes.repeat(counts)).any():
            raise CodecError("a kept value lies outside its tensor")
        vector = np.zeros(self.size, np.float32)
        values = magnitudes.repeat(counts[used])
        vector[places + self.starts.repeat(counts)] = np.where(is_negative, -values, values)
        return vector
