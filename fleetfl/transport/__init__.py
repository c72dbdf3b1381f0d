"""Moving bytes between vehicles and server. Knows neither what they mean nor what topics exist."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fleetfl import FleetflError
from fleetfl.plugins import PluginConfig


class TransportError(FleetflError, ConnectionError):
    """No answer from the other side; the message names it, what was tried and what to do."""


class PacketRefused(TransportError):
    """The connection broke each time this one packet was sent, so it is probably the packet."""


def _nothing() -> None:
    """QoS 0 has no acknowledgement."""


QoS = Literal[0, 1]
"""0: at most once, and never kept for a client that is away. 1: at least once."""


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


def mqtt_publish_bytes(topic: str, payload_bytes: int) -> int:
    """Bytes that publishing once at QoS 1 puts on an MQTT 3.1.1 connection: the PUBLISH packet.

    TCP, TLS and the PUBACK of 4 bytes that comes back are not in it.
    """
    rest = 2 + len(topic.encode()) + 2 + payload_bytes  # length of the topic; packet identifier
    length_bytes = 1 + (rest >= 2**7) + (rest >= 2**14) + (rest >= 2**21)
    return 1 + length_bytes + rest


class Transport(Protocol):
    """A client that stays connected. At least once: a packet may come twice and must do no harm."""

    @property
    def is_connected(self) -> bool: ...

    @property
    def max_payload_bytes(self) -> int:
        """Larger payloads are not published."""
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
        """Packets from now on, after the retained ones; `+` and `#` as in MQTT.

        Survives reconnects, at each of which the retained packets come again. With QoS 1 a session
        (`clean_session=False`) keeps the subscription when the context is left, so that nothing is
        missed until its client is back; with QoS 0 nothing is kept and leaving ends it. Raises
        TransportError if the broker refuses the filter, and from the iterator if it does so at a
        reconnect.
        """
        ...


class TransportConfig(PluginConfig):
    """Settings of one kind; `connect` gives a connected Transport."""

    async def forget(self, client_id: str, *, patience_s: float = 10.0) -> bool:
        """Have the broker drop the session of a client that does not come back; whether it answered."""
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
        """Connected until the context is left; leaving it by an exception publishes the will.

        Raises TransportError if the first connection does not come within `patience_s`
        (math.inf waits for ever); lost connections are mended without a word to the caller.
        """
        raise NotImplementedError
