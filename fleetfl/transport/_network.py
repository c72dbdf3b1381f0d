"""The network thread, one for all connections of this process. Knows nothing of MQTT.

It has an event loop of its own, so that training in the caller's thread does not stop the keepalives, and
epoll, so that thousands of clients fit in a process (paho's `loop_start` ends at 339: select()).
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


class Network:
    """A thread with an event loop, and threads for calls that block."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        # Name look-ups, TCP and TLS handshakes block.
        self.dialers = ThreadPoolExecutor(32, thread_name_prefix="fleetfl-dial")
        self._thread = threading.Thread(
            target=self.loop.run_forever, name="fleetfl-network", daemon=True
        )
        self._thread.start()

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Call the function in the network thread, soon and in order; may be used from any thread until
        stopped.
        """
        call_in(self.loop, function, *args)

    def stop(self) -> None:
        self.call(self.loop.stop)
        self._thread.join()
        self.loop.close()
        self.dialers.shutdown(wait=False)


def call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    """Call the function in a loop of another thread, as `call_soon_threadsafe`; a closed loop does
    nothing.
    """
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise


class _Shared:
    lock = threading.Lock()
    network: Network | None = None
    num_users = 0


@contextmanager
def shared_network() -> Iterator[Network]:
    """Context with this process's network thread: started for its first user, stopped after its last."""
    with _Shared.lock:
        network = _Shared.network = _Shared.network or Network()
        _Shared.num_users += 1
    try:
        yield network
    finally:
        with _Shared.lock:
            _Shared.num_users -= 1
            if _Shared.num_users == 0:
                _Shared.network = None
                network.stop()
