"""Spectral: each matrix of an update in its own few strongest directions. fleetfl's own codec.

A vehicle's change of a low-rank factor is itself nearly low-rank: half to three quarters of its energy
lie in one direction of the short side (docs/results/bytes.md). So each tensor M [m, n], n the short side, is
written as C V^T: V its strongest right singular vectors at 4 bits an entry, C = M V in steps of ONE size
for all tensors and directions. That is reverse water-filling (Cover and Thomas, section 10.3): strong
directions get bits, those under the water none. The step is searched so that the body fills
its budget: one update, one packet.

Numbers of C cluster at zero. They are written as places of those of level 1 and more, among these
of level 2 and more, and so on: Golomb-Rice gaps, a density for each level of each direction.

What it drops is not random: use it with error feedback.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import isfinite, prod
from typing import Literal

import numpy as np
from pydantic import Field

from fleetfl.codecs import CodecConfig, CodecError, Fidelity, _golomb, require_finite
from fleetfl.codecs._levels import MAX_LEVEL, read, read_counts, written
from fleetfl.codecs._planes import pack, unpack, varints
from fleetfl.codecs.bfloat16 import rounded, widened
from fleetfl.vectors import Layout

PACKET_BYTES = 1400
MAX_BITS_PER_VALUE = 8
ENTRY_BITS = 4
ENTRY_MAX = 2 ** (ENTRY_BITS - 1) - 1
RANK_BITS = 4
MAX_RANK = 2**RANK_BITS - 1
HUGE = float(np.finfo(np.float32).max) / (MAX_RANK + 1)
LEAST_RMS = 1e-35
"""Root mean square below which a vector is written as zeros: its steps would not be normal float32
numbers."""
SHIFTS = 128
"""Shift units in a step: two shifts say where values of level 1, and of higher levels, lie on average."""


class Config(CodecConfig):
    """Settings of the codec spectral."""

    kind: Literal["spectral"] = "spectral"
    bits_per_value: float = Field(default=0.25, gt=0, le=MAX_BITS_PER_VALUE)
    """Size of the whole body in bits for each value of the vector, filled to within a few bytes. More bits
    keep weaker directions and finer steps."""
    max_bytes: int | None = Field(default=None, ge=64)
    """Size of the whole body in bytes, in place of `bits_per_value`: one packet, whatever the model. It is at
    most 8 bits a value or 1,400 bytes, whichever is more."""
    dead_zone: float = Field(default=0.18, ge=0, lt=0.5)
    """Part of a step, besides the half that always is, that is rounded towards zero. A larger part writes
    fewer places and drops more small coefficients."""
    depth: float = Field(default=0.6, gt=0)
    """Least root mean square, in steps, of a direction that is written. Larger values keep fewer directions
    with finer steps."""

    @property
    def fidelity(self) -> Fidelity:
        # Never farther from x than a vector of zeros.
        return Fidelity(1.0, "l2")

    def build(self, layout: Layout) -> "Spectral":
        return Spectral(self, layout)


@dataclass(frozen=True)
class Place:
    """Place of a tensor in the vector, and its shape as a matrix [m, n] with m >= n."""

    start: int
    m: int
    n: int
    turned: bool

    def matrix(self, vector: np.ndarray) -> np.ndarray:
        """A view into the vector, [m, n]."""
        part = vector[self.start : self.start + self.m * self.n]
        return part.reshape(self.n, self.m).T if self.turned else part.reshape(self.m, self.n)

    def product(
        self, table: np.ndarray, column: np.ndarray, row: np.ndarray, out: np.ndarray
    ) -> np.ndarray:
        """The matrix table[column] row^T in `out`, float32 [m * n], as it stands in the vector."""
        if self.turned:
            np.multiply.outer(row, table.take(column), out=out.reshape(self.n, self.m))
        else:
            # Coefficients take few values. To look up their rows of products is faster, in short rows.
            products = np.multiply.outer(table, row)
            products.take(column, axis=0, out=out.reshape(self.m, self.n), mode="clip")
        return out


def places(layout: Layout) -> list[Place]:
    """Place of each tensor that holds values; one with more than two axes keeps the first and flattens
    the rest.
    """
    found, start = [], 0
    for _, shape in layout.shapes:
        size = prod(shape)
        if size:
            rows = shape[0] if len(shape) > 1 else size
            columns = size // rows
            found.append(Place(start, max(rows, columns), min(rows, columns), columns > rows))
        start += size
    return found


@dataclass(frozen=True)
class Spectrum:
    """One tensor as a matrix, with its directions from the strongest on."""

    matrix: np.ndarray
    """The tensor, float64 [m, n]."""
    written: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @cached_property
    def directions(self) -> tuple[np.ndarray, np.ndarray]:
        """Root mean squares, [n], and the directions as columns, [n, n]; the strongest come first."""
        energy, vectors = np.linalg.eigh(self.matrix.T @ self.matrix)
        rms = np.sqrt(np.maximum(energy[::-1], 0) / len(self.matrix))
        return rms[:MAX_RANK], vectors[:, ::-1]

    def above(self, floor: float) -> tuple[np.ndarray, np.ndarray]:
        """Quantized entries, int64 [r, n], of the r directions with a root mean square over `floor`, and the
        least-squares coefficients for them, float64 [m, r].
        """
        rms, vectors = self.directions
        rank = int((rms > floor).sum())
        if rank not in self.written:
            chosen = vectors[:, :rank].T
            largest = np.abs(chosen).max(axis=1, keepdims=True, initial=1e-300)
            entries = np.rint(chosen / largest * ENTRY_MAX).astype(np.int64)
            directions = entries / np.sqrt((entries**2).sum(axis=1, keepdims=True))
            self.written[rank] = entries, self.matrix @ np.linalg.pinv(directions)
        return self.written[rank]


class Spectral:
    """Body: step (bfloat16), shifts, directions of each tensor, values of each level of each direction
    (varints, each direction's ended by 0), entries, signs, gaps. Nothing for a vector of zeros.
    """

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.size, self.places = config, layout.size, places(layout)
        # What a body may take at most is a setting, so a bound for all settings has to be one too.
        self.max_body_bytes = max(PACKET_BYTES, MAX_BITS_PER_VALUE * layout.size // 8)
        wanted = config.max_bytes or max(64, int(config.bits_per_value * layout.size / 8))
        self.max_bytes = min(wanted, self.max_body_bytes)

    def encode(self, vector: np.ndarray) -> bytes:
        vector = require_finite(vector)
        rms = float(np.sqrt(np.square(vector, dtype=np.float64).mean())) if vector.size else 0.0
        if rms < LEAST_RMS:
            return b""
        spectra = [Spectrum(p.matrix(vector).astype(np.float64)) for p in self.places]
        body = self._fitting(spectra, rms)
        # Where no direction stands out of the water, the largest values of all of them do.
        body = (
            body or self._finest(rms / 32, rms * 32, lambda step: self._body(spectra, step, 0))[1]
        )
        is_better = np.square(vector - self.decode(body), dtype=np.float64).mean() <= rms**2
        return body if is_better else b""

    def _fitting(self, spectra: list[Spectrum], rms: float) -> bytes:
        depth = self.config.depth
        step, body = self._finest(
            rms / 32, rms * 32, lambda step: self._body(spectra, step, depth * step)
        )
        # The directions that this step pays for may leave a few bytes: they go into a finer one.
        floor = depth * step
        _, finer = self._finest(step / 2, step, lambda step: self._body(spectra, step, floor))
        return finer or body

    def _finest(
        self, low: float, high: float, body_at: Callable[[float], bytes]
    ) -> tuple[float, bytes]:
        """Finest step from `low` to `high`, to 1 %, whose body is within the bound, and that body; else
        `high` and b"".
        """
        found = body_at(low)
        if len(found) <= self.max_bytes:
            return low, found
        found = b""
        while high > 1.01 * low:
            step = float(np.sqrt(low * high))
            body = body_at(step)
            if len(body) <= self.max_bytes:
                high, found = step, body
            else:
                low = step
        return high, found

    def _body(self, spectra: list[Spectrum], wanted_step: float, floor: float) -> bytes:
        code = rounded(np.array([wanted_step], np.float32))
        step = float(widened(code)[0])
        drafts = [s.above(floor) for s in spectra]
        ranks = np.array([len(entries) for entries, _ in drafts], np.uint8)
        series = [
            np.concatenate([fit[:, j] for _, fit in drafts if fit.shape[1] > j]) / step
            for j in range(int(ranks.max(initial=0)))
        ]
        levels = [
            np.minimum(np.abs(s) + (0.5 - self.config.dead_zone), MAX_LEVEL).astype(np.int64)
            for s in series
        ]
        if not any(level.any() for level in levels):
            return b""
        counts, widths, gaps = written(levels)
        level, value = np.concatenate([*levels, []]), np.concatenate([*series, []])
        off = np.abs(value) - level
        entries = np.concatenate([e.ravel() for e, _ in drafts]) + ENTRY_MAX
        return b"".join(
            [
                code.astype("<u2").tobytes(),
                bytes([shift(off[level == 1]), shift(off[level > 1])]),
                pack(ranks, RANK_BITS),
                varints(counts),
                pack(entries.astype(np.uint8), ENTRY_BITS),
                pack((value[level > 0] < 0).astype(np.uint8), 1),
                _golomb.encode(gaps, widths),
            ]
        )

    def decode(self, body: bytes) -> np.ndarray:
        if not body:
            return np.zeros(self.size, np.float32)
        at = 4 + RANK_BITS * -(-len(self.places) // 8)
        if len(body) < at:
            raise CodecError(f"{len(body)} bytes, expected {at} or more")
        held, sizes = self._held(unpack(body[4:at], RANK_BITS, len(self.places)).tolist())
        spans = [sum(place.m for place, _ in strongest) for strongest in held]
        counts, rest = read_counts(memoryview(body)[at:], spans)
        num_signs = sum(c[0] for c in counts if c)
        signs_at = ENTRY_BITS * -(-sum(sizes) // 8)
        levels_at = signs_at + -(-num_signs // 8)
        entries = unpack(rest[:signs_at], ENTRY_BITS, sum(sizes))
        is_negative = unpack(rest[signs_at:levels_at], 1, num_signs)
        levels = read(rest[levels_at:], spans, counts)
        most = max(map(len, counts), default=0)
        sign = np.zeros(levels.size, np.uint8)
        np.place(sign, levels.astype(np.bool_), is_negative)
        with np.errstate(over="ignore", invalid="ignore"):
            table = coefficients(body, most)
            vector = self._products(table, levels + most * sign, units(entries, sizes), held)
        # No entry of a direction is above 1, nor are there so many directions.
        if (largest := table.max()) > HUGE and not np.isfinite(vector).all():
            raise CodecError(f"coefficients up to {largest} lead to values that are not finite")
        return vector

    def _held(self, ranks: list[int]) -> tuple[list[list[tuple[Place, int]]], list[int]]:
        """Places that have a first direction, a second and so on, each with the offset of its entries; and
        the number of entries of each direction, in the order of the body. Raises CodecError.
        """
        held: list[list[tuple[Place, int]]] = [[] for _ in range(max(ranks, default=0))]
        sizes, at = [], 0
        for place, rank in zip(self.places, ranks, strict=True):
            if rank > place.n:
                raise CodecError(f"{rank} directions of a matrix that has {place.n}")
            for directions in held[:rank]:
                directions.append((place, at))
                sizes.append(place.n)
                at += place.n
        return held, sizes

    def _products(
        self,
        table: np.ndarray,
        codes: np.ndarray,
        units: np.ndarray,
        held: list[list[tuple[Place, int]]],
    ) -> np.ndarray:
        """C V^T of every tensor, one direction after the other: an order no library chooses."""
        vector, start = np.zeros(self.size, np.float32), 0
        codes = codes.astype(np.intp)
        for number, directions in enumerate(held):
            for place, at in directions:
                column, row = codes[start : start + place.m], units[at : at + place.n]
                part = vector[place.start : place.start + place.m * place.n]
                if number:
                    part += place.product(table, column, row, np.empty_like(part))
                else:
                    place.product(table, column, row, part)
                start += place.m
        return vector


def coefficients(body: bytes, most: int) -> np.ndarray:
    """Entries of C by their codes, float32 [1 + 2 * most]: 0, then levels 1 to `most`, then these negative.

    Raises CodecError.
    """
    (step,) = struct.unpack("<f", b"\0\0" + body[:2])  # a bfloat16 is the upper half of a float32
    if not isfinite(step):
        raise CodecError(f"a step of {step}")
    shifts = np.frombuffer(body[2:4], np.int8).tolist()
    # Exact in float64, and but for the step's own size in float32: levels and shifts are short.
    sizes = [(level + shifts[level > 1] / SHIFTS) * step for level in range(1, most + 1)]
    # Also of the sign of 0 a decoder has no choice: a negative step, which nobody writes, gives -0.0.
    return np.array([0.0 * step, *sizes, *(-size for size in sizes)], np.float32)


def units(entries: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Directions, so many entries each, as float32 of length 1: integers sum, and roots round, alike
    everywhere.
    """
    if not sizes:
        return np.zeros(0, np.float32)
    starts = list(accumulate(sizes[:-1], initial=0))
    signed = entries.astype(np.int32) - ENTRY_MAX
    squares = np.add.reduceat(signed * signed, starts)
    lengths = np.sqrt(np.maximum(squares, 1).astype(np.float32))
    return signed.astype(np.float32) / lengths.repeat(sizes)


def shift(off: np.ndarray) -> int:
    """The mean of what levels are off by, steps, as a byte (two's complement)."""
    mean = float(off.mean()) if off.size else 0.0
    return int(np.clip(np.rint(mean * SHIFTS), -128, 127)) & 255
