"""Real brokers for the tests of this folder. One that is not installed is an error, not a skip."""

import socketserver
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from sim.processes.brokers import Broker, mosquitto, nats_server


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Broker]:
    with nats_server(tmp_path / "nats", redeliver_after_s=1) as running:
        yield running


@pytest.fixture(params=["nats", "mosquitto"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """The test runs once on each."""
    if request.param == "nats":
        yield request.getfixturevalue("nats")
        return
    with mosquitto(tmp_path / "mosquitto") as running:
        yield running


CONNECT, PUBLISH, SUBSCRIBE = 1, 3, 8


class _Conversation(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = cast(RudeBroker, self.server)
        while kind_byte := self.rfile.read(1):
            kind, body = kind_byte[0] >> 4, self.rfile.read(self._remaining_length())
            if kind == CONNECT and server.is_silent:
                continue
            if kind == CONNECT:
                self.wfile.write(b"\x20\x02\x00\x00")
            elif kind == PUBLISH:
                server.num_publishes += 1
                return
            elif kind == SUBSCRIBE:
                self.wfile.write(b"\x90\x03" + body[:2] + b"\x01")
                for number, topic in enumerate(server.topics_to_send, start=1):
                    packet = struct.pack("!H", len(topic)) + topic + struct.pack("!H", number)
                    self.wfile.write(bytes([0x32, len(packet)]) + packet)

    def _remaining_length(self) -> int:
        length, shift = 0, 0
        while True:
            byte = self.rfile.read(1)[0]
            length |= (byte & 127) << shift
            if byte < 128:
                return length
            shift += 7


class RudeBroker(socketserver.ThreadingTCPServer):
    """A broker without manners, for what real ones do only on a bad day.

    Hangs up at each PUBLISH; sends a QoS 1 packet to each of `topics_to_send` at a SUBSCRIBE.
    """

    daemon_threads = True
    block_on_close = False
    topics_to_send: tuple[bytes, ...] = ()
    is_silent = False
    num_publishes = 0


@pytest.fixture
def rude_broker() -> Iterator[RudeBroker]:
    """Running on its `server_address`; set its attributes before a client comes."""
    with RudeBroker(("127.0.0.1", 0), _Conversation) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
