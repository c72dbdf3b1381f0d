"""Whether a server grows: its memory, its checkpoints and its disk, over 60 days with 1,000 vehicles that
restart every day.

Claim: from the first week to the last all of it stays flat.

Run: python benchmarks/endurance.py [--days 60] [--vehicles 1000] [--folder FOLDER] [--svg FILE] [--json FILE]

The real Gateway, Keyring, Aggregator, journal, registry, checkpoints and event log in one process, on the
memory broker and on virtual time: whatever asks for the time, sleeps or waits does so on a clock that jumps,
so a day takes as long as its work. Each vehicle connects once a day under a new boot, says that it is online,
sends its updates, signed and trained from the newest version, hours apart, and leaves by its last status. The
model has few values, because what grows with it does not grow with time. Sizes are those after a checkpoint;
its time is the processor's, the least of five. Without --folder all is in a temporary one; on a memory disk
nothing waits for fsync.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import random
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.aggregator import AggregatorActor
from actors.config import ServerConfig
from actors.gateway import Gateway
from actors.monitoring.metrics import Metrics
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.events.event_log import EventLog
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import Status, Update
from fleetfl.protocol.signing import Signer
from fleetfl.registry.adapter_file import write_adapter
from fleetfl.transport.memory import Broker, Client
from fleetfl.vectors import Layout
from sim.fleet import virtual_time

FLEET = "endurance"
LAYOUT = Layout.flat(256)
DAY_S = 86_400.0
FIRST_S = 1_700_000_000.0
"""When the run begins, UTC."""
GOAL = 20
CHECKPOINT_S = 6 * 3600.0
FLAT = 1.15
"""The last week's mean to the first whole one's, at most, for what counts as flat."""


@dataclass(frozen=True)
class Day:
    """The server after a day."""

    day: int
    updates: int
    rss_mb: float
    checkpoint_ms: float
    checkpoint_kb: float
    journal_kb: float
    events_kb: float
    registry_kb: float
    keys_kb: float
    other_kb: float
    boots_known: int
    series: int


KINDS = [name for name in Day.__dataclass_fields__ if name not in ("day", "updates")]


class Vehicle:
    def __init__(self, number: int, dice: random.Random) -> None:
        self.name = f"v{number:04d}"
        seed = number.to_bytes(32, "little")
        self.signer = Signer(FLEET, Ed25519PrivateKey.from_private_bytes(seed))
        self.dice = dice
        self.body = Int8().build(LAYOUT).encode(_delta(number))

    async def day(
        self, server: AggregatorActor, broker: Broker, updates: int, end_s: float
    ) -> None:
        """From its start, some time in the first two hours, to its end."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.dice.uniform(0, 7_200))
        boot = f"{self.dice.getrandbits(32):08x}"
        async with broker.connect(self.name) as link:
            await self._say(link, "online", boot)
            pause_s = (end_s - loop.time()) / (updates + 1)
            for sequence in range(updates):
                await asyncio.sleep(pause_s * self.dice.uniform(0.8, 1.0))
                await self._send(link, server, boot, sequence)
            await asyncio.sleep(1.0)
            await self._say(link, "offline", boot)

    async def _say(self, link: Client, state: Any, boot: str) -> None:
        status = Status(self.name, boot, state, 1, 0, 0, 0, "", self.signer.public, {"accepted": 9})
        topic = topics.status(FLEET, self.name, 1)
        await link.publish(topic, wire.encode(status, self.signer), retain=True)

    async def _send(self, link: Client, server: AggregatorActor, boot: str, sequence: int) -> None:
        published, now_s = server.coordinator.published, int(time.time())
        update = Update(
            vehicle=self.name,
            boot=boot,
            sequence=sequence,
            base_version=published.version,
            layout=LAYOUT.fingerprint,
            num_examples=256,
            local_steps=8,
            captured_from=now_s - 60,
            captured_to=now_s,
            loss=0.5,
            codec="int8",
            body=self.body,
            generation=published.generation,
            base_sha256=published.sha256[:8],
        )
        frame = wire.encode(update, self.signer)
        await link.publish(topics.update(FLEET, self.name, 1), frame)


def _delta(seed: int) -> np.ndarray:
    return (1e-3 * np.random.default_rng(seed).normal(size=LAYOUT.size)).astype(np.float32)


