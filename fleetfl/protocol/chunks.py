r"""Splits a frame too large for a broker into chunks, and puts it together. Knows no broker and no clock.

offset 0   b"FFC\x02"
       4   transfer: first 8 bytes of the frame's SHA-256, so a frame sent again goes on where it was cut
      12   index  u16, big-endian as all here
      14   count  u16
      16   total  u32, bytes of the frame
      20   CRC-32 u32, of the data
      24   data: ceil(total / count) bytes; the last chunk has the rest
"""

import struct
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import heapify, heappop, heappush
from zlib import crc32

from fleetfl.protocol.wire import MAX_FRAME_BYTES, WireError

MAGIC = b"FFC\x02"
HEADER = struct.Struct(">4s8sHHII")
MAX_COUNT = 2**16 - 1
TRANSFER_COST, CHUNK_COST = 1024, 256
"""Memory, bytes, of a transfer and of a chunk beside their data, rounded up."""


def split(frame: bytes, max_bytes: int) -> list[bytes]:
    """Payloads of at most `max_bytes`: the frame itself if it fits, else its chunks in order.

    Raises ValueError if that would take more than 65,535 of them.
    """
    if len(frame) <= max_bytes:
        return [frame]
    room = max_bytes - HEADER.size
    count = -(-len(frame) // room) if room > 0 else MAX_COUNT + 1
    if count > MAX_COUNT:
        raise ValueError(f"{len(frame)} bytes do not fit in {MAX_COUNT} chunks of {max_bytes}")
    size = -(-len(frame) // count)
    transfer = sha256(frame).digest()[:8]
    pieces = [frame[at : at + size] for at in range(0, len(frame), size)]
    return [
        HEADER.pack(MAGIC, transfer, index, count, len(frame), crc32(data)) + data
        for index, data in enumerate(pieces)
    ]


@dataclass(frozen=True)
class Chunk:
    """One chunk of a frame, taken apart and checked."""

    transfer: bytes
    """First 8 bytes of the whole frame's SHA-256."""
    index: int
    """Place of the chunk in its frame, from 0."""
    count: int
    """Number of chunks of the frame."""
    total: int
    """Size of the whole frame, bytes."""
    data: bytes
    """The chunk's part of the frame."""

    @classmethod
    def read(cls, payload: bytes, max_frame_bytes: int = MAX_FRAME_BYTES) -> "Chunk":
        """The chunk in a payload. Raises WireError unless length, place and checksum agree with one
        another.
        """
        if len(payload) < HEADER.size or payload[:4] != MAGIC:
            raise WireError(f"chunk of {len(payload)} bytes starts with {payload[:4]!r}")
        _, transfer, index, count, total, checksum = HEADER.unpack_from(payload)
        where = f"chunk {index} of {count} of {total} bytes"
        if not (index < count and 2 <= count <= total <= max_frame_bytes):
            raise WireError(f"{where}, expected 2 or more, of at most {max_frame_bytes} bytes")
        size = -(-total // count)
        if (count - 1) * size >= total:
            raise WireError(f"{where}, which {-(-total // size)} hold")
        expected = min(size, total - index * size)
        data = payload[HEADER.size :]
        if len(data) != expected:
            raise WireError(f"{where} has {len(data)} bytes of data, expected {expected}")
        if crc32(data) != checksum:
            raise WireError(f"{where} has CRC-32 {crc32(data):08x}, expected {checksum:08x}")
        return cls(transfer, index, count, total, data)


_Key = tuple[str, bytes, int, int]
"""Key of an open transfer: sender, transfer, count and total."""


@dataclass
class _Transfer:
    touched_s: float
    cost: int
    data: dict[int, bytes] = field(default_factory=dict)
    """Data of the chunks that arrived, by their index."""


@dataclass
class _Sender:
    number: int
    cost: int = 0
    transfers: OrderedDict[_Key, None] = field(default_factory=OrderedDict)
    """Keys of the sender's open transfers; the one touched last is last."""


class Assembler:
    """Puts frames together, each sender's apart from the others'. Bounded in memory and in time.

    The cost of a chunk does not grow with the number of senders. `drops` counts transfers given up, by
    reason: `damaged` (a chunk or a whole that does not hash, or is too large), `superseded` (its sender began
    too many others), `late` (nothing came for `ttl_s`), `memory`.
    """

    def __init__(
        self,
        *,
        max_open_per_sender: int = 2,
        max_bytes: int = MAX_FRAME_BYTES,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        ttl_s: float = 600.0,
    ) -> None:
        self.max_open_per_sender, self.max_bytes, self.ttl_s = max_open_per_sender, max_bytes, ttl_s
        self.max_frame_bytes = max_frame_bytes
        self.open: OrderedDict[_Key, _Transfer] = OrderedDict()
        """Open transfers of all senders; the one touched last is last."""
        self.senders: dict[str, _Sender] = {}
        self.num_senders = 0
        """Number of senders met so far."""
        self.greedy: list[tuple[int, int, _Sender]] = []
        """Heap of (-cost, number, sender); outdated entries stay until they come up, beside the present
        ones."""
        self.held_bytes = 0
        self.drops: Counter[str] = Counter()

    def add(self, sender: str, payload: bytes, now_s: float) -> bytes | None:
        """The whole frame once this payload completes it; at once if it is not a chunk.

        Chunks may come in any order, repeated, and between those of another frame.
        Raises WireError for a damaged chunk, or a whole that is not what its chunks announced.
        """
        if payload[:4] != MAGIC:
            return payload
        self._drop_late(now_s)
        try:
            chunk = Chunk.read(payload, self.max_frame_bytes)
            self._require_room_for(sender, chunk)
        except WireError:
            self.drops["damaged"] += 1
            raise
        key = (sender, chunk.transfer, chunk.count, chunk.total)
        self._keep(key, chunk, now_s)
        transfer = self.open.get(key)
        if transfer is None or len(transfer.data) < chunk.count:
            return None
        self._forget(key)
        frame = b"".join(transfer.data[index] for index in range(chunk.count))
        if sha256(frame).digest()[:8] != chunk.transfer:
            self.drops["damaged"] += 1
            raise WireError(f"{chunk.count} chunks make {chunk.total} bytes that do not hash right")
        return frame

    def _require_room_for(self, sender: str, chunk: Chunk) -> None:
        needed = chunk.total + chunk.count * CHUNK_COST + 8 * len(sender) + TRANSFER_COST
        if needed > self.max_bytes:
            raise WireError(
                f"{chunk.count} chunks of {chunk.total} bytes take {needed} bytes of memory, "
                f"expected at most {self.max_bytes}"
            )

    def _keep(self, key: _Key, chunk: Chunk, now_s: float) -> None:
        sender = key[0]
        if key not in self.open:
            known = self.senders.get(sender)
            if known is not None and len(known.transfers) >= self.max_open_per_sender:
                self._drop(next(iter(known.transfers)), "superseded")
            if sender not in self.senders:
                self.num_senders += 1
                self.senders[sender] = _Sender(self.num_senders)
            # A name comes from a topic, which may be long: four bytes a character, kept twice.
            cost = TRANSFER_COST + 8 * len(sender)
            self.open[key] = _Transfer(now_s, cost)
            self.senders[sender].transfers[key] = None
            self._hold(sender, cost)
        transfer = self.open[key]
        if chunk.index not in transfer.data:
            transfer.cost += len(chunk.data) + CHUNK_COST
            self._hold(sender, len(chunk.data) + CHUNK_COST)
        # A repeat replaces: if it differs, the hash of the whole tells which was right.
        transfer.data[chunk.index] = chunk.data
        transfer.touched_s = now_s
        self.open.move_to_end(key)
        self.senders[sender].transfers.move_to_end(key)
        while self.held_bytes > self.max_bytes:
            # Whoever holds most gives way, so that one sender cannot crowd out the others.
            self._drop(next(iter(self._greediest().transfers)), "memory")

    def _greediest(self) -> "_Sender":
        while -self.greedy[0][0] != self.greedy[0][2].cost:
            heappop(self.greedy)
        return self.greedy[0][2]

    def _drop_late(self, now_s: float) -> None:
        while self.open:
            key, transfer = next(iter(self.open.items()))
            if now_s - transfer.touched_s <= self.ttl_s:
                return
            self._drop(key, "late")

    def _drop(self, key: _Key, reason: str) -> None:
        self._forget(key)
        self.drops[reason] += 1

    def _forget(self, key: _Key) -> None:
        sender = key[0]
        del self.senders[sender].transfers[key]
        self._hold(sender, -self.open.pop(key).cost)
        if not self.senders[sender].transfers:
            del self.senders[sender]

    def _hold(self, name: str, cost: int) -> None:
        self.held_bytes += cost
        sender = self.senders[name]
        sender.cost += cost
        heappush(self.greedy, (-sender.cost, sender.number, sender))
        if len(self.greedy) > 2 * len(self.senders) + 64:  # mostly of older costs
            self.greedy = [(-each.cost, each.number, each) for each in self.senders.values()]
            heapify(self.greedy)

    @property
    def cost(self) -> Counter[str]:
        """Bytes held, by sender."""
        return Counter({name: sender.cost for name, sender in self.senders.items()})
