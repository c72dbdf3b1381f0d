"""Transport over a real broker: MQTT 3.1.1, manual acknowledgement. Only this and its connection know paho.

Each connection gets a paho client of its own, touched by the network thread alone, so that nothing
of a lost one (message ids, half-written packets, unacknowledged publishes) reaches the next.
"""

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from fleetfl.protocol.addresses import authority
from fleetfl.transport import QoS, Transport, TransportError, Will
from fleetfl.transport._mqtt_client import Client, DeliveryResult, Limits
from fleetfl.transport._mqtt_connection import Connection, resolve
from fleetfl.transport._mqtt_dial import Dialler, reason_of
from fleetfl.transport._mqtt_settings import ConnectionSettings
from fleetfl.transport._network import Network, call_in, shared_network

logger = logging.getLogger(__name__)


class Config(ConnectionSettings):
    """MQTT 3.1.1 over TCP, TLS or websockets (OASIS standard, 2014)."""

    kind: Literal["mqtt"] = "mqtt"

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
    """Path and headers of the request that opens a websocket."""
    assert config.websocket is not None
    headers = {name: value.get_secret_value() for name, value in config.websocket.headers.items()}
    # paho writes them itself, without the brackets of IPv6.
    scheme, usual = ("https", 443) if config.tls else ("http", 80)
    host = authority(config.host, config.port)
    if config.port == usual:
        host = host.rsplit(":", 1)[0]
    return config.websocket.path, {"Host": host, "Origin": f"{scheme}://{host}", **headers}


class _Link:
    """The network's side of a `Client`: makes one connection after the other until stopped."""

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
        self, topic: str, payload: bytes, retain: bool, fate: "asyncio.Future[DeliveryResult]"
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
        # Without a connection there is nothing to do: Client.on_connected subscribes again.
        if self.connection is not None and self.connection.is_up:
            method(self.connection, *arguments)

    def stop(self, *, goodbye: bool) -> None:
        """Stop connecting; without a goodbye the broker publishes the will."""
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
        """Keep the client connected; runs in the network thread."""
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
