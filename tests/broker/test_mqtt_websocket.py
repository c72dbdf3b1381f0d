"""MQTT inside a websocket, in the clear and under TLS, and a protocol to choose in the TLS handshake."""

import asyncio
import base64
import contextlib
import hashlib
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from actors.ports import free_ports
from fleetfl.transport import TransportError
from fleetfl.transport._mqtt_settings import WebsocketConfig
from fleetfl.transport.mqtt import Config
from sim.processes.brokers import mosquitto, nats_server
from tests.broker.test_mqtt_tls import write_certificates

pytestmark = pytest.mark.broker


async def there_and_back(config: Config, count: int = 10, size: int = 50_000) -> None:
    async with config.connect("v") as car, car.subscribe("up/#") as packets:
        await asyncio.gather(*(car.publish("up/v", bytes(size)) for _ in range(count)))
        for _ in range(count):
            packet = await asyncio.wait_for(packets.__anext__(), 20)
            packet.ack()
            assert len(packet.payload) == size


def test_packets_pass_in_a_websocket_of_mosquitto(tmp_path: Path) -> None:
    write_certificates(tmp_path)
    plain, secret = free_ports(2)
    listeners = f"""
listener {plain} 127.0.0.1
protocol websockets
allow_anonymous true
listener {secret} 127.0.0.1
protocol websockets
allow_anonymous true
certfile {tmp_path}/broker.pem
keyfile {tmp_path}/broker.key
"""
    wss = Config(
        port=secret,
        tls=True,
        ca_file=tmp_path / "ca.pem",
        websocket=WebsocketConfig(),
        alpn=("http/1.1",),
    )

    async def scenario() -> None:
        # Mosquitto 2.0 takes 4 KB of a websocket at a time, and looks for more some moments later.
        await there_and_back(Config(port=plain, websocket=WebsocketConfig()), 3, 2_000)
        await there_and_back(wss, 3, 2_000)

    with mosquitto(tmp_path / "mosquitto", extra_config=listeners):
        asyncio.run(asyncio.wait_for(scenario(), 60))


def test_packets_pass_in_a_websocket_of_nats(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    extra = f'websocket {{\n  listen: "127.0.0.1:{port}"\n  no_tls: true\n}}\n'
    with nats_server(tmp_path / "nats", extra_config=extra):
        config = Config(port=port, websocket=WebsocketConfig(path="/mqtt"))
        asyncio.run(asyncio.wait_for(there_and_back(config), 60))


CONNACK, PUBACK, PING, PONG, BINARY = b"\x20\x02\0\0", b"\x40\x02\0\x01", 9, 10, 2
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class _StrictWebsocket(socketserver.StreamRequestHandler):
    """As RFC 6455 wants it: a frame of a client that is not masked ends the connection. Reads slowly."""

    def handle(self) -> None:
        server: Any = self.server
        lines = iter(self.rfile.readline, b"\r\n")
        headers = dict(line.decode().strip().split(": ", 1) for line in lines if b": " in line)
        server.headers = headers
        key = headers["Sec-WebSocket-Key"].encode() + MAGIC
        accept = base64.b64encode(hashlib.sha1(key).digest()).decode()
        self.wfile.write(
            f"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n".encode()
        )
        received = b""
        while True:
            opcode, payload = self.frame()
            if opcode == PONG:
                server.num_pongs += 1
                continue
            received += payload
            if received[:1] == b"\x10":
                self.wfile.write(bytes([0x82, len(CONNACK)]) + CONNACK + bytes([0x89, 2]) + b"hi")
                received = b""
                time.sleep(0.3)  # meanwhile the socket's buffers fill
            elif len(received) >= server.publish_bytes:
                server.received = received
                self.wfile.write(bytes([0x82, len(PUBACK)]) + PUBACK)
                received = b""

    def frame(self) -> tuple[int, bytes]:
        first, second = self.rfile.read(2)
        assert second & 0x80, "not masked"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self.rfile.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.rfile.read(8))
        mask, payload = self.rfile.read(4), self.rfile.read(size)
        return first & 0xF, bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


@contextlib.contextmanager
def serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[Any]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, block_on_close = True, False
        num_pongs = 0
        publish_bytes = 1_000_000

        def handle_error(self, request: Any, client_address: Any) -> None:
            """The client went."""

    with Server(("127.0.0.1", 0), handler) as server:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def test_a_large_packet_passes_in_parts_and_pings_are_answered_as_a_strict_server_wants() -> None:
    """A megabyte is more than the kernel takes at once."""

    async def scenario(server: Any) -> None:
        websocket = WebsocketConfig(path="/x", headers={"X-Token": SecretStr("t0ken")})
        config = Config(port=server.server_address[1], websocket=websocket, max_payload_bytes=2**21)
        async with config.connect("v") as car:
            await car.publish("up/v", bytes(range(250)) * 4_000, timeout_s=20)

    with serving(_StrictWebsocket) as server:
        asyncio.run(asyncio.wait_for(scenario(server), 30))
        assert server.received.endswith(bytes(range(250)) * 4_000)
        assert server.num_pongs == 1
        assert server.headers["X-Token"] == "t0ken"
        assert server.headers["Host"] == f"127.0.0.1:{server.server_address[1]}"


class _Port443(socketserver.BaseRequestHandler):
    """Tells MQTT from others by what the handshake chose, as AWS IoT Core does."""

    def handle(self) -> None:
        server: Any = self.server
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.folder / "broker.pem", server.folder / "broker.key")
        context.set_alpn_protocols(["http/1.1", "x-amzn-mqtt-ca"])
        with context.wrap_socket(self.request, server_side=True) as connection:
            if connection.selected_alpn_protocol() == "x-amzn-mqtt-ca" and connection.recv(1000):
                connection.sendall(CONNACK)
                connection.recv(1000)


def test_a_protocol_is_offered_in_the_handshake(tmp_path: Path) -> None:
    write_certificates(tmp_path)

    async def scenario(port: int) -> None:
        config = Config(port=port, tls=True, ca_file=tmp_path / "ca.pem", alpn=("x-amzn-mqtt-ca",))
        async with config.connect("v"):
            pass
        with pytest.raises(TransportError):
            async with config.model_copy(update={"alpn": ()}).connect("v", patience_s=0.3):
                pass

    with serving(_Port443) as server:
        server.folder = tmp_path
        asyncio.run(asyncio.wait_for(scenario(server.server_address[1]), 30))


def test_what_is_no_websocket_is_said_without_the_token() -> None:
    class Page(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b"HTTP/1.1 404 Not Found\r\n\r\n")

    async def scenario(port: int) -> str:
        config = Config(port=port, websocket=WebsocketConfig(path="/ws?token=s3cret"))
        with pytest.raises(TransportError) as refused:
            async with config.connect("v", patience_s=0.5):
                pass
        return str(refused.value)

    with serving(Page) as server:
        said = asyncio.run(scenario(server.server_address[1]))
    assert "has none for MQTT at /ws" in said
    assert "s3cret" not in said
