"""One TCP connection to a broker and the paho client that speaks on it. Knows no reconnecting."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import MQTT_ERR_SUCCESS, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.client import Client as Paho
from paho.mqtt.reasoncodes import ReasonCode

from fleetfl.transport import Packet, QoS
from fleetfl.transport._mqtt_client import Client, DeliveryResult
from fleetfl.transport._mqtt_dial import refusal
from fleetfl.transport._mqtt_settings import ConnectionSettings
from fleetfl.transport._network import Network, call_in

logger = logging.getLogger(__name__)

CONNACK_TIMEOUT_S = 10.0
GOODBYE_S = 2.0
"""Longest time, seconds, for the last packets and the DISCONNECT to leave."""


def resolve(fate: asyncio.Future[DeliveryResult], value: DeliveryResult) -> None:
    """Set the result of a publish unless it has one already."""
    if not fate.done():
        fate.set_result(value)


def _guarded(
    callback: Callable[..., None], broken: Callable[[str], None] | None = None
) -> Callable[..., None]:
    """A callback whose exceptions are logged and passed to `broken`.

    An exception let out would leave paho's parser in the middle of a packet.
    """

    @functools.wraps(callback)
    def wrapped(*args: Any) -> None:
        try:
            callback(*args)
        except Exception as bug:
            logger.exception("error in %s", callback.__name__)
            if broken is not None:
                broken(f"{type(bug).__name__} in {callback.__name__}: {bug}")

    return wrapped


class _LastError(logging.Handler):
    """Keeps the last error that paho tells its logger alone, such as the reason why TLS failed."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


