"""A bad network as a TCP proxy: slow, late, cut, refusing, half-open, at the turn of a switch.

It knows nothing of what it carries. No byte is lost, changed or moved before another unless a fault
asked for does so.
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
"""From who connects to the target, and back."""

SEGMENT_BYTES = 4096
"""Read and written at a time; less on links that need long for it."""
IN_TRANSIT_BYTES = 2**20
"""Each way and connection, while `delay_s` holds them; then the sender has to wait."""
SOCKET_BUFFER_BYTES = 16 * 1024
"""Small, so that a throttled link throttles the sender and does not take everything at once."""


@dataclass(frozen=True)
class Conditions:
    """What the network is like, for all connections together."""

    up_bytes_per_s: float = math.inf
    """0 holds everything back, without losing it, until that changes: a tunnel."""
    down_bytes_per_s: float = math.inf
    delay_s: float = 0.0
    """Each way."""
    refuses: bool = False
    """New connections are reset at once; those that are there stay."""
    half_open: bool = False
    """Everything vanishes, and nobody is told. A connection that met this stays so for good, as one
    does that a router has forgotten."""

    def rate_per_s(self, direction: Direction) -> float:
        return self.up_bytes_per_s if direction == "up" else self.down_bytes_per_s


class Proxy:
    """Lives in a thread of its own. `set`, `heal` and `cut` may be called from any other one."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        """The server behind; need not be there."""
        self.host, self.port = "127.0.0.1", 0
        self.conditions = Conditions()
        self.connections: set[_Connection] = set()
        self.loop = asyncio.new_event_loop()
        self.change = asyncio.Event()
        self.free_at: dict[Direction, float] = {"up": 0.0, "down": 0.0}
        """When the link has carried what it was given, in the loop's time."""

    def set(self, **conditions: Any) -> None:
        """Change these fields of `Conditions`; it is so on return."""
        self._in_thread(self._set, conditions)

    def heal(self) -> None:
        """As at the beginning; connections that were forgotten are not remembered."""
        self.set(**vars(Conditions()))

    def cut(self) -> None:
        """Reset all connections; what is on its way is lost."""
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
        """A socket on a free port, which `port` is from now on."""
        listening = socket.socket()
        # Before there are connections: the window is agreed upon in the handshake.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        listening.bind((self.host, 0))
        self.port = listening.getsockname()[1]
        return listening

    async def run(self, listening: socket.socket) -> None:
        """Until cancelled."""
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
        """So long (None: for ever), or until the conditions change."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.change.wait(), seconds)

    async def delay(self, sent_at: float) -> None:
        """Return when what was sent then has been on its way for long enough."""
        while (left_s := sent_at + self.conditions.delay_s - self.loop.time()) > 0:
            await self.pause(left_s)

    async def admit(self, at_most: int, direction: Direction) -> int:
        """Return once so many bytes may pass."""
        while (rate := self.conditions.rate_per_s(direction)) == 0:
            await self.pause(None)
        if math.isinf(rate):
            return at_most
        # A tenth of a second's worth, so that a change of the rate is soon felt.
        admitted = min(at_most, max(1, int(rate / 10)))
        now = self.loop.time()
        self.free_at[direction] = max(now, self.free_at[direction]) + admitted / rate
        await self.pause(self.free_at[direction] - now)
        return admitted


class _Connection:
    """One client's, with the one that we make to the target for it."""

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
        """Until both sides have ended, one has failed, or it was reset."""
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
        """Raises OSError."""
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
        """Until the sender has ended."""
        while True:
            segment = await reader.read(SEGMENT_BYTES)
            if not self.connection.is_forgotten:
                await self.transit.put((self.proxy.loop.time(), segment))
            if not segment:
                return

    async def give(self, writer: asyncio.StreamWriter) -> None:
        """Until the receiver has all, and that the sender has ended."""
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
    """A proxy in front of this server, until the context is left; then all connections are reset."""
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
