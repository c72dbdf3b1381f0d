"""A broker in this process's memory, for tests and for simulated fleets.

No thread, no socket and no clock, so it runs on a virtual-time event loop as well. It keeps what a
session (`clean_session=False`) has not acknowledged, as a real broker does. The cost of a packet depends
on its subscribers, not on the number of clients.
"""

import asyncio
import functools
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from fleetfl.transport import Packet, QoS, Transport, TransportConfig, TransportError, Will
from fleetfl.transport._filters import (
    checked_filter,
    checked_payload,
    checked_topic,
    is_wild,
    matches,
)
from fleetfl.transport._inbox import Inbox


class Config(TransportConfig):
    """Settings of a connection to a broker in memory."""

    kind: Literal["memory"] = "memory"
    name: str = "default"
    """Name of the broker in this process; the first connection to a name makes it."""

    max_payload_bytes: int = Field(default=1_048_576, ge=2_048)
    """Largest payload to publish, bytes; larger frames go in chunks."""

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


@dataclass(eq=False, slots=True)
class _Session:
    """State of one client id at the broker."""

    filters: dict[str, QoS] = field(default_factory=dict)
    unacknowledged: dict[int, Packet] = field(default_factory=dict)
    num_delivered: int = 0
    client: "Client | None" = None

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


class _Subscriptions:
    """Subscriptions of all sessions: exact ones by topic, and wildcard ones tried in turn."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[_Session, QoS]] = {}
        self._wild: dict[str, dict[_Session, QoS]] = {}

    def set(self, session: _Session, topic_filter: str, qos: QoS) -> None:
        session.filters[topic_filter] = qos
        self._of(topic_filter).setdefault(topic_filter, {})[session] = qos

    def remove(self, session: _Session, topic_filter: str) -> None:
        if session.filters.pop(topic_filter, None) is not None:
            takers = self._of(topic_filter)[topic_filter]
            del takers[session]
            if not takers:
                del self._of(topic_filter)[topic_filter]

    def remove_all(self, session: _Session) -> None:
        for topic_filter in list(session.filters):
            self.remove(session, topic_filter)

    def takers(self, topic: str) -> dict[_Session, QoS]:
        """Sessions that take the topic, each with the highest QoS of its matching filters."""
        found = dict(self._exact.get(topic, ()))
        for topic_filter, takers in self._wild.items():
            if matches(topic_filter, topic):
                for session, qos in takers.items():
                    found[session] = 1 if qos or found.get(session) else 0
        return found

    def _of(self, topic_filter: str) -> dict[str, dict[_Session, QoS]]:
        return self._wild if is_wild(topic_filter) else self._exact


class _Retained(dict[str, bytes]):
    """Retained payloads by topic. Topics below one parent are found without a look at the others."""

    def __init__(self) -> None:
        super().__init__()
        self._below: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def keep(self, topic: str, payload: bytes) -> None:
        self[topic] = payload
        self._below[topic.rpartition("/")[0]][topic] = None

    def clear_topic(self, topic: str) -> None:
        if self.pop(topic, None) is not None:
            del self._below[topic.rpartition("/")[0]][topic]

    def matching(self, topic_filter: str) -> list[tuple[str, bytes]]:
        parent, _, leaf = topic_filter.rpartition("/")
        if not is_wild(topic_filter):
            topics = [topic_filter] if topic_filter in self else []
        elif leaf == "+" and parent and not is_wild(parent):
            topics = self._below.get(parent, {})
        else:
            topics = [topic for topic in self if matches(topic_filter, topic)]
        return [(topic, self[topic]) for topic in topics]


class Broker:
    """A broker with sessions, subscriptions and retained payloads, by the rules of MQTT 3.1.1."""

    def __init__(self) -> None:
        self.retained = _Retained()
        self.sessions: dict[str, _Session] = {}
        self.subscriptions = _Subscriptions()

    def num_unacknowledged(self, client_id: str) -> int:
        """Number of packets that the client has or will get, and has not acknowledged."""
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
        """Context with a connected client. Raises TransportError if the client id is connected already."""
        session = self.sessions.get(client_id, _Session())
        if session.client is not None:
            raise TransportError(f"memory broker: {client_id!r} is connected already")
        if clean_session:
            self.subscriptions.remove_all(session)
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
                self.subscriptions.remove_all(session)
                del self.sessions[client_id]

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if retain and payload:
            self.retained.keep(topic, payload)
        elif retain:
            self.retained.clear_topic(topic)
        for session, qos in self.subscriptions.takers(topic).items():
            inboxes = session.client.inboxes if session.client else []
            takers = [inbox for inbox in inboxes if matches(inbox.topic_filter, topic)]
            session.deliver(topic, payload, to=takers, retained=False, qos=qos)


class Client:
    """Transport that is a client of a broker in memory."""

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
        self._fill(inbox, qos)
        is_shared = any(other.topic_filter == topic_filter for other in self.inboxes)
        highest: QoS = 1 if qos or (is_shared and self._session.filters[topic_filter]) else 0
        self._broker.subscriptions.set(self._session, topic_filter, highest)
        self.inboxes.append(inbox)
        try:
            yield inbox
        finally:
            self._leave(inbox, qos)

    def _fill(self, inbox: Inbox, qos: QoS) -> None:
        """Put the session's unacknowledged packets and the retained ones into a new inbox."""
        for packet in list(self._session.unacknowledged.values()):
            # Packets that another inbox of this client has are not sent again.
            if matches(inbox.topic_filter, packet.topic) and not self._is_claimed(packet.topic):
                inbox.put(packet)
        for topic, payload in self._broker.retained.matching(inbox.topic_filter):
            self._session.deliver(topic, payload, to=[inbox], retained=True, qos=qos)

    def _leave(self, inbox: Inbox, qos: QoS) -> None:
        """End a subscription, unless the session keeps it for the client's return."""
        self.inboxes.remove(inbox)
        if not self._clean_session and qos:
            return
        if all(other.topic_filter != inbox.topic_filter for other in self.inboxes):
            self._broker.subscriptions.remove(self._session, inbox.topic_filter)
        for packet in inbox.take_all():
            packet.ack()

    def _is_claimed(self, topic: str) -> bool:
        return any(matches(inbox.topic_filter, topic) for inbox in self.inboxes)

    def abort(self) -> None:
        """End the connection without a goodbye, as if the process were killed: the broker publishes the
        will.
        """
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
