"""Updates a second that a server takes on one core: from the packet to the accumulated vector.

Claim: frame -> verified -> decoded -> accumulated at 2,000 signed updates a second or more, of 38,794 values,
and 5,000 unsigned ones ("path": wire.decode and Coordinator.submit).

Run: OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/ingest.py [--json FILE]

The other columns are a whole server, the real Gateway and Aggregator in one process, without broker and
Ray: an update is read, its signature checked, kept in the journal, judged, decoded and folded in, its
event written, its receipt signed and handed to the transport. Every GOAL updates are a step, whose
release is coded (int8), signed and handed over as well. 64 vehicles take turns. A figure is updates by
processor time, the median of several rounds; "update alone" has a goal that is never reached, so it is
the path of an update without its share of a step.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.aggregator import FREED_BYTES, AggregatorActor
from actors.config import ServerConfig
from actors.gateway import Gateway
from actors.malloc import keep_freed
from fleetfl.aggregators.fedbuff import Config as FedBuff
from fleetfl.codecs import decoder
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.coordination.settings import CoordinatorSettings
from fleetfl.events.event_log import EventLog
from fleetfl.plugins import available
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import Update
from fleetfl.protocol.signing import Keyring, Signer
from fleetfl.registry.adapter_file import write_adapter
from fleetfl.transport import Packet
from fleetfl.vectors import Layout

FLEET = "bench"
LORA = {"a": (8, 192), "b": (576, 8)}
LAYOUT = Layout(
    (
        *((f"blocks.{n}.attn.qkv.lora_{x}", shape) for n in range(6) for x, shape in LORA.items()),
        ("head.bias", (10,)),
        ("head.weight", (10, 192)),
    )
)
TARGETS_PER_S = {True: 2_000, False: 5_000}
NUM_VEHICLES = 64
GOAL, NEVER = 10, 1_000_000


class Prepared:
    """A transport that brings what it was made with, and counts what is published."""

    is_connected = True
    max_payload_bytes = 1_048_576

    def __init__(self, packets: list[Packet]) -> None:
        self.packets, self.num_receipts = packets, 0
        self.all_answered = asyncio.Event()

    async def publish(self, topic: str, payload: bytes, **_: Any) -> None:
        self.num_receipts += topic.endswith("/receipt")
        if self.num_receipts == len(self.packets):
            self.all_answered.set()

    @contextlib.asynccontextmanager
    async def subscribe(self, topic_filter: str, **_: Any) -> AsyncIterator[AsyncIterator[Packet]]:
        async def each() -> AsyncIterator[Packet]:
            for packet in self.packets:
                yield packet

        yield each()


def signers(folder: Path) -> list[Signer]:
    """One a vehicle, its public key in the folder."""
    each = [
        Signer(FLEET, Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32))
        for n in range(NUM_VEHICLES)
    ]
    for number, signer in enumerate(each):
        signer.write_public(f"v{number:02d}", folder)
    return each


def packets(kind: str, count: int, by: list[Signer] | None) -> list[Packet]:
    """Updates of all vehicles in turn; every fourth vector is another one."""
    dice, codec = np.random.default_rng(0), decoder(kind, LAYOUT)
    bodies = [
        codec.encode((dice.standard_normal(LAYOUT.size) * 1e-3).astype(np.float32))
        for _ in range(4)
    ]
    made = []
    for number in range(count):
        sequence, vehicle = divmod(number, NUM_VEHICLES)
        name, signer = f"v{vehicle:02d}", None if by is None else by[vehicle]
        update = Update(
            vehicle=name,
            boot="x3F-a0",
            sequence=sequence,
            base_version=0,
            layout=LAYOUT.fingerprint,
            num_examples=320,
            local_steps=10,
            captured_from=1_700_000_000,
            captured_to=1_700_000_060,
            loss=0.693,
            codec=kind,
            body=bodies[number % 4],
        )
        made.append(Packet(topics.update(FLEET, name, 1), wire.encode(update, signer)))
    return made


async def seconds(prepared: list[Packet], keys: Path, goal: int, *, signed: bool) -> float:
    """From the first packet to the last receipt, with a state folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        return await seconds_in(Path(name), prepared, keys, goal, signed=signed)


