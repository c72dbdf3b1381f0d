"""Small numbers, most of them 0, as the places of those of level 1 and more, among these of level 2
and more, and so on. Knows no vector and no codec.

Each such set is written by Golomb-Rice gaps between its places, or between those of the rest where that
is the rarer one.
"""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from fleetfl.codecs import CodecError, _golomb
from fleetfl.codecs._planes import read_varint

MAX_LEVEL = 127


@dataclass(frozen=True)
class Plane:
    """Split of `span` numbers of one level or more: `count` of them are of the next level or more."""

    count: int
    span: int

    @property
    def marks_the_above(self) -> bool:
        """Whether the `count` numbers' places are written; else those of the rarer rest are."""
        return 2 * self.count <= self.span

    @property
    def num_marked(self) -> int:
        return self.count if self.marks_the_above else self.span - self.count

    @property
    def width(self) -> int:
        """Golomb-Rice width in bits for the gaps between the written places."""
        return _golomb.width(self.num_marked, self.span)


def written(series: list[np.ndarray]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Series of levels as (counts, each series' ended by 0; Golomb widths; gaps)."""
    counts: list[int] = []
    widths, gaps = [np.zeros(0, np.uint8)], [np.zeros(0, np.int64)]
    for levels in series:
        rest = levels
        while rest.size:
            is_above = rest > 0
            plane = Plane(int(is_above.sum()), rest.size)
            counts.append(plane.count)
            if not plane.count:
                break
            spots = np.flatnonzero(is_above == plane.marks_the_above)
            gaps.append(np.diff(spots, prepend=-1) - 1)
            widths.append(np.full(spots.size, plane.width, np.uint8))
            rest = rest[is_above] - 1
    return counts, np.concatenate(widths), np.concatenate(gaps)


def read_counts(data: memoryview, spans: list[int]) -> tuple[list[list[int]], memoryview]:
    """Numbers of level 1 and more, 2 and more, ... of each series, and the bytes after them.

    Raises CodecError.
    """
    at, counts = 0, []
    for span in spans:
        mine: list[int] = []
        most = span
        while most:
            count, at = read_varint(data, at)
            if count > most or (count and len(mine) == MAX_LEVEL):
                raise CodecError(f"{count} of {most} values of level {len(mine) + 1} or more")
            if not count:
                break
            mine.append(count)
            most = count
        counts.append(mine)
    return counts, data[at:]


def read(data: memoryview, spans: list[int], counts: list[list[int]]) -> np.ndarray:
    """The levels of all series, one after the other, uint8. Raises CodecError."""
    nested = [
        [Plane(count, most) for most, count in zip([span, *mine], mine, strict=False)]
        for span, mine in zip(spans, counts, strict=True)
    ]
    above = iter(_sets([plane for planes in nested for plane in planes], data))
    levels = [
        _level([next(above) for _ in planes]) if planes else np.zeros(span, np.uint8)
        for span, planes in zip(spans, nested, strict=True)
    ]
    return np.concatenate([*levels, np.zeros(0, np.uint8)])


def _sets(planes: list[Plane], data: memoryview) -> list[np.ndarray]:
    """Mask for each plane, bool [span], of its numbers of the next level. Raises CodecError."""
    marked = [plane.num_marked for plane in planes]
    starts = list(accumulate((plane.span for plane in planes), initial=0))
    gaps = _golomb.decode(data, marked, [plane.width for plane in planes], starts[-1])
    # Each place counted on from those of the planes before it.
    steps = np.zeros(gaps.size + 1, np.int64)
    (gaps + 1).cumsum(out=steps[1:])
    passed = steps[list(accumulate(marked, initial=0))].tolist()
    for plane, begin, end in zip(planes, passed, passed[1:], strict=False):
        if end - begin > plane.span:
            raise CodecError(f"place {end - begin - 1} of {plane.span}")
    shifts = [start - begin - 1 for start, begin in zip(starts, passed, strict=False)]
    is_above = np.zeros(starts[-1], np.bool_)
    # Of a type that is said: of no planes at all numpy would make floats.
    is_above[steps[1:] + np.repeat(np.array(shifts[: len(marked)], np.int64), marked)] = True
    sets = [
        is_above[start : start + plane.span] for start, plane in zip(starts, planes, strict=False)
    ]
    return [s if plane.marks_the_above else ~s for s, plane in zip(sets, planes, strict=True)]


def _level(above: list[np.ndarray]) -> np.ndarray:
    """Levels, uint8, from nested masks: of all numbers those of level 1 or more, of these those of 2 or
    more, ...
    """
    *outer, innermost = above
    level = innermost.view(np.uint8)
    for is_above in reversed(outer):
        inner, level = level, is_above.astype(np.uint8)
        np.place(level, is_above, inner + 1)
    return level
