"""A TCP proxy that makes a network bad on request: slow, late, cut, refusing or half-open.

It does not interpret the bytes that it forwards, and loses, changes or reorders none of them unless a
requested fault does so.
"""

import asyncio
import contextlib
import math
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from fleetfl.task_group import together

Direction = Literal["up", "down"]
"""Direction of bytes: up from the client to the target, down from the target to the client."""

SEGMENT_BYTES = 4096
"""Bytes read and written at a time; fewer on slow links."""
IN_TRANSIT_BYTES = 2**20
"""Bytes that each direction of a connection holds during `delay_s`; beyond them the sender waits."""
SOCKET_BUFFER_BYTES = 16 * 1024
"""Size of socket buffers; small, so that a throttled link throttles the sender."""


@dataclass(frozen=True)
class Conditions:
    """Network conditions, shared by all connections of a proxy."""

    up_bytes_per_s: float = math.inf
    """Rate of the upward direction; 0 holds all bytes back without losing them, as in a tunnel."""
    down_bytes_per_s: float = math.inf
    """Rate of the downward direction; 0 holds all bytes back without losing them."""
    delay_s: float = 0.0
    """Latency added to each direction, in seconds."""
    refuses: bool = False
    """Whether new connections are reset at once; existing ones stay."""
    half_open: bool = False
    """Whether bytes vanish without an error. A connection affected by this stays so for good, like one that a
    router has forgotten.
    """

    def rate_per_s(self, direction: Direction) -> float:
        return self.up_bytes_per_s if direction == "up" else self.down_bytes_per_s


class Proxy:
    """Proxy in front of one server. It runs in its own thread; `set`, `heal` and `cut` are thread-safe."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        """(host, port) of the server behind the proxy, which may be down."""
        self.host, self.port = "127.0.0.1", 0
        self.conditions = Conditions()
        self.connections: set[_Connection] = set()
        self.loop = asyncio.new_event_loop()
        self.change = asyncio.Event()
        self.free_at: dict[Direction, float] = {"up": 0.0, "down": 0.0}
        """Time at which the link has carried all admitted bytes, on the event loop's clock."""

    def set(self, **conditions: Any) -> None:
        """Change these fields of `Conditions`; they are in force when this returns."""
        self._in_thread(self._set, conditions)

    def heal(self) -> None:
        """Return to perfect conditions; half-open connections stay broken."""
        self.set(**vars(Conditions()))

    def cut(self) -> None:
        """Reset all connections; bytes in transit are lost."""
        self._in_thread(self._cut)

    def _in_thread(self, method: Callable[..., None], *arguments: Any) -> None:
        async def call() -> None:
            method(*arguments)

        asyncio.run_coroutine_threadsafe(call(), self.loop).result()

    def _set(self, conditions: dict[str, Any]) -> None:
        self.conditions = replace(self.conditions, **conditions)
        if self.conditions.half_open:
            for connection in self.connections:
                connection.is_forgotten = True
        self.free_at = {"up": 0.0, "down": 0.0}
        self.change.set()
        self.change = asyncio.Event()

    def _cut(self) -> None:
        for connection in self.connections:
            connection.reset()

    def listen(self) -> socket.socket:
        """Socket bound to a free port, whose number is then in `port`."""
        listening = socket.socket()
        # Set before any connection: the window is agreed upon in the handshake.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        listening.bind((self.host, 0))
        self.port = listening.getsockname()[1]
        return listening

    async def run(self, listening: socket.socket) -> None:
        """Accept and forward connections until cancelled."""
        carrying: set[asyncio.Task[None]] = set()

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._carry(reader, writer), name="proxy.carry")
            carrying.add(task)
            task.add_done_callback(carrying.discard)

        await asyncio.start_server(accepted, sock=listening, limit=SOCKET_BUFFER_BYTES)
        try:
            await asyncio.Event().wait()
        finally:
            listening.close()
            for task in carrying:
                task.cancel()
            await asyncio.gather(*carrying, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, writer)
        connection.is_forgotten = self.conditions.half_open
        self.connections.add(connection)
        try:
            if not self.conditions.refuses:
                await connection.carry(reader)
        finally:
            self.connections.discard(connection)
            connection.reset()

    async def pause(self, seconds: float | None) -> None:
        """Wait for `seconds` (None: for ever), or until the conditions change."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.change.wait(), seconds)

    async def delay(self, sent_at: float) -> None:
        """Return when bytes sent at `sent_at` (loop time) have been in transit for `delay_s`."""
        while (left_s := sent_at + self.conditions.delay_s - self.loop.time()) > 0:
            await self.pause(left_s)

    async def admit(self, at_most: int, direction: Direction) -> int:
        """Wait until the rate lets bytes pass; gives how many, up to `at_most`."""
        while (rate := self.conditions.rate_per_s(direction)) == 0:
            await self.pause(None)
        if math.isinf(rate):
            return at_most
        # At most 0.1 s worth of bytes, so that a change of the rate soon takes effect.
        admitted = min(at_most, max(1, int(rate / 10)))
        now = self.loop.time()
        self.free_at[direction] = max(now, self.free_at[direction]) + admitted / rate
        await self.pause(self.free_at[direction] - now)
        return admitted


class _Connection:
    """A client's connection, with the connection to the target that was opened for it."""

    def __init__(self, proxy: Proxy, writer: asyncio.StreamWriter) -> None:
        self.proxy, self.writers = proxy, [writer]
        self.is_forgotten = False
        self.over = asyncio.Event()

    def reset(self) -> None:
        self.over.set()
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):  # closed before
                # Without lingering the other end gets a reset, and not an orderly end.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def carry(self, near: asyncio.StreamReader) -> None:
        """Forward until both sides have ended, one has failed, or the connection is reset."""
        both = asyncio.create_task(self._both_ways(near), name="proxy.both_ways")
        over = asyncio.create_task(self.over.wait(), name="proxy.over")
        try:
            await asyncio.wait({both, over}, return_when=asyncio.FIRST_COMPLETED)
            if self.is_forgotten:
                await over
        finally:
            both.cancel()
            over.cancel()
            await asyncio.gather(both, over, return_exceptions=True)

    async def _both_ways(self, near: asyncio.StreamReader) -> None:
        """Connect to the target and forward both directions. Raises OSError."""
        far, writer = await asyncio.open_connection(*self.proxy.target, limit=SOCKET_BUFFER_BYTES)
        self.writers.append(writer)
        up, down = _Way(self, "up"), _Way(self, "down")
        await together(
            up=up.take(near),
            up_out=up.give(writer),
            down=down.take(far),
            down_out=down.give(self.writers[0]),
        )
        for each in self.writers:
            each.close()
            await each.wait_closed()  # what is still in its buffer leaves first


