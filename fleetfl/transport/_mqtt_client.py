"""The caller's side of an MQTT connection: publishes and subscriptions that wait. Knows no paho.

Everything here runs in the caller's event loop; a `Link` does the talking in the network thread.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fleetfl.transport import Packet, PacketRefused, QoS, TransportError
from fleetfl.transport._filters import checked_filter, checked_payload, checked_topic, matches
from fleetfl.transport._inbox import Inbox

logger = logging.getLogger(__name__)

SUBSCRIBE_TIMEOUT_S = 30.0
UNCLAIMED_S = 60.0
MAX_SENDS = 3
"""Number of connections that may break under one packet before the packet is blamed."""

STEADY_S = 60.0
"""Seconds after which a connection is taken not to have been ended by a client with the same id."""
MANY_BRIEF = 5
"""Number of shorter connections in a row from which on such a client is suspected."""

DeliveryResult = Literal["acknowledged", "lost", "unsent"]


class Link(Protocol):
    """The network as its client uses it; every method may be called from any thread."""

    def publish(
        self, topic: str, payload: bytes, retain: bool, fate: "asyncio.Future[DeliveryResult]"
    ) -> None: ...

    def subscribe(self, topic_filter: str, qos: QoS) -> None: ...

    def unsubscribe(self, topic_filter: str) -> None: ...

    def drop(self, reason: str) -> None:
        """Break the connection, and make a new one after a pause."""
        ...

    def doubt(self) -> None:
        """Break the connection and make a new one if nothing has come in on it for long."""
        ...


@dataclass(frozen=True)
class Limits:
    """Limits of one connection."""

    max_in_flight: int
    """Most publishes without a PUBACK at a time."""
    max_queued: int
    """Most incoming packets that wait for their reader."""
    max_payload_bytes: int
    """Largest payload to publish, bytes."""


@dataclass
class _Subscription:
    inbox: Inbox
    qos: QoS
    granted: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: TransportError | None = None


@dataclass
class _Puback:
    """PUBACK of a packet that several subscriptions got, sent when each has acknowledged."""

    send: Callable[[], None]
    num_takers: int
    done: set[int] = field(default_factory=set)

    def of_taker(self, taker: int) -> Callable[[], None]:
        return functools.partial(self._ack, taker)

    def _ack(self, taker: int) -> None:
        if taker not in self.done:
            self.done.add(taker)
            if len(self.done) == self.num_takers:
                self.send()


class Client:
    """Transport over MQTT. Its link calls the `on_...` methods in the caller's loop."""

    def __init__(
        self, link: Link, limits: Limits, *, client_id: str, address: str, has_session: bool
    ) -> None:
        self._link = link
        self._limits = limits
        self._client_id = client_id
        self._address = address
        self._has_session = has_session
        self._connected = asyncio.Event()
        self._closed = False
        self._slots = asyncio.Semaphore(limits.max_in_flight)
        self._resend = asyncio.Lock()
        self._given_up: set[asyncio.Future[DeliveryResult]] = set()
        self._subscriptions: list[_Subscription] = []
        self._unclaimed: list[Packet] = []
        self._connected_s = 0.0
        self._num_brief = 0
        """Number of connections in a row that the other side ended soon."""
        self.num_attempts = 0
        self.last_failure = "no answer yet"

    @property
    def is_connected(self) -> bool:
        return self._connected.is_set() and not self._closed

    @property
    def max_payload_bytes(self) -> int:
        return self._limits.max_payload_bytes

    async def wait_connected(self, patience_s: float) -> None:
        """Wait for a connection. Raises asyncio.TimeoutError after `patience_s` seconds."""
        await asyncio.wait_for(
            self._connected.wait(), None if patience_s == float("inf") else patience_s
        )

    async def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, timeout_s: float = 30.0
    ) -> None:
        checked_topic(topic)
        checked_payload(payload, self._limits.max_payload_bytes)
        try:
            await asyncio.wait_for(self._until_acknowledged(topic, payload, retain), timeout_s)
        except asyncio.TimeoutError as late:
            if len(self._given_up) >= self._limits.max_in_flight:
                self._link.drop(f"{len(self._given_up)} publishes without a PUBACK in time")
            else:
                self._link.doubt()
            state = "connected" if self.is_connected else f"not connected ({self.last_failure})"
            raise TransportError(
                f"{self._address}: no PUBACK for {len(payload)} bytes to {topic!r} within "
                f"{timeout_s:g} s, {state}; it may have arrived: publish it again"
            ) from late

    async def _until_acknowledged(self, topic: str, payload: bytes, retain: bool) -> None:
        num_sends = 0
        while num_sends < MAX_SENDS:
            await self._connected.wait()
            if self._closed:
                raise TransportError(f"{self._address}: closed before {topic!r} was acknowledged")
            # One suspect at a time, so that a packet the broker dies of is not mistaken for those
            # that were in flight beside it.
            async with self._resend if num_sends else nullcontext():
                fate = await self._sent_once(topic, payload, retain)
            if fate == "acknowledged":
                return
            num_sends += fate == "lost"
        raise PacketRefused(
            f"{self._address}: the connection broke {MAX_SENDS} times while {len(payload)} bytes to"
            f" {topic!r} were in flight ({self.last_failure}); is that above the broker's limit?"
        )

    async def _sent_once(self, topic: str, payload: bytes, retain: bool) -> DeliveryResult:
        await self._slots.acquire()
        fate: asyncio.Future[DeliveryResult] = asyncio.get_running_loop().create_future()
        # A caller that gave up leaves its slot taken until the broker has answered for it.
        fate.add_done_callback(lambda _: self._slots.release())
        self._link.publish(topic, payload, retain, fate)
        try:
            return await asyncio.shield(fate)
        except asyncio.CancelledError:
            self._given_up.add(fate)
            fate.add_done_callback(self._given_up.discard)
            raise

    @asynccontextmanager
    async def subscribe(
        self, topic_filter: str, *, qos: QoS = 1
    ) -> AsyncIterator[AsyncIterator[Packet]]:
        subscription = _Subscription(Inbox(checked_filter(topic_filter)), qos)
        self._subscriptions.append(subscription)
        self._claim_for(subscription.inbox)
        if self.is_connected:  # otherwise on_connected does
            self._link.subscribe(topic_filter, self._qos(topic_filter))
        try:
            await self._granted(subscription)
            yield subscription.inbox
        finally:
            self._leave(subscription)

    async def _granted(self, subscription: _Subscription) -> None:
        try:
            await asyncio.wait_for(subscription.granted.wait(), SUBSCRIBE_TIMEOUT_S)
        except asyncio.TimeoutError as late:
            raise TransportError(
                f"{self._address}: no SUBACK for {subscription.inbox.topic_filter!r} within "
                f"{SUBSCRIBE_TIMEOUT_S:g} s ({self.last_failure})"
            ) from late
        if subscription.refusal is not None:
            raise subscription.refusal

    def _leave(self, subscription: _Subscription) -> None:
        self._subscriptions.remove(subscription)
        left_over = subscription.inbox.take_all()
        if self._has_session and subscription.qos:
            for packet in left_over:
                self._keep_unclaimed(packet)
            return
        for packet in left_over:
            packet.ack()  # nobody wants it, and unacknowledged it would fill the broker's window
        topic_filter = subscription.inbox.topic_filter
        if all(other.inbox.topic_filter != topic_filter for other in self._subscriptions):
            self._link.unsubscribe(topic_filter)

    def _qos(self, topic_filter: str) -> QoS:
        """Highest QoS of the subscriptions to a filter, which are one subscription at the broker."""
        return max(s.qos for s in self._subscriptions if s.inbox.topic_filter == topic_filter)

    def _claim_for(self, inbox: Inbox) -> None:
        for packet in self._unclaimed:
            if matches(inbox.topic_filter, packet.topic):
                inbox.put(packet)
        self._unclaimed = [p for p in self._unclaimed if not matches(inbox.topic_filter, p.topic)]

    def _keep_unclaimed(self, packet: Packet) -> None:
        """Keep a packet that a session delivers before its filter is subscribed to again."""
        self._unclaimed.append(packet)
        asyncio.get_running_loop().call_later(UNCLAIMED_S, self._let_go, packet)

    def _let_go(self, packet: Packet) -> None:
        if any(kept is packet for kept in self._unclaimed):
            self._unclaimed = [kept for kept in self._unclaimed if kept is not packet]
            # Kept for ever, the packets of a filter nobody uses any more fill Mosquitto's window,
            # which is one for all filters of a client.
            self._log(
                logging.WARNING, "acknowledged unread", topic=packet.topic, after_s=UNCLAIMED_S
            )
            packet.ack()

    def on_attempt_failed(self, reason: str) -> None:
        self.num_attempts += 1
        self.last_failure = reason
        if self.num_attempts == 1:
            self._log(logging.INFO, "not connected", reason=reason)

    def on_connected(self, session_present: bool) -> None:
        self._log(logging.INFO, "connected", session_present=session_present)
        if session_present:
            # All of these come again, by the connection that can acknowledge them.
            self._unclaimed.clear()
            for subscription in self._subscriptions:
                if subscription.qos:
                    subscription.inbox.take_all()
        self.num_attempts = 0
        self._connected_s = asyncio.get_running_loop().time()
        self._connected.set()
        for topic_filter in dict.fromkeys(s.inbox.topic_filter for s in self._subscriptions):
            self._link.subscribe(topic_filter, self._qos(topic_filter))

    def on_lost(self, reason: str) -> None:
        if not self._closed:
            reason = self._explained(reason)
            self._log(logging.WARNING, "connection lost", reason=reason)
            self._connected.clear()
        self.last_failure = reason

    def _explained(self, reason: str) -> str:
        lasted_s = asyncio.get_running_loop().time() - self._connected_s
        self._num_brief = self._num_brief + 1 if lasted_s < STEADY_S else 0
        if self._num_brief < MANY_BRIEF:
            return reason
        return (
            f"{reason}; {self._num_brief} connections in a row were accepted and ended within {STEADY_S:g} s:"
            f" does another client call itself {self._client_id!r} too?"
        )

    def on_suback(self, topic_filter: str, granted: bool) -> None:
        for subscription in self._subscriptions:
            if subscription.inbox.topic_filter != topic_filter:
                continue
            if not granted:
                subscription.refusal = TransportError(
                    f"{self._address} refused the subscription to {topic_filter!r}: "
                    "may this client read it (access rules of the broker)?"
                )
                subscription.inbox.end(subscription.refusal)
            subscription.granted.set()

    def on_packet(self, packet: Packet, qos: int) -> None:
        num_waiting = len(self._unclaimed) + sum(len(s.inbox) for s in self._subscriptions)
        if num_waiting >= self._limits.max_queued:
            self._overflow(packet, qos, num_waiting)
            return
        inboxes = [
            s.inbox for s in self._subscriptions if matches(s.inbox.topic_filter, packet.topic)
        ]
        if not inboxes:
            if qos:
                self._keep_unclaimed(packet)
            return
        puback = _Puback(packet.on_ack, len(inboxes))
        for taker, inbox in enumerate(inboxes):
            on_ack = puback.of_taker(taker)
            inbox.put(Packet(packet.topic, packet.payload, packet.retained, on_ack))

    def _overflow(self, packet: Packet, qos: int, num_waiting: int) -> None:
        if qos == 0:
            self._log(logging.WARNING, "dropped", topic=packet.topic, qos=0, waiting=num_waiting)
            return
        # Neither kept nor acknowledged: it stays with the broker, which has it for our next
        # connection. A broker whose window is smaller than max_queued never gets us here.
        self._link.drop(f"{num_waiting} packets wait for their reader (max_queued)")

    def _log(self, level: int, event: str, **keys: object) -> None:
        told = " ".join(f"{key}={value}" for key, value in keys.items())
        logger.log(level, "%s client=%s broker=%s %s", event, self._client_id, self._address, told)

    def close(self) -> None:
        """End all subscriptions and waiting publishes."""
        self._closed = True
        self._connected.set()
        for subscription in self._subscriptions:
            subscription.inbox.end()
