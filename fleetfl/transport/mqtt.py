"""Packets over a real broker: MQTT 3.1.1, manual acknowledgement. Only this and its connection know paho.

Each connection gets a paho client of its own, touched by the network thread alone, so that nothing
of a lost one (message ids, half-written packets, unacknowledged publishes) reaches the next.
"""

import asyncio
import logging
import random
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import Field, SecretStr, field_validator, model_validator

from fleetfl.config import Section
from fleetfl.protocol.addresses import Host, authority
from fleetfl.transport import QoS, Transport, TransportConfig, TransportError, Will
from fleetfl.transport._mqtt_client import Client, Fate, Limits
from fleetfl.transport._mqtt_connection import Connection, resolve
from fleetfl.transport._mqtt_dial import Dialler, reason_of
from fleetfl.transport._network import Network, call_in, shared_network

logger = logging.getLogger(__name__)


Protocol = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,255}\Z")]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}\Z")]


class WebsocketConfig(Section):
    """The HTTP request that a websocket begins with."""

    path: str = Field(default="/mqtt", pattern=r"^/[\x21-\x7e]{0,2047}\Z")
    """What follows host and port in the URL."""

    headers: dict[HeaderName, SecretStr] = Field(default={})
    """Further headers of the request, such as a token that the broker asks for."""

    @field_validator("headers")
    @classmethod
    def _one_line_each(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not re.match(r"^[\x20-\x7e]{0,8192}\Z", value.get_secret_value()):
                raise ValueError(f"{name}: expected one line of printable ASCII")
        return headers


class Config(TransportConfig):
    kind: Literal["mqtt"] = "mqtt"
    host: Host = "127.0.0.1"
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

    alpn: tuple[Protocol, ...] = ()
    """Protocols to offer in the TLS handshake (ALPN), for brokers that share port 443 with others; AWS IoT
    Core wants `[x-amzn-mqtt-ca]` there."""

    websocket: WebsocketConfig | None = None
    """Speak MQTT inside a websocket, as some networks and clouds let nothing else through; `{}` is enough.
    With `tls: true` it is a wss:// connection."""

    client_id_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]{0,64}\Z")
    """What all client ids of the fleet begin with, before a colon, where the broker's rules ask for that."""

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
        if not self.tls and (self.ca_file or self.cert_file or self.key_file or self.alpn):
            raise ValueError("ca_file, cert_file, key_file and alpn need tls: true")
        if self.key_file and not self.cert_file:
            raise ValueError("key_file needs cert_file")
        return self

    @property
    def address(self) -> str:
        """Host and port; what a websocket's headers hold is not in it."""
        return authority(self.host, self.port)

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
        client_id = f"{self.client_id_prefix}:{client_id}" if self.client_id_prefix else client_id
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


def _tls_context(config: Config) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.alpn:
            context.set_alpn_protocols(list(config.alpn))
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file)
    except Exception as unreadable:  # whatever OpenSSL makes of the files
        files = f"ca_file={config.ca_file} cert_file={config.cert_file} key_file={config.key_file}"
        raise TransportError(
            f"{config.address}: cannot use the TLS files {files}: {unreadable}"
        ) from unreadable
    return context


def request_of(config: Config) -> tuple[str, dict[str, str]]:
    """Path and headers of a websocket's request."""
    assert config.websocket is not None
    headers = {name: value.get_secret_value() for name, value in config.websocket.headers.items()}
    # paho writes them itself, without the brackets of IPv6.
    scheme, usual = ("https", 443) if config.tls else ("http", 80)
    host = authority(config.host, config.port)
    if config.port == usual:
        host = host.rsplit(":", 1)[0]
    return config.websocket.path, {"Host": host, "Origin": f"{scheme}://{host}", **headers}


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
        self.connection: Connection | None = None
        self.stopping = False
        self.task: asyncio.Task[Any] | None = None

    def publish(
        self, topic: str, payload: bytes, retain: bool, fate: "asyncio.Future[Fate]"
    ) -> None:
        self.network.call(self._publish, topic, payload, retain, fate)

    def _publish(self, topic: str, payload: bytes, retain: bool, fate: Any) -> None:
        if self.connection is None or not self.connection.is_up:
            call_in(fate.get_loop(), resolve, fate, "unsent")
            return
        self.connection.publish(topic, payload, retain, fate)

    def subscribe(self, topic_filter: str, qos: QoS) -> None:
        self.network.call(self._with_connection, Connection.subscribe, topic_filter, qos)

    def unsubscribe(self, topic_filter: str) -> None:
        self.network.call(self._with_connection, Connection.unsubscribe, topic_filter)

    def drop(self, reason: str) -> None:
        self.network.call(self._with_connection, Connection.end, reason)

    def doubt(self) -> None:
        self.network.call(self._with_connection, Connection.end_if_silent)

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
            self.connection = Connection(
                self.new_paho(), client, callers_loop, config=self.config, network=self.network
            )
            try:
                await self.connection.run()
            except Exception as error:  # must live: whatever it was, try again
                if not isinstance(error, OSError):
                    logger.exception("connection failed broker=%s", self.config.address)
                reason = reason_of(error, self.config)
                call_in(callers_loop, client.on_attempt_failed, reason)
            if self.stopping:
                return
            if loop.time() - began_s > self.config.reconnect_max_s:
                pause_s = self.config.reconnect_min_s
            # Decorrelated jitter: a fleet that lost its broker does not come back in step.
            longest_s = min(self.config.reconnect_max_s, 3 * pause_s)
            pause_s = random.uniform(self.config.reconnect_min_s, longest_s)
            await asyncio.sleep(pause_s)

    def new_paho(self) -> Paho:
        paho = Dialler(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            clean_session=self.clean_session,
            protocol=MQTTv311,
            transport="tcp" if self.config.websocket is None else "websockets",
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
        if self.config.websocket is not None:
            path, headers = request_of(self.config)
            paho.ws_set_options(path, headers)
        if self.will is not None:
            paho.will_set(self.will.topic, self.will.payload, qos=1, retain=True)
        return paho
