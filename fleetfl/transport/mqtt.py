"""Packets over a real broker: MQTT 3.1.1, manual acknowledgement. Only this knows paho.

Each connection gets a paho client of its own, touched by the network thread alone, so that nothing
of a lost one (message ids, half-written packets, unacknowledged publishes) reaches the next.
"""

import asyncio
import functools
import logging
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from paho.mqtt.client import MQTT_ERR_SUCCESS, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv311
from paho.mqtt.client import Client as Paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import Field, SecretStr, model_validator

from fleetfl.transport import Packet, QoS, Transport, TransportConfig, TransportError, Will
from fleetfl.transport._mqtt_client import Client, Fate, Limits
from fleetfl.transport._network import Network, call_in, shared_network

logger = logging.getLogger(__name__)

CONNACK_TIMEOUT_S = 10.0
GOODBYE_S = 2.0
"""How long the last packets and the DISCONNECT may take to leave."""


class Config(TransportConfig):
    kind: Literal["mqtt"] = "mqtt"
    host: str = Field(default="127.0.0.1", min_length=1)
    """Name or address of the broker."""

    port: int = Field(default=1883, ge=1, le=65_535)
    """TCP port; by custom 1883 in the clear and 8883 with TLS."""

    username: str | None = None
    """Name to log in with; none for a broker that knows us by certificate, or lets everybody in."""

    password: SecretStr | None = None
    """Password that goes with `username`; sent in the clear unless `tls` is on."""

    tls: bool = False
    """Encrypt, and verify the broker's certificate and name."""

    ca_file: Path | None = None
    """PEM file of the authorities to trust; none means those of the system."""

    cert_file: Path | None = None
    """PEM file of our own certificate, for brokers that ask for one."""

    key_file: Path | None = None
    """PEM file of the key to `cert_file`; none means it is in the same file."""

    keepalive_s: int = Field(default=60, ge=2, le=65_535)
    """Ping after so much silence. One packet has to upload in less than twice this time."""

    reconnect_min_s: float = Field(default=1.0, gt=0)
    """Shortest pause before connecting again (decorrelated jitter)."""

    reconnect_max_s: float = Field(default=30.0, gt=0)
    """Longest pause before connecting again."""

    max_in_flight: int = Field(default=16, ge=1, le=1_000)
    """Publishes without a PUBACK at a time; more of them wait. 1 or 2 on a slow uplink."""

    max_queued: int = Field(default=1_000, ge=1)
    """Incoming packets that may wait for their reader.

    The broker's own window (Mosquitto max_inflight_messages, NATS max_ack_pending) bounds the QoS 1
    packets that are here and not acknowledged; keep it below this number. If it is not, the packet
    too many breaks the connection and stays with the broker. QoS 0 packets too many are dropped.
    """

    max_payload_bytes: int = Field(default=61_440, ge=2_048, le=268_000_000)
    """Largest payload to publish; no larger than what the broker takes, or it hangs up or worse.

    Larger frames go in chunks. The default keeps a packet below 64 KiB, which every broker takes, and lets
    other packets through within a second on an uplink of 60 KB/s.
    """

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if self.reconnect_max_s < self.reconnect_min_s:
            raise ValueError("reconnect_max_s is below reconnect_min_s")
        if not self.tls and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError("ca_file, cert_file and key_file need tls: true")
        if self.key_file and not self.cert_file:
            raise ValueError("key_file needs cert_file")
        return self

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @asynccontextmanager
    async def connect(
        self,
        client_id: str,
        *,
        clean_session: bool = True,
        will: Will | None = None,
        patience_s: float = 10.0,
    ) -> AsyncIterator[Transport]:
        tls = _tls_context(self) if self.tls else None
        with shared_network() as network:
            link = _Link(self, network, client_id, clean_session=clean_session, will=will, tls=tls)
            client = Client(
                link,
                Limits(self.max_in_flight, self.max_queued, self.max_payload_bytes),
                client_id=client_id,
                address=self.address,
                has_session=not clean_session,
            )
            running = asyncio.run_coroutine_threadsafe(
                link.run(client, asyncio.get_running_loop()), network.loop
            )
            goodbye = False
            try:
                await _first_connection(client, self.address, patience_s)
                yield client
                goodbye = True
            finally:
                client.close()
                link.stop(goodbye=goodbye)
                await asyncio.wait({asyncio.wrap_future(running)})


