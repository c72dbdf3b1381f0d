"""Updates a second through a real broker and the real server, each kept on disk before it is acknowledged.

Claim: at least 1,000 updates/s of 38,794 values (1 to 2 KB frames), and 100 of 250 KB over TLS; memory
stays where it is.

Run: python benchmarks/sustained.py [--broker mosquitto] [--seconds 600] [--json FILE]
     python benchmarks/sustained.py --broker mosquitto --tls --frame-bytes 250000

Here run a broker, a Ray cluster with the server's own actors (gateway and aggregator; no endpoint), and
publishers, processes with one connection each that speak for 64 vehicles. Updates are signed, and made
before the clock starts. A publisher has at most AHEAD updates without a receipt under way, as vehicles do;
an update counts when its receipt says `accepted`, which the aggregator says. All share this machine's cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import shutil
import socket
import ssl
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from actors.cluster import start_actors
from actors.config import ServerConfig
from actors.ports import free_ports
from actors.ray_cluster import ray_environment
from actors.startup import with_keys
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.codecs.spectral import Config as Spectral
from fleetfl.codecs.top_signs import Config as TopSigns
from fleetfl.protocol import topics, wire
from fleetfl.protocol.chunks import split
from fleetfl.protocol.messages import Receipt, Update
from fleetfl.protocol.signing import Signer
from fleetfl.registry.adapter_file import write_adapter
from fleetfl.transport.mqtt import Config as Mqtt
from fleetfl.vectors import Layout
from sim.processes.brokers import Broker, mosquitto, nats_server

FLEET = "bench"
LORA = {"a": (8, 192), "b": (576, 8)}
SMALL = Layout(
    (
        *((f"blocks.{n}.attn.qkv.lora_{x}", shape) for n in range(6) for x, shape in LORA.items()),
        ("head.bias", (10,)),
        ("head.weight", (10, 192)),
    )
)
SMALL_FRAME_BYTES = 1_400
VEHICLES_EACH = 64
AHEAD = 256
"""Updates of a publisher without a receipt; of large ones fewer."""
AHEAD_BYTES = 16 * 2**20
GOAL = 1_000
NUM_BODIES = 64
PUBACK, PUBLISH = 4, 3


@dataclass(frozen=True)
class Load:
    """What one publisher sends, and where."""

    number: int
    port: int
    count: int
    seconds: float
    frame_bytes: int
    codec: str
    keys: Path
    max_payload_bytes: int
    ca_file: Path | None

    @property
    def vehicles(self) -> list[str]:
        return [f"p{self.number}-v{n:02d}" for n in range(VEHICLES_EACH)]


CODECS = {
    "spectral": lambda frame_bytes: Spectral(max_bytes=frame_bytes - 200),
    "top_signs": lambda frame_bytes: TopSigns(keep=(frame_bytes - 200) / SMALL.size),
    "int8": lambda frame_bytes: Int8(),
}


def layout_for(frame_bytes: int) -> Layout:
    """The quickstart's adapter for small frames, else a flat one that int8 packs into so many bytes."""
    return SMALL if frame_bytes < 10_000 else Layout.flat(frame_bytes - frame_bytes // 65 - 400)


def bodies(codec: str, frame_bytes: int, count: int, seed: int) -> list[bytes]:
    """Updates as the codec packs them."""
    layout, dice = layout_for(frame_bytes), np.random.default_rng(seed)
    packs = CODECS[codec](frame_bytes).build(layout)
    return [
        packs.encode((dice.standard_normal(layout.size) * 1e-3).astype(np.float32))
        for _ in range(count)
    ]


def packets(load: Load) -> list[list[bytes]]:
    """For each update its MQTT packets, all but their ids."""
    layout = layout_for(load.frame_bytes)
    packed = bodies(load.codec, load.frame_bytes, NUM_BODIES, load.number)
    signers = {name: Signer(FLEET, Ed25519PrivateKey.generate()) for name in load.vehicles}
    for name, signer in signers.items():
        signer.write_public(name, load.keys)
    made = []
    for number in range(load.count):
        sequence, vehicle = divmod(number, VEHICLES_EACH)
        name = load.vehicles[vehicle]
        update = Update(
            vehicle=name,
            boot="b",
            sequence=sequence,
            base_version=0,
            layout=layout.fingerprint,
            num_examples=320,
            local_steps=10,
            captured_from=1_700_000_000,
            captured_to=1_700_000_060,
            loss=0.693,
            codec=load.codec,
            body=packed[number % NUM_BODIES],
        )
        frame = wire.encode(update, signers[name])
        topic = topics.update(FLEET, name, 1)
        made.append([publish(topic, part) for part in split(frame, load.max_payload_bytes)])
    return made


def publish(topic: str, payload: bytes) -> bytes:
    """A QoS 1 PUBLISH; its id is written where `numbered` finds it."""
    name = topic.encode()
    return head(0x32, 2 + len(name) + 2 + len(payload)) + (
        struct.pack("!H", len(name)) + name + b"\0\0" + payload
    )


def numbered(packet: bytes, number: int) -> bytes:
    start = next(i for i in range(1, 5) if packet[i] < 128) + 1
    at = start + 2 + struct.unpack_from("!H", packet, start)[0]
    return packet[:at] + struct.pack("!H", number) + packet[at + 2 :]


def head(kind: int, length: int) -> bytes:
    out = bytearray([kind])
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    return bytes(out)


class Connection:
    """Just enough MQTT 3.1.1 that the publisher costs little beside what is measured."""

    def __init__(self, port: int, client_id: str, ca_file: Path | None) -> None:
        plain = socket.create_connection(("127.0.0.1", port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = plain
        if ca_file is not None:
            trust = ssl.create_default_context(cafile=str(ca_file))
            self.socket = trust.wrap_socket(plain, server_hostname="127.0.0.1")
        self.received = bytearray()
        name = client_id.encode()
        self.socket.sendall(
            head(0x10, 12 + len(name))
            + b"\x00\x04MQTT\x04\x02\x00\x00"
            + struct.pack("!H", len(name))
            + name
        )

    def subscribe(self, names: list[str]) -> None:
        filters = b"".join(struct.pack("!H", len(n)) + n.encode() + b"\x00" for n in names)
        self.socket.sendall(head(0x82, 2 + len(filters)) + b"\x00\x01" + filters)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def packets(self, timeout_s: float) -> Iterator[tuple[int, bytes]]:
        """Kind and content of all that is here, or comes within the time."""
        self.socket.settimeout(timeout_s)
        with contextlib.suppress(TimeoutError):
            new = self.socket.recv(1 << 18)
            if not new:
                raise ConnectionError("the broker hung up")
            self.received += new
        self.socket.settimeout(None)
        at, data = 0, self.received
        while True:
            length, shift, start = 0, 0, at + 1
            while start < len(data) and data[start] > 127:
                length |= (data[start] & 127) << shift
                start, shift = start + 1, shift + 7
            if start >= len(data):
                break
            length |= data[start] << shift
            start += 1
            if start + length > len(data):
                break
            yield data[at] >> 4, bytes(data[start : start + length])
            at = start + length
        del data[:at]


def publisher(load: Load, ready: Any, go: Any, told: Any, results: Any) -> None:
    """Make all, wait for the start, send and count receipts."""
    made = packets(load)
    link = Connection(load.port, f"publisher-{load.number}", load.ca_file)
    link.subscribe([topics.receipt(FLEET, name) for name in load.vehicles])
    ready.release()
    go.wait()
    ahead = max(8, min(AHEAD, AHEAD_BYTES // load.frame_bytes))
    verdicts: Counter[str] = Counter()
    sent, packet_id, end = 0, 0, time.monotonic() + load.seconds
    sent_at: dict[tuple[str, int], float] = {}
    waits: list[float] = []
    quiet_since = time.monotonic()
    while sent_at or (sent < len(made) and time.monotonic() < end):
        out = []
        while len(sent_at) < ahead and sent < len(made) and time.monotonic() < end:
            for packet in made[sent]:
                packet_id = packet_id % 65_535 + 1
                out.append(numbered(packet, packet_id))
            made[sent] = []
            sequence, vehicle = divmod(sent, VEHICLES_EACH)
            sent_at[load.vehicles[vehicle], sequence] = time.monotonic()
            sent += 1
        if out:
            link.send(b"".join(out))
        for kind, content in link.packets(0.5):
            if kind != PUBLISH:
                continue
            receipt = wire.decode(content[2 + struct.unpack_from("!H", content)[0] :])
            if isinstance(receipt, Receipt):
                verdicts[f"{receipt.verdict} {receipt.reason}".strip()] += 1
                began = sent_at.pop((receipt.vehicle, receipt.sequence), None)
                if began is not None:
                    waits.append(time.monotonic() - began)
                quiet_since = time.monotonic()
        with told.get_lock():
            told.value = verdicts["accepted"]
        if time.monotonic() - quiet_since > 60:
            break  # what is under way is reported as unanswered
    results.put(
        {"sent": sent, "verdicts": dict(verdicts), "unanswered": len(sent_at), "waits": waits}
    )


@contextlib.contextmanager
def broker_for(kind: str, folder: Path, *, tls: bool) -> Iterator[tuple[Broker, Mqtt]]:
    """A broker, and how the server reaches it."""
    if not tls:
        start = {"nats": nats_server, "mosquitto": mosquitto}[kind]
        with start(folder / "broker") as broker:
            yield broker, Mqtt(port=broker.port)
        return
    if kind != "mosquitto":
        raise SystemExit("--tls needs --broker mosquitto")
    write_certificate(folder)
    port = free_ports(1)[0]
    listener = (
        f"listener {port} 127.0.0.1\nallow_anonymous true\n"
        f"certfile {folder}/broker.pem\nkeyfile {folder}/broker.key\n"
    )
    with mosquitto(folder / "broker", extra_config=listener) as broker:
        yield broker, Mqtt(port=port, tls=True, ca_file=folder / "broker.pem")


def write_certificate(folder: Path) -> None:
    """broker.pem, signed by its own key, for 127.0.0.1."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    (folder / "broker.pem").write_bytes(certificate.public_bytes(encoding))
    private = serialization.PrivateFormat.PKCS8
    (folder / "broker.key").write_bytes(
        key.private_bytes(encoding, private, serialization.NoEncryption())
    )


@contextlib.contextmanager
def server(config: ServerConfig) -> Iterator[dict[str, Any]]:
    """The actors of a server, running."""
    scratch = Path(tempfile.mkdtemp(prefix="fleetfl-"))
    os.environ.update(ray_environment(config, scratch))  # Ray reads it when it is imported
    import ray

    ray.init(
        address="local",
        include_dashboard=False,
        object_store_memory=config.ray.object_store_bytes,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        actors, _ = start_actors(config)
        running = [actor.run.remote() for actor in actors.values()]
        yield actors
        del running
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)


def pids(config: ServerConfig, broker: Broker) -> dict[str, int]:
    found = {"broker": broker.pid}
    deadline = time.monotonic() + 30
    while len(found) < 3 and time.monotonic() < deadline:
        for line in (config.state / "events.jsonl").read_text().splitlines():
            event = json.loads(line)
            if event["event"] in ("gateway_started", "aggregator_started"):
                found[event["event"].split("_")[0]] = event["pid"]
        time.sleep(0.1)
    return found


def resident_mb(pid: int) -> float:
    """Memory of its own, not mapped from files."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def commit_histogram(actors: dict[str, Any]) -> dict[str, float]:
    """Commits of the gateway's journal that took at most so many seconds."""
    import ray

    for metric in ray.get(actors["gateway 0"].measured.remote()):
        if metric.name == "fleetfl_journal_commit_seconds":
            return {s.labels["le"]: s.value for s in metric.samples if s.name.endswith("_bucket")}
    return {}


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    layout = layout_for(options.frame_bytes)
    write_adapter(folder / "zero.safetensors", layout, np.zeros(layout.size, np.float32))
    context = multiprocessing.get_context("spawn")
    with broker_for(options.broker, folder, tls=options.tls) as (broker, transport):
        config = with_keys(
            ServerConfig.model_validate(
                {
                    "fleet": FLEET,
                    "model": {"classes": [str(n) for n in range(10)]},
                    "transport": transport.model_dump(),
                    "state": folder / "state",
                    "initial": folder / "zero.safetensors",
                    "aggregator": {"kind": "fedbuff", "goal": options.goal},
                    "release": {"kind": "spectral" if layout is SMALL else "int8"},
                    "max_staleness": 1_000_000,
                    "max_in_flight": options.max_in_flight,
                    # A publisher speaks for few vehicles, each faster than one that trains.
                    "limits": {"updates_per_s": 10_000, "burst": 1_000_000},
                    "keys": {"policy": "listed", "folder": folder / "keys"},
                }
            )
        )
        (folder / "keys").mkdir(exist_ok=True)
        ready, go, results = context.Semaphore(0), context.Event(), context.Queue()
        count = math.ceil(options.rate * options.seconds / options.publishers)
        tolds, workers = [], []
        for number in range(options.publishers):
            load = Load(
                number=number,
                port=transport.port,
                count=count,
                seconds=options.seconds,
                frame_bytes=options.frame_bytes,
                codec=options.codec,
                keys=folder / "keys",
                max_payload_bytes=transport.max_payload_bytes,
                ca_file=transport.ca_file,
            )
            tolds.append(context.Value("q", 0))
            arguments = (load, ready, go, tolds[-1], results)
            workers.append(context.Process(target=publisher, args=arguments, daemon=True))
            workers[-1].start()
        for _ in workers:
            ready.acquire()
        with server(config) as actors:
            watched = pids(config, broker)
            time.sleep(2)
            go.set()
            row = watch(options, watched, tolds, workers, results)
            row["commits"] = commit_histogram(actors)
            row["journal_mb"] = round(
                sum(p.stat().st_size for p in config.journal_path.parent.iterdir()) / 2**20, 1
            )
    return row


def watch(
    options: argparse.Namespace,
    watched: dict[str, int],
    tolds: list[Any],
    workers: list[Any],
    results: Any,
) -> dict[str, Any]:
    """Print what is counted and held every few seconds, until all publishers are done."""
    began, before = time.monotonic(), {name: cpu_s(pid) for name, pid in watched.items()}
    every = max(2.0, options.seconds / 20)
    line = [(0.0, 0)]
    memory: list[dict[str, float]] = []
    print(
        f"{'s':>6}{'accepted':>10}{'updates/s':>11}" + "".join(f"{n + ' MB':>15}" for n in watched)
    )
    ended: list[dict[str, Any]] = []
    while len(ended) < len(workers):
        time.sleep(every if any(w.is_alive() for w in workers) else 0)
        with contextlib.suppress(Exception):
            while True:
                ended.append(results.get_nowait())
        at, accepted = time.monotonic() - began, sum(t.value for t in tolds)
        memory.append(
            {"s": round(at, 1)} | {n: round(resident_mb(p), 1) for n, p in watched.items()}
        )
        rate = (accepted - line[-1][1]) / (at - line[-1][0])
        line.append((at, accepted))
        shown = "".join(f"{memory[-1][name]:15.1f}" for name in watched)
        print(f"{at:6.0f}{accepted:10,}{rate:11,.0f}{shown}", flush=True)
    full = [(at, accepted) for at, accepted in line if at <= options.seconds]
    (a, first), (b, last) = full[0], full[-1]
    waits = np.sort(np.concatenate([np.array(e["waits"]) for e in ended]))
    verdicts: Counter[str] = Counter()
    for each in ended:
        verdicts.update(each["verdicts"])
    return {
        "broker": options.broker,
        "tls": options.tls,
        "frame_bytes": options.frame_bytes,
        "codec": options.codec,
        "updates_per_s": round((last - first) / (b - a), 1),
        "sent": sum(e["sent"] for e in ended),
        "verdicts": dict(verdicts),
        "unanswered": sum(e["unanswered"] for e in ended),
        "receipt_ms": {
            p: round(1000 * float(np.percentile(waits, p)), 1) if waits.size else None
            for p in (50, 99)
        },
        "cores": {
            n: round((cpu_s(p) - before[n]) / (time.monotonic() - began), 2)
            for n, p in watched.items()
        },
        "memory_mb": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--broker", choices=("nats", "mosquitto"), default="nats")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--frame-bytes", type=int, default=SMALL_FRAME_BYTES)
    parser.add_argument("--codec", choices=CODECS, help="spectral; int8 for large frames")
    parser.add_argument("--tls", action="store_true", help="Mosquitto only")
    parser.add_argument("--publishers", type=int, default=2)
    parser.add_argument(
        "--rate", type=float, help="updates/s made beforehand (2,000; 250 large ones)"
    )
    parser.add_argument("--goal", type=int, default=GOAL, help="updates a release")
    parser.add_argument("--max-in-flight", type=int, default=128, help="server.max_in_flight")
    parser.add_argument("--json", type=Path, help="also write the result there")
    options = parser.parse_args()
    options.codec = options.codec or ("spectral" if options.frame_bytes < 10_000 else "int8")
    options.rate = options.rate or (2_000 if options.frame_bytes < 10_000 else 250)
    with tempfile.TemporaryDirectory(prefix="fleetfl-sustained-") as name:
        row = measure(options, Path(name))
    print(json.dumps({k: v for k, v in row.items() if k != "memory_mb"}, indent=1))
    if options.json:
        options.json.write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
