"""A broker that is a dict in this process: for tests and for simulated fleets.

No thread, no socket and no clock, so it runs on a virtual-time event loop as well. It keeps what a
session (`clean_session=False`) has not acknowledged, as a real broker does.
"""

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from fleetfl.transport import Packet, QoS, Transport, TransportConfig, TransportError, Will
from fleetfl.transport._filters import checked_filter, checked_payload, checked_topic, matches
from fleetfl.transport._inbox import Inbox


class Config(TransportConfig):
    kind: Literal["memory"] = "memory"
    name: str = "default"
    """Which broker of this process; the first to name one makes it."""

    max_payload_bytes: int = Field(default=1_048_576, ge=2_048)
    """Largest payload to publish; larger frames go in chunks."""

    @asynccontextmanager
    async def connect(
        self,
        client_id: str,
        *,
        clean_session: bool = True,
        will: Will | None = None,
        patience_s: float = 10.0,
    ) -> AsyncIterator[Transport]:
        broker = _brokers.setdefault(self.name, Broker())
        async with broker.connect(
            client_id,
            clean_session=clean_session,
            will=will,
            max_payload_bytes=self.max_payload_bytes,
        ) as client:
            yield client


@dataclass
class _Session:
    """What the broker knows of one client id."""

    filters: dict[str, QoS] = field(default_factory=dict)
    unacknowledged: dict[int, Packet] = field(default_factory=dict)
    num_delivered: int = 0
    client: "Client | None" = None

    def qos_for(self, topic: str) -> QoS | None:
        """The highest of the matching filters; None if none matches."""
        matching: list[QoS] = [qos for f, qos in self.filters.items() if matches(f, topic)]
        return max(matching) if matching else None

    def deliver(
        self, topic: str, payload: bytes, *, to: "list[Inbox]", retained: bool, qos: QoS
    ) -> None:
        packet = Packet(topic, payload, retained)
        if qos:
            self.num_delivered += 1
            number = self.num_delivered
            on_ack = functools.partial(self._forget, number)
            packet = self.unacknowledged[number] = Packet(topic, payload, retained, on_ack)
        for inbox in to:
            inbox.put(packet)

    def _forget(self, number: int) -> None:
        self.unacknowledged.pop(number, None)


class Broker:
    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.sessions: dict[str, _Session] = {}

    def num_unacknowledged(self, client_id: str) -> int:
        """Packets the client has or will get, and has not acknowledged."""
        session = self.sessions.get(client_id)
        return len(session.unacknowledged) if session else 0

    @asynccontextmanager
    async def connect(
        self,
        client_id: str,
        *,
        clean_session: bool = True,
        will: Will | None = None,
        max_payload_bytes: int = 1_048_576,
    ) -> AsyncIterator["Client"]:
        """Raises TransportError if the client id is connected already."""
        session = self.sessions.get(client_id, _Session())
        if session.client is not None:
            raise TransportError(f"memory broker: {client_id!r} is connected already")
        if clean_session:
            session = _Session()
        self.sessions[client_id] = session
        client = session.client = Client(
            self, session, will, max_payload_bytes=max_payload_bytes, clean_session=clean_session
        )
        try:
            yield client
        except BaseException:
            client.abort()
            raise
        finally:
            client.close()
            if clean_session:
                del self.sessions[client_id]

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.retained.pop(topic, None)
        for session in list(self.sessions.values()):
            qos = session.qos_for(topic)
            if qos is None:
                continue
            inboxes = session.client.inboxes if session.client else []
            takers = [inbox for inbox in inboxes if matches(inbox.topic_filter, topic)]
            session.deliver(topic, payload, to=takers, retained=False, qos=qos)


class Client:
    def __init__(
        self,
        broker: Broker,
        session: _Session,
        will: Will | None,
        *,
        max_payload_bytes: int,
        clean_session: bool,
    ) -> None:
        self.inboxes: list[Inbox] = []
        self._broker = broker
        self._session = session
        self._will = will
        self.max_payload_bytes = max_payload_bytes
        self._clean_session = clean_session

    @property
    def is_connected(self) -> bool:
        return self._session.client is self

    async def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, timeout_s: float = 30.0
    ) -> None:
        checked_topic(topic)
        checked_payload(payload, self.max_payload_bytes)
        # A network lets others run; a loop of publishes must not starve its subscribers here.
        await asyncio.sleep(0)
        if not self.is_connected:
            raise TransportError(f"memory broker: not connected, {topic!r} not published")
        self._broker.publish(topic, payload, retain=retain)

    @asynccontextmanager
    async def subscribe(
        self, topic_filter: str, *, qos: QoS = 1
    ) -> AsyncIterator[AsyncIterator[Packet]]:
        inbox = Inbox(checked_filter(topic_filter))
        for packet in list(self._session.unacknowledged.values()):
            # What the session kept; what another inbox of this client has is not sent again.
            if matches(topic_filter, packet.topic) and not self._is_claimed(packet.topic):
                inbox.put(packet)
        for topic, payload in list(self._broker.retained.items()):
            if matches(topic_filter, topic):
                self._session.deliver(topic, payload, to=[inbox], retained=True, qos=qos)
        filters = self._session.filters
        is_shared = any(other.topic_filter == topic_filter for other in self.inboxes)
        filters[topic_filter] = max(qos, filters[topic_filter]) if is_shared else qos
        self.inboxes.append(inbox)
        try:
            yield inbox
        finally:
            self.inboxes.remove(inbox)
            if self._clean_session or not qos:
                if all(other.topic_filter != topic_filter for other in self.inboxes):
                    self._session.filters.pop(topic_filter, None)
                for packet in inbox.take_all():
                    packet.ack()

    def _is_claimed(self, topic: str) -> bool:
        return any(matches(inbox.topic_filter, topic) for inbox in self.inboxes)

    def abort(self) -> None:
        """As if the process had been killed: the broker publishes the will."""
        if self.is_connected:
            self.close()
            if self._will is not None:
                self._broker.publish(self._will.topic, self._will.payload, retain=True)

    def close(self) -> None:
        if self.is_connected:
            self._session.client = None
        for inbox in self.inboxes:
            inbox.end()


_brokers: dict[str, Broker] = {}
