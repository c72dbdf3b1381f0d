"""Walks msgpack bytes without recursion and without decoding values. Knows no message.

A parser in C goes one call deeper for each level, so what came from outside is looked at here first.
"""

from typing import NamedTuple

MAX_DEPTH = 8
"""Most levels of nesting below a message's own; no message has more than one."""
MAX_ITEMS = 1024
"""Most values in a message. A status that counts 64 outcomes has 140."""
MAX_HEAD_CHARS = 64
"""Longest text, characters, that `fields` gives."""


class ShapeError(ValueError):
    """The bytes are no msgpack, or are nested deeper or hold more values than any message."""


class _Kind(NamedTuple):
    """Layout of a value, which its first byte decides."""

    size: int
    """Bytes of the value up to the end of its length, or all of them if it has no length."""
    width: int
    """Bytes of the length at the end of those, a number of bytes or values that follow; 0 without one."""
    values: int
    """Number of values that follow, for each that the length counts if there is one; 0 if it counts bytes."""
    extra: int = 0
    """Bytes that follow besides those that the length counts."""


def _kinds() -> list[_Kind | None]:
    kinds: list[_Kind | None] = [_Kind(1, 0, 0)] * 256
    for low in range(16):
        kinds[0x80 + low], kinds[0x90 + low] = _Kind(1, 0, 2 * low), _Kind(1, 0, low)
    for low in range(32):
        kinds[0xA0 + low] = _Kind(1 + low, 0, 0)
    kinds[0xC1] = None
    for power in range(3):
        width = 1 << power
        kinds[0xC4 + power] = kinds[0xD9 + power] = _Kind(1 + width, width, 0)
        kinds[0xC7 + power] = _Kind(1 + width, width, 0, extra=1)
    kinds[0xCA], kinds[0xCB] = _Kind(5, 0, 0), _Kind(9, 0, 0)
    for power in range(4):
        kinds[0xCC + power] = kinds[0xD0 + power] = _Kind(1 + (1 << power), 0, 0)
    for power in range(5):
        kinds[0xD4 + power] = _Kind(2 + (1 << power), 0, 0)
    for power in range(2):
        width = 2 << power
        kinds[0xDC + power], kinds[0xDE + power] = (
            _Kind(1 + width, width, 1),
            _Kind(1 + width, width, 2),
        )
    return kinds


_KINDS = _kinds()


def require_flat(data: bytes | memoryview) -> None:
    """Raises ShapeError unless `data` is one whole value of bounded depth and size with nothing after it."""
    at, left, levels, num_left = 0, 1, [], MAX_ITEMS
    while True:
        while left:
            left -= 1
            num_left -= 1
            if num_left < 0:
                raise ShapeError(f"more than {MAX_ITEMS} values")
            at, values = _read(data, at)
            if values:
                levels.append(left)
                left = values
                if len(levels) > MAX_DEPTH + 1:
                    raise ShapeError(f"nested more than {MAX_DEPTH} levels deep")
        if not levels:
            break
        left = levels.pop()
    if at != len(data):
        raise ShapeError(f"{len(data) - at} bytes follow the message")


def fields(data: bytes | memoryview, count: int) -> list[int | str | bytes | None]:
    """The first `count` fields of an array: small integers, short texts and bytes; None for all others.

    Anything may follow them. There are fewer if the array has fewer or is cut off; nothing is raised.
    """
    found: list[int | str | bytes | None] = []
    try:
        at, values = _read(data, 0)
        if not 0x90 <= data[0] <= 0x9F and data[0] not in (0xDC, 0xDD):
            return []
        for _ in range(min(count, values)):
            start = at
            at, inner = _read(data, start)
            if inner:
                return found
            found.append(_plain(bytes(data[start : min(at, start + 300)])))
    except (ShapeError, IndexError):
        pass
    return found


def _plain(value: bytes) -> int | str | bytes | None:
    first = value[0]
    if first < 0x80:
        return first
    if 0xCC <= first <= 0xCF:
        return int.from_bytes(value[1:], "big")
    if 0xA0 <= first <= 0xBF or first == 0xD9:
        text = value[1 + (first == 0xD9) :].decode(errors="replace")
        return text if len(text) <= MAX_HEAD_CHARS and "�" not in text else None
    if first == 0xC4:
        return value[2:]
    return None


def _read(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Offset at which the value at `at` ends or its inner values begin, and their number."""
    if at >= len(data):
        raise ShapeError("the message is cut off")
    kind = _KINDS[data[at]]
    if kind is None:
        raise ShapeError("a byte that begins no value")
    size, width, values, extra = kind
    end = at + size
    if width:
        number = int.from_bytes(data[end - width : end], "big")
        if values:
            values *= number
        else:
            end += number + extra
    if end > len(data):
        raise ShapeError("the message is cut off")
    return end, values