async def _first_connection(client: Client, address: str, patience_s: float) -> None:
    try:
        await client.wait_connected(patience_s)
    except asyncio.TimeoutError as late:
        raise TransportError(
            f"no MQTT connection to {address} within {patience_s:g} s, {client.num_attempts} failed"
            f" attempts, the last: {client.last_failure}. Is a broker running there? Check host,"
            " port, tls, username and password"
        ) from late


class _TlsSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()  # paho leaves it open
            raise


def _tls_context(config: Config) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        context.sslsocket_class = _TlsSocket
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file)
    except OSError as unreadable:
        files = f"ca_file={config.ca_file} cert_file={config.cert_file} key_file={config.key_file}"
        raise TransportError(
            f"{config.address}: cannot use the TLS files {files}: {unreadable}"
        ) from unreadable
    return context


class _Link:
    """The network's side: one connection after the other until stopped. A Link of `Client`."""

    def __init__(
        self,
        config: Config,
        network: Network,
        client_id: str,
        *,
        clean_session: bool,
        will: Will | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.config = config
        self.network = network
        self.client_id = client_id
        self.clean_session = clean_session
        self.will = will
        self.tls = tls
        self.connection: _Connection | None = None
        self.stopping = False
        self.task: asyncio.Task[Any] | None = None

    def publish(
        self, topic: str, payload: bytes, retain: bool, fate: "asyncio.Future[Fate]"
    ) -> None:
        self.network.call(self._publish, topic, payload, retain, fate)

    def _publish(self, topic: str, payload: bytes, retain: bool, fate: Any) -> None:
        if self.connection is None or not self.connection.is_up:
            call_in(fate.get_loop(), _resolve, fate, "unsent")
            return
        self.connection.publish(topic, payload, retain, fate)

    def subscribe(self, topic_filter: str, qos: QoS) -> None:
        self.network.call(self._with_connection, _Connection.subscribe, topic_filter, qos)

    def unsubscribe(self, topic_filter: str) -> None:
        self.network.call(self._with_connection, _Connection.unsubscribe, topic_filter)

    def drop(self, reason: str) -> None:
        self.network.call(self._with_connection, _Connection.end, reason)

    def doubt(self) -> None:
        self.network.call(self._with_connection, _Connection.end_if_silent)

    def _with_connection(self, method: "Callable[..., None]", *arguments: Any) -> None:
        # Without a connection there is nothing to do: Client.on_connected subscribes anew.
        if self.connection is not None and self.connection.is_up:
            method(self.connection, *arguments)

    def stop(self, *, goodbye: bool) -> None:
        """Without a goodbye the broker publishes the will."""
        self.network.call(self._stop, goodbye)

    def _stop(self, goodbye: bool) -> None:
        self.stopping = True
        if self.connection is not None and self.connection.is_up:
            self.connection.leave(goodbye=goodbye)
        elif self.task is not None:
            if self.connection is not None:
                # Before Python 3.12, wait_for may swallow a cancellation.
                self.connection.end("closed")
            self.task.cancel()

    async def run(self, client: Client, callers_loop: asyncio.AbstractEventLoop) -> None:
        """Keep connected, in the network thread."""
        self.task = asyncio.current_task()
        pause_s = self.config.reconnect_min_s
        loop = asyncio.get_running_loop()
        while not self.stopping:
            began_s = loop.time()
            self.connection = _Connection(self, client, callers_loop)
            try:
                await self.connection.run()
            except Exception as error:  # must live: whatever it was, try again
                if not isinstance(error, OSError):
                    logger.exception("connection failed broker=%s", self.config.address)
                call_in(callers_loop, client.on_attempt_failed, f"{type(error).__name__}: {error}")
            if self.stopping:
                return
            if loop.time() - began_s > self.config.reconnect_max_s:
                pause_s = self.config.reconnect_min_s
            # Decorrelated jitter: a fleet that lost its broker does not come back in step.
            longest_s = min(self.config.reconnect_max_s, 3 * pause_s)
            pause_s = random.uniform(self.config.reconnect_min_s, longest_s)
            await asyncio.sleep(pause_s)

    def new_paho(self) -> Paho:
        paho = Paho(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            clean_session=self.clean_session,
            protocol=MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        paho.max_inflight_messages_set(0)  # Client counts them
        if self.config.username is not None:
            password = self.config.password
            paho.username_pw_set(
                self.config.username, password.get_secret_value() if password else None
            )
        if self.tls is not None:
            paho.tls_set_context(self.tls)
        if self.will is not None:
            paho.will_set(self.will.topic, self.will.payload, qos=1, retain=True)
        return paho


def _resolve(fate: "asyncio.Future[Fate]", value: Fate) -> None:
    if not fate.done():
        fate.set_result(value)


def _guarded(
    callback: Callable[..., None], broken: Callable[[str], None] | None = None
) -> Callable[..., None]:
    """Log what a callback raises, and tell `broken`.

    Let out, it leaves paho's parser in the middle of a packet.
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
    """What paho tells its logger alone, such as the reason why TLS failed."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


class _Connection:
    """One TCP connection and the paho client that speaks on it, in the network thread only."""

    def __init__(
        self, link: _Link, client: Client, callers_loop: asyncio.AbstractEventLoop
    ) -> None:
        self.link = link
        self.client = client
        self.tell = functools.partial(call_in, callers_loop)
        self.is_up = False
        self.heard_s = 0.0
        """When anything came last, in the loop's time."""
        self.ended = asyncio.Event()
        self.reason = "closed"
        self.in_flight: dict[int, asyncio.Future[Fate]] = {}
        self.subscribing: dict[int, str] = {}
        self.unacknowledged: set[int] = set()
        self.paho = link.new_paho()
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
        """Until the connection ends. Raises OSError if there was none to begin with."""
        config, loop = self.link.config, asyncio.get_running_loop()
        dial = functools.partial(self.paho.connect, config.host, config.port, config.keepalive_s)
        await loop.run_in_executor(self.link.network.dialers, dial)
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
                self.tell(_resolve, fate, "lost")

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
        # What TLS has already decrypted does not make the socket readable.
        while isinstance(sock, ssl.SSLSocket) and sock.fileno() >= 0 and sock.pending():
            self.step(self.paho.loop_read)

    def step(self, paho_step: Callable[[], Any]) -> None:
        try:
            paho_step()
        except Exception as error:  # a broken parser must not be called for ever
            logger.exception("error in paho broker=%s", self.link.config.address)
            self.end(f"{type(error).__name__}: {error}")

    def end(self, reason: str) -> None:
        if not self.ended.is_set():
            self.reason = reason
            self.ended.set()

    def end_if_silent(self) -> None:
        """paho asks with a ping, and waits as long again for the answer."""
        silent_s = asyncio.get_running_loop().time() - self.heard_s
        if silent_s >= self.link.config.keepalive_s:
            self.end(f"nothing came for {silent_s:.0f} s")

    def leave(self, *, goodbye: bool) -> None:
        if not goodbye:
            self.step(self.paho.loop_write)  # acknowledgements that wait
            self.end("closed without a goodbye")
            return
        self.paho.disconnect()
        asyncio.get_running_loop().call_later(GOODBYE_S, self.end, "closed")

    def publish(
        self, topic: str, payload: bytes, retain: bool, fate: "asyncio.Future[Fate]"
    ) -> None:
        sent = self.paho.publish(topic, payload, qos=1, retain=retain)
        if sent.rc != MQTT_ERR_SUCCESS:  # the message id is still in use; the next one is not
            self.tell(_resolve, fate, "unsent")
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
            self.end(f"the broker refused: {code}")
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
        self.tell(_resolve, self.in_flight.pop(mid), "acknowledged")

    def on_subscribe(
        self, _paho: Paho, _data: Any, mid: int, codes: list[ReasonCode], _properties: Any
    ) -> None:
        granted = not any(code.is_failure for code in codes)
        self.tell(self.client.on_suback, self.subscribing.pop(mid), granted)

    def on_message(self, _paho: Paho, _data: Any, message: MQTTMessage) -> None:
        if message.qos and message.mid in self.unacknowledged:
            return  # NATS repeats after its ack_wait what we have and have not acknowledged yet
        on_ack = functools.partial(self.link.network.call, self.ack, message.mid)
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