def settings(folder: Path, goal: int) -> ServerConfig:
    return ServerConfig.model_validate(
        {
            "fleet": FLEET,
            "model": {"classes": ["a", "b"]},
            "transport": {"kind": "memory"},
            "state": folder,
            "initial": folder / "zero.safetensors",
            "aggregator": {"kind": "fedbuff", "goal": goal},
            "release": {"kind": "int8"},
            "checkpoint_s": CHECKPOINT_S,
            # Bounds that a run of this size meets: those that are set are for larger models and fleets.
            "registry": {"max_bytes": 450_000},
            "events": {"max_bytes": 2 * 2**20},
        }
    )


@contextlib.contextmanager
def clock_that_jumps() -> Iterator[None]:
    """Whoever asks the time, in whatever thread, is told that of the loop that runs here."""
    wall, monotonic = time.time, time.monotonic
    loop = asyncio.get_running_loop()
    time.time = time.monotonic = loop.time
    try:
        yield
    finally:
        time.time, time.monotonic = wall, monotonic


@contextlib.asynccontextmanager
async def serving(
    config: ServerConfig, broker: Broker
) -> AsyncIterator[tuple[AggregatorActor, Any]]:
    """Aggregator and gateway, as the cluster has them."""
    server = AggregatorActor(config)
    metrics, events = Metrics(), EventLog(config.state / "events.jsonl")
    async with broker.connect("gateway", clean_session=False) as link:
        gateway = Gateway(
            FLEET,
            0,
            transport=link,
            journal=server.journal,
            outcome=server.outcome,
            announcement=server.announcement,
            events=events,
            keys=config.keys.build(FLEET, config.state),
            signer=Signer.from_file(FLEET, config.state / "key.pem"),
            look_s=10 * DAY_S,
        )
        gateway.measured_by(metrics)
        running = asyncio.create_task(gateway.run(), name="gateway")
        try:
            yield server, metrics
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            events.close()
            await server.saving.ended()
            server.journal.close()


def kilobytes(*paths: Path) -> float:
    files = [f for p in paths for f in (p.rglob("*") if p.is_dir() else [p]) if f.is_file()]
    return round(sum(file.stat().st_size for file in files) / 1000, 1)


def seen(day: int, server: AggregatorActor, gateway_metrics: Metrics) -> Day:
    """After a checkpoint, whose time is taken."""
    state = server.config.state
    gc.collect()
    took_s = []
    for _ in range(5):
        began_s = time.thread_time()
        server.state.keep()
        took_s.append(time.thread_time() - began_s)
    checkpoint_ms = 1000 * min(took_s)
    server.journal.trim(server.saving.checkpoints.safe_row, server.config.journal)
    newest = max(server.config.checkpoint_folder.glob("*.checkpoint"))
    parts = {
        "journal": sorted(state.glob("journal*")),
        "events": sorted(state.glob("events*")),
        "registry": [state / "registry"],
        "keys": [state / "keys"],
    }
    sizes = {name: kilobytes(*paths) for name, paths in parts.items()}
    series = [
        s for m in (server.metrics, gateway_metrics) for f in m.collected() for s in f.samples
    ]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Day(
        day=day,
        updates=server.counted,
        rss_mb=round(pages * resource.getpagesize() / 1e6, 1),
        checkpoint_ms=round(checkpoint_ms, 2),
        checkpoint_kb=kilobytes(newest),
        journal_kb=sizes["journal"],
        events_kb=sizes["events"],
        registry_kb=sizes["registry"],
        keys_kb=sizes["keys"],
        other_kb=round(kilobytes(state) - sum(sizes.values()), 1),
        boots_known=len(server.coordinator.ledger.entries),
        series=len(series),
    )


async def lived(
    folder: Path, vehicles: int, days: int, updates: int, *, goal: int = GOAL
) -> list[Day]:
    """The server in this folder after each of so many days; `updates` are those of a vehicle and day."""
    with clock_that_jumps():
        return await _lived(settings(folder, goal), vehicles, days, updates)


async def _lived(config: ServerConfig, vehicles: int, days: int, updates: int) -> list[Day]:
    write_adapter(config.state / "zero.safetensors", LAYOUT, np.zeros(LAYOUT.size, np.float32))
    dice, broker, found = random.Random(0), Broker(), []
    fleet = [Vehicle(number, random.Random(number)) for number in range(vehicles)]
    async with serving(config, broker) as (server, metrics):
        for day in range(1, days + 1):
            end_s = FIRST_S + day * DAY_S
            dice.shuffle(fleet)
            await asyncio.gather(*(v.day(server, broker, updates, end_s - 600) for v in fleet))
            await asyncio.sleep(max(0.0, end_s - asyncio.get_running_loop().time()))
            expected = day * vehicles * updates
            assert server.counted == expected, f"{server.counted} of {expected} were counted"
            found.append(seen(day, server, metrics))
            if day in (1, 2) or day % 7 == 0 or day == days:
                print(line(found[-1]), flush=True)
    return found