class Connection:
    """One connection, run once and used in the network thread only."""

    def __init__(
        self,
        paho: Paho,
        client: Client,
        callers_loop: asyncio.AbstractEventLoop,
        *,
        config: ConnectionSettings,
        network: Network,
    ) -> None:
        self.paho, self.client = paho, client
        self.config, self.network = config, network
        self.tell = functools.partial(call_in, callers_loop)
        self.is_up = False
        self.heard_s = 0.0
        """Time at which anything came last, seconds on the loop's clock."""
        self.ended = asyncio.Event()
        self.reason = "closed"
        self.in_flight: dict[int, asyncio.Future[DeliveryResult]] = {}
        self.subscribing: dict[int, str] = {}
        self.unacknowledged: set[int] = set()
        self.last_error = _LastError()
        paho_logger = logging.Logger("paho", logging.ERROR)
        paho_logger.addHandler(self.last_error)
        self.paho.enable_logger(paho_logger)
        # What one of these did not do is done by the next connection.
        self.paho.on_connect = _guarded(self.on_connect, self.end)
        self.paho.on_disconnect = _guarded(self.on_disconnect, self.end)
        self.paho.on_publish = _guarded(self.on_publish, self.end)
        self.paho.on_subscribe = _guarded(self.on_subscribe, self.end)
        # A broker would send a packet that cannot be read again, to each connection.
        self.paho.on_message = _guarded(self.on_message)

    async def run(self) -> None:
        """Run the connection until it ends. Raises OSError if it was never made."""
        config, loop = self.config, asyncio.get_running_loop()
        dial = functools.partial(self.paho.connect, config.host, config.port, config.keepalive_s)
        await loop.run_in_executor(self.network.dialers, dial)
        sock = self.paho.socket()
        if sock is None:
            raise ConnectionError(self.last_error.text or "closed at once")
        self.attach(loop, sock)
        connack_by_s = loop.time() + CONNACK_TIMEOUT_S
        try:
            while not await _set_within(self.ended, min(1.0, config.keepalive_s / 4)):
                self.paho.loop_misc()
                if not self.is_up and loop.time() > connack_by_s:
                    raise ConnectionError(f"no CONNACK within {CONNACK_TIMEOUT_S:g} s")
            if not self.is_up:
                raise ConnectionError(self.reason)
        finally:
            self.detach(loop, sock)
            if self.is_up:
                self.tell(self.client.on_lost, self.reason)
            self.is_up = False
            for fate in self.in_flight.values():
                self.tell(resolve, fate, "lost")

    def attach(self, loop: asyncio.AbstractEventLoop, sock: Any) -> None:
        def writable(*_: Any) -> None:
            loop.add_writer(sock, self.step, self.paho.loop_write)

        def written(*_: Any) -> None:
            loop.remove_writer(sock)

        def closing(*_: Any) -> None:
            loop.remove_reader(sock)
            loop.remove_writer(sock)

        self.paho.on_socket_register_write = writable
        self.paho.on_socket_unregister_write = written
        self.paho.on_socket_close = closing
        loop.add_reader(sock, self.read, sock)
        if self.paho.want_write():
            writable()

    def detach(self, loop: asyncio.AbstractEventLoop, sock: Any) -> None:
        self.paho.on_socket_register_write = None
        self.paho.on_socket_unregister_write = None
        self.paho.on_socket_close = None
        if sock.fileno() >= 0:
            loop.remove_reader(sock)
            loop.remove_writer(sock)
            sock.close()

    def read(self, sock: Any) -> None:
        self.heard_s = asyncio.get_running_loop().time()
        self.step(self.paho.loop_read)
        # What TLS has already decrypted does not make the socket readable. Plain sockets have no `pending`.
        pending = getattr(sock, "pending", None)
        while pending is not None and sock.fileno() >= 0 and pending():
            self.step(self.paho.loop_read)

    def step(self, paho_step: Callable[[], Any]) -> None:
        try:
            paho_step()
        except Exception as error:  # a broken parser must not be called for ever
            logger.exception("error in paho broker=%s", self.config.address)
            self.end(f"{type(error).__name__}: {error}")

    def end(self, reason: str) -> None:
        if not self.ended.is_set():
            self.reason = reason
            self.ended.set()

    def end_if_silent(self) -> None:
        """End a connection on which nothing came for `keepalive_s`; paho's own ping would wait twice as
        long.
        """
        silent_s = asyncio.get_running_loop().time() - self.heard_s
        if silent_s >= self.config.keepalive_s:
            self.end(f"nothing came for {silent_s:.0f} s")

    def leave(self, *, goodbye: bool) -> None:
        if not goodbye:
            self.step(self.paho.loop_write)  # acknowledgements that wait
            self.end("closed without a goodbye")
            return
        self.paho.disconnect()
        asyncio.get_running_loop().call_later(GOODBYE_S, self.end, "closed")

    def publish(
        self, topic: str, payload: bytes, retain: bool, fate: asyncio.Future[DeliveryResult]
    ) -> None:
        sent = self.paho.publish(topic, payload, qos=1, retain=retain)
        if sent.rc != MQTT_ERR_SUCCESS:  # the message id is still in use; the next one is not
            self.tell(resolve, fate, "unsent")
            return
        self.in_flight[sent.mid] = fate

    def subscribe(self, topic_filter: str, qos: QoS) -> None:
        _, mid = self.paho.subscribe(topic_filter, qos=qos)
        if mid is not None:
            self.subscribing[mid] = topic_filter

    def unsubscribe(self, topic_filter: str) -> None:
        self.paho.unsubscribe(topic_filter)

    def ack(self, mid: int) -> None:
        if mid in self.unacknowledged:
            self.unacknowledged.remove(mid)
            self.paho.ack(mid, 1)

    def on_connect(
        self, _paho: Paho, _data: Any, flags: ConnectFlags, code: ReasonCode, _properties: Any
    ) -> None:
        if code.is_failure:
            self.end(refusal(code, self.paho))
            return
        self.is_up = True
        self.tell(self.client.on_connected, flags.session_present)

    def on_disconnect(
        self, _paho: Paho, _data: Any, _flags: DisconnectFlags, code: ReasonCode, _properties: Any
    ) -> None:
        self.end(self.last_error.text or f"disconnected: {code}")

    def on_publish(
        self, _paho: Paho, _data: Any, mid: int, _code: ReasonCode, _properties: Any
    ) -> None:
        self.tell(resolve, self.in_flight.pop(mid), "acknowledged")

    def on_subscribe(
        self, _paho: Paho, _data: Any, mid: int, codes: list[ReasonCode], _properties: Any
    ) -> None:
        granted = not any(code.is_failure for code in codes)
        self.tell(self.client.on_suback, self.subscribing.pop(mid), granted)

    def on_message(self, _paho: Paho, _data: Any, message: MQTTMessage) -> None:
        if message.qos and message.mid in self.unacknowledged:
            return  # NATS repeats after its ack_wait what we have and have not acknowledged yet
        on_ack = functools.partial(self.network.call, self.ack, message.mid)
        if message.qos:
            self.unacknowledged.add(message.mid)
        packet = Packet(message.topic, bytes(message.payload), message.retain, on_ack)
        self.tell(self.client.on_packet, packet, message.qos)


async def _set_within(event: asyncio.Event, patience_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), patience_s)
    except asyncio.TimeoutError:
        return False
    return True
