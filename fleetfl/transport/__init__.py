"""Transports move bytes between vehicles and server. They know neither their meaning nor the topics."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fleetfl import FleetflError
from fleetfl.plugins import PluginConfig


class TransportError(FleetflError, ConnectionError):
    """No answer from the other side; the message names it, what was tried and what to do."""


class PacketRefused(TransportError):
    """A packet at which the connection broke each time it was sent, so that it is probably to blame."""


def _nothing() -> None:
    """Acknowledges a packet of QoS 0, which needs nothing."""


QoS = Literal[0, 1]
"""Quality of service. 0: at most once, and never kept for a client that is away. 1: at least once."""


@dataclass(frozen=True)
class Packet:
    """A packet that arrived on a topic."""

    topic: str
    """Topic that it was published to."""
    payload: bytes
    """Payload, the bytes that were published."""
    retained: bool = False
    """Whether it is the topic's newest value at the time of subscribing, rather than published since."""
    on_ack: Callable[[], None] = field(default=_nothing, repr=False, compare=False)
    """Callback by which the transport that brought the packet acknowledges it."""

    def ack(self) -> None:
        """Let the broker forget this packet; without it the broker sends it again, to a session.

        May be called again and from any thread. After a disconnect it does nothing.
        """
        self.on_ack()


@dataclass(frozen=True)
class Will:
    """A packet that the broker publishes (retained, QoS 1) when its client goes without a goodbye."""

    topic: str
    payload: bytes


def mqtt_publish_bytes(topic: str, payload_bytes: int) -> int:
    """Size in bytes of the PUBLISH packet of one message at QoS 1 on an MQTT 3.1.1 connection.

    TCP, TLS and the PUBACK of 4 bytes that comes back are not counted.
    """
    rest = 2 + len(topic.encode()) + 2 + payload_bytes  # length of the topic; packet identifier
    length_bytes = 1 + (rest >= 2**7) + (rest >= 2**14) + (rest >= 2**21)
    return 1 + length_bytes + rest


class Transport(Protocol):
    """A client that stays connected. At least once: a packet may come twice and must do no harm."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to the broker now."""
        ...

    @property
    def max_payload_bytes(self) -> int:
        """Largest payload, bytes, that is published."""
        ...

    async def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, timeout_s: float = 30.0
    ) -> None:
        """Return once the broker has acknowledged it (QoS 1); wait for the connection if need be.

        An empty retained payload clears the topic. Raises TransportError after `timeout_s`; the
        packet may have arrived all the same. Raises ValueError for what can never be sent.
        """
        ...

    def subscribe(
        self, topic_filter: str, *, qos: QoS = 1
    ) -> AbstractAsyncContextManager[AsyncIterator[Packet]]:
        """Context with an iterator of packets from now on, retained ones first; `+` and `#` are MQTT's.

        Survives reconnects, at each of which the retained packets come again. With QoS 1 a session
        (`clean_session=False`) keeps the subscription when the context is left, so that nothing is
        missed until its client is back; with QoS 0 nothing is kept and leaving ends it. Raises
        TransportError if the broker refuses the filter, and from the iterator if it does so at a
        reconnect.
        """
        ...


class TransportConfig(PluginConfig):
    """Settings of one kind of transport; `connect` gives a connected Transport."""

    async def forget(self, client_id: str, *, patience_s: float = 10.0) -> bool:
        """Have the broker drop the session of a client that does not come back; says whether it answered."""
        try:
            async with self.connect(client_id, clean_session=True, patience_s=patience_s):
                return True
        except TransportError:
            return False

    def connect(
        self,
        client_id: str,
        *,
        clean_session: bool = True,
        will: Will | None = None,
        patience_s: float = 10.0,
    ) -> AbstractAsyncContextManager[Transport]:
        """Context with a connected Transport; leaving it by an exception publishes the will.

        Raises TransportError if the first connection does not come within `patience_s`
        (math.inf waits for ever); lost connections are restored without a word to the caller.
        """
        raise NotImplementedError