def line(day: Day) -> str:
    about = asdict(day)
    return "  ".join(f"{about[name]:>{len(name)},}" for name in about)


def growth(days: list[Day]) -> dict[str, float]:
    """Of each kind: the last week's mean to that of the second week, or of the first days of few."""
    week = min(7, max(1, len(days) // 3))
    first, last = days[week : 2 * week], days[-week:]

    def mean(of: list[Day], kind: str) -> float:
        return float(np.mean([getattr(day, kind) for day in of]))

    return {kind: round(mean(last, kind) / max(mean(first, kind), 1e-9), 3) for kind in KINDS}


COLOURS = {
    "rss_mb": "#4269d0",
    "checkpoint_ms": "#efb118",
    "checkpoint_kb": "#ff725c",
    "journal_kb": "#6cc5b0",
    "events_kb": "#3ca951",
    "registry_kb": "#ff8ab7",
    "boots_known": "#a463f2",
}
WIDTH, HEIGHT, MARGIN = 720, 360, 60


def figure(days: list[Day], note: str) -> str:
    """SVG: each kind beside its mean in the second week, over the days."""
    week = min(7, max(1, len(days) // 3))
    curves = {}
    for kind in COLOURS:
        usual = np.mean([getattr(day, kind) for day in days[week : 2 * week]])
        curves[kind] = [getattr(day, kind) / max(float(usual), 1e-9) for day in days]
    top = max(2.0, *(max(curve) for curve in curves.values()))

    def at(day: int, ratio: float) -> tuple[float, float]:
        across = MARGIN + (WIDTH - 3 * MARGIN) * (day - 1) / max(1, days[-1].day - 1)
        return across, HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * ratio / top

    parts = [f'<text x="{MARGIN}" y="24">{note}</text>']
    for ratio in range(int(top) + 1):
        (left, y), (right, _) = at(1, ratio), at(days[-1].day, ratio)
        parts.append(f'<path d="M{left:.0f} {y:.0f}H{right:.0f}" stroke="#ccc"/>')
        parts.append(f'<text x="{left - 24:.0f}" y="{y + 4:.0f}">{ratio} x</text>')
    for day in [1, *range(7, days[-1].day + 1, 7)]:
        x, y = at(day, 0)
        parts.append(f'<text x="{x:.0f}" y="{y + 18:.0f}" text-anchor="middle">{day}</text>')
    for number, (kind, curve) in enumerate(curves.items()):
        places = [at(day.day, ratio) for day, ratio in zip(days, curve, strict=True)]
        points, colour = " ".join(f"{x:.1f},{y:.1f}" for x, y in places), COLOURS[kind]
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        x, y = WIDTH - 2 * MARGIN + 16, MARGIN + 20 * number
        parts.append(f'<text x="{x}" y="{y}" fill="{colour}">{kind}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--vehicles", type=int, default=1_000)
    parser.add_argument("--updates", type=int, default=4, help="a vehicle and day")
    parser.add_argument("--folder", type=Path, help="for the server's state; has to be empty")
    parser.add_argument("--json", type=Path, help="also write the days there")
    parser.add_argument("--svg", type=Path, help="also draw them there")
    options = parser.parse_args()
    began_s = time.process_time()
    print("  ".join(Day.__dataclass_fields__))
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        days = virtual_time.run(
            lived(folder, options.vehicles, options.days, options.updates), start_s=FIRST_S
        )
    grown = growth(days)
    print(f"{time.process_time() - began_s:,.0f} s of processor time; grown, second week to last:")
    for kind, ratio in grown.items():
        print(f"  {kind:16}{ratio:8.2f} x  {'flat' if ratio <= FLAT else 'GROWS'}")
    if options.svg:
        note = f"{options.vehicles:,} vehicles, a new boot a day: beside the second week's mean, by day"
        options.svg.write_text(figure(days, note))
    if options.json:
        about = {"grown": grown, "days": [asdict(day) for day in days]}
        options.json.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