class _Way:
    """One direction of one connection."""

    def __init__(self, connection: _Connection, direction: Direction) -> None:
        self.connection, self.proxy = connection, connection.proxy
        self.direction: Direction = direction
        self.transit: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(
            IN_TRANSIT_BYTES // SEGMENT_BYTES
        )

    async def take(self, reader: asyncio.StreamReader) -> None:
        """Read from the sender into the queue until the sender has ended."""
        while True:
            segment = await reader.read(SEGMENT_BYTES)
            if not self.connection.is_forgotten:
                await self.transit.put((self.proxy.loop.time(), segment))
            if not segment:
                return

    async def give(self, writer: asyncio.StreamWriter) -> None:
        """Write from the queue until the receiver has every byte and the end of the stream."""
        while True:
            sent_at, segment = await self.transit.get()
            await self.proxy.delay(sent_at)
            if not segment:
                if not self.connection.is_forgotten:
                    writer.write_eof()
                return
            while segment:
                admitted = await self.proxy.admit(len(segment), self.direction)
                if not self.connection.is_forgotten:
                    writer.write(segment[:admitted])
                    await writer.drain()
                segment = segment[admitted:]


@contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """Context with a proxy in front of HOST:PORT; on leaving it all connections are reset."""
    made = Proxy(host, port)
    listening = made.listen()
    listening.listen()
    running = made.loop.create_task(made.run(listening))

    def live() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            made.loop.run_until_complete(running)
        made.loop.close()

    thread = threading.Thread(target=live, name="network-proxy", daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.loop.call_soon_threadsafe(running.cancel)
        thread.join()
