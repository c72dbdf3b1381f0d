"""Moving bytes between vehicles and server. Knows neither what they mean nor what topics exist."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from fleetfl import FleetflError
from fleetfl.plugins import PluginConfig


class TransportError(FleetflError, ConnectionError):
    """No answer from the other side; the message names it, what was tried and what to do."""


class PacketRefused(TransportError):
    """The connection broke each time this one packet was sent, so it is probably the packet."""


def _nothing() -> None:
    """QoS 0 has no acknowledgement."""


@dataclass(frozen=True)
class Packet:
    topic: str
    payload: bytes
    retained: bool = False
    """The newest value at the time of subscribing, not something published since."""

    on_ack: Callable[[], None] = field(default=_nothing, repr=False, compare=False)
    """How the transport that brought the packet acknowledges it."""

    def ack(self) -> None:
        """Let the broker forget this packet; without it the broker sends it again, to a session.

        May be called again and from any thread. After a disconnect it does nothing.
        """
        self.on_ack()


@dataclass(frozen=True)
class Will:
    """What the broker publishes (retained, QoS 1) when a client goes without a goodbye."""

    topic: str
    payload: bytes


class Transport(Protocol):
    """A client that stays connected. At least once: a packet may come twice and must do no harm."""

    @property
    def is_connected(self) -> bool: ...

    async def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, timeout_s: float = 30.0
    ) -> None:
        """Return once the broker has acknowledged it (QoS 1); wait for the connection if need be.

        An empty retained payload clears the topic. Raises TransportError after `timeout_s`; the
        packet may have arrived all the same. Raises ValueError for what can never be sent.
        """
        ...

    def subscribe(self, topic_filter: str) -> AbstractAsyncContextManager[AsyncIterator[Packet]]:
        """Packets from now on, after the retained ones; `+` and `#` as in MQTT.

        Survives reconnects. A session (`clean_session=False`) keeps the subscription when the
        context is left, so that nothing is missed until its client is back. Raises TransportError
        if the broker refuses the filter, and from the iterator if it does so at a reconnect.
        """
        ...


class TransportConfig(PluginConfig):
    """Settings of one kind; `connect` gives a connected Transport."""

    def connect(
        self,
        client_id: str,
        *,
        clean_session: bool = True,
        will: Will | None = None,
        patience_s: float = 10.0,
    ) -> AbstractAsyncContextManager[Transport]:
        """Connected until the context is left; leaving it by an exception publishes the will.

        Raises TransportError if the first connection does not come within `patience_s`
        (math.inf waits for ever); lost connections are mended without a word to the caller.
        """
        raise NotImplementedError
