"""Small numbers as bits, and large ones as varints. Knows no codec."""

from collections.abc import Iterable

import numpy as np

from fleetfl.codecs import CodecError

MAX_VARINT_BYTES = 5
PLACE_VALUES = np.array([1 << bit for bit in range(8)], np.uint8)


def pack(values: np.ndarray, bits: int) -> bytes:
    """uint8 [N] below 2**bits as `bits` planes of one bit a value, lowest first: bits * ceil(N / 8) bytes."""
    planes = (np.packbits(values & (1 << bit), bitorder="little") for bit in range(bits))
    return b"".join(plane.tobytes() for plane in planes)


def unpack(data: bytes | memoryview, bits: int, count: int) -> np.ndarray:
    """Values, uint8 [count], that `pack` wrote. Raises CodecError if `data` is not so long."""
    expected = bits * -(-count // 8)
    if len(data) != expected:
        raise CodecError(f"{len(data)} bytes for {count} values of {bits} bits, not {expected}")
    planes = np.frombuffer(data, np.uint8).reshape(bits, -1)
    return PLACE_VALUES[:bits] @ np.unpackbits(planes, axis=1, count=count, bitorder="little")


def varints(numbers: Iterable[int]) -> bytes:
    """Numbers from 0, seven bits a byte, lowest first; the top bit says that more follows (LEB128)."""
    out = bytearray()
    for number in numbers:
        rest = number
        while rest > 127:
            out.append(rest & 127 | 128)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def read_varints(data: bytes | memoryview, count: int) -> tuple[list[int], memoryview]:
    """The next `count` varints of `data`, and the bytes after them. Raises CodecError."""
    numbers, at = [], 0
    for _ in range(count):
        number, at = read_varint(data, at)
        numbers.append(number)
    return numbers, memoryview(data)[at:]


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """The number at offset `at`, and the offset after it. Raises CodecError."""
    number = 0
    for place, byte in enumerate(data[at : at + MAX_VARINT_BYTES]):
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at + place + 1
    if at + MAX_VARINT_BYTES <= len(data):
        raise CodecError(f"number of more than {MAX_VARINT_BYTES} bytes")
    raise CodecError(f"{len(data)} bytes end within a number")