async def seconds_in(
    folder: Path, prepared: list[Packet], keys: Path, goal: int, *, signed: bool
) -> float:
    write_adapter(folder / "zero.safetensors", LAYOUT, np.zeros(LAYOUT.size, np.float32))
    config = ServerConfig.model_validate(
        {
            "fleet": FLEET,
            "model": {"classes": [str(n) for n in range(10)]},
            "transport": {"kind": "memory"},
            "state": folder,
            "initial": folder / "zero.safetensors",
            "aggregator": {"kind": "fedbuff", "goal": goal, "max_held_bytes": 16 * 2**20},
            "release": {"kind": "int8"},
            "max_staleness": 1_000_000,
        }
    )
    aggregator, transport = AggregatorActor(config), Prepared(prepared)
    events = EventLog(folder / "events.jsonl")
    gateway = Gateway(
        FLEET,
        0,
        transport=transport,
        journal=aggregator.journal,
        outcome=aggregator.outcome,
        announcement=aggregator.announcement,
        events=events,
        keys=Keyring(FLEET, keys) if signed else None,
        signer=Signer.from_file(FLEET, folder / "key.pem") if signed else None,
    )
    began = time.process_time()
    running = asyncio.create_task(gateway.run())
    await transport.all_answered.wait()
    took = time.process_time() - began
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    events.close()
    await aggregator.saving.ended()
    aggregator.journal.close()
    accepted = aggregator.coordinator.bounds.number
    assert accepted == len(prepared), f"{accepted} of {len(prepared)} were counted"
    return took


def per_s(kind: str, goal: int, count: int, rounds: int, *, signed: bool) -> float:
    with tempfile.TemporaryDirectory() as name:
        keys = Path(name) / "keys"
        prepared = packets(kind, count, signers(keys) if signed else None)
        took = [
            asyncio.run(seconds(prepared, keys, goal, signed=signed)) for _ in range(rounds + 1)
        ]
    return count / statistics.median(took[1:])


def path_per_s(kind: str, count: int, rounds: int, *, signed: bool) -> float:
    """Frames verified, decoded and folded in, by processor time; no journal, event or receipt."""
    with tempfile.TemporaryDirectory() as name:
        keys = Path(name) / "keys"
        frames = [p.payload for p in packets(kind, count, signers(keys) if signed else None)]
        verifier = Keyring(FLEET, keys) if signed else None
        took = []
        for _ in range(rounds + 1):
            coordinator = Coordinator.from_settings(
                CoordinatorSettings(
                    aggregator=FedBuff(goal=NEVER, max_held_bytes=16 * 2**20), release=Int8()
                ),
                np.zeros(LAYOUT.size, np.float32),
                LAYOUT,
            )
            began = time.process_time()
            for frame in frames:
                update = wire.decode(frame, verifier)
                assert isinstance(update, Update)
                assert coordinator.submit(update).verdict == "accepted"
            took.append(time.process_time() - began)
    return count / statistics.median(took[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the rows there")
    parser.add_argument("--updates", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--codecs", nargs="+", default=available("fleetfl.codecs"))
    options = parser.parse_args()
    keep_freed(FREED_BYTES)  # as the server does
    rows = []
    print(
        f"{'updates/s':12}{'signed':>8}{'path':>10}{'of target':>11}{'update alone':>14}{'with steps':>12}"
    )
    for kind in options.codecs:
        for signed, target in TARGETS_PER_S.items():
            alone, stepping = (
                per_s(kind, goal, options.updates, options.rounds, signed=signed)
                for goal in (NEVER, GOAL)
            )
            path = path_per_s(kind, options.updates, options.rounds, signed=signed)
            print(
                f"{kind:12}{'yes' if signed else 'no':>8}{path:10,.0f}{path / target:10.2f}x"
                f"{alone:14,.0f}{stepping:12,.0f}",
                flush=True,
            )
            rows.append(
                {
                    "codec": kind,
                    "signed": signed,
                    "num_values": LAYOUT.size,
                    "path_updates_per_s": round(path, 1),
                    "updates_per_s": round(alone, 1),
                    "updates_per_s_with_steps": round(stepping, 1),
                }
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
