"""Bytes and time of codecs on updates that vehicles really made: `fleetfl bench codec`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import TypeAdapter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fleetfl.codecs import AnyCodec, CodecConfig
from fleetfl.config import Section, parsed, read_with, validate
from fleetfl.config import table as table_of
from fleetfl.config.usage import Usage
from fleetfl.plugins import available
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import Update
from fleetfl.protocol.signing import Signer
from fleetfl.storage.scratch import scratch
from fleetfl.transport import mqtt_publish_bytes
from fleetfl.vectors import Layout
from sim.baselines.initial_model import fit_head
from sim.datasets import checked, dealt
from sim.live.config import SimConfig
from sim.report.progress import Progress
from vehicle_agent.config import VehicleConfig
from vehicle_agent.sensors import AnySensor
from vehicle_agent.trainer import Trainer

PASSES = 5
"""Timed passes over all vectors; the fastest pass is reported."""
BESIDE_DEFAULTS = (
    {"kind": "eden", "bits": 2},
    {"kind": "eden", "bits": 3},
    {"kind": "eden", "bits": 4},
    {"kind": "top_signs", "keep": 0.1},
    {"kind": "top_signs", "keep": 0.01},
)


USAGE = Usage(
    "fleetfl bench codec",
    (
        *("fleet", "seed", "num_partitions", "model", "vehicle.trainer"),
        *(f"sim.{name}" for name in ("seed", "num_vehicles", "dataset", "weathers")),
    ),
    # The file is that of a fleet whose updates are measured, so it may say how that fleet is run.
    belongs_to_others=("server", "vehicle", "sim", "transport", "bench", "compare", "chaos"),
)


class _Codecs(Section):
    codecs: tuple[AnyCodec, ...]
    """Codecs to measure, each with its settings."""


@dataclass(frozen=True)
class Recording:
    """Decoded updates of a fleet, and the sizes that encoding them needs."""

    layout: Layout
    vectors: list[np.ndarray]
    """Updates, one float32 [P] each."""
    topic: str
    """MQTT topic that a vehicle of this fleet publishes its updates to; its length counts as bytes."""


def configs_of(tables: Sequence[str] = ()) -> list[CodecConfig]:
    """Codecs from YAML tables such as `{kind: eden, bits: 2}`; without tables, every kind and some variants.

    Raises ConfigError.
    """
    trees = [parsed(table, "--codec") for table in tables] or [
        *({"kind": kind} for kind in available("fleetfl.codecs")),
        *BESIDE_DEFAULTS,
    ]
    return list(validate({"codecs": trees}, "bench", _Codecs, "--codec").codecs)


def record(
    path: Path, overrides: Sequence[str] = (), *, updates: int, progress: Progress
) -> Recording:
    """Train the file's vehicles in turn; after each round all of them start from the mean of their updates.

    Raises ConfigError, ModelError or SensorError.
    """
    tree = read_with(path, overrides)
    USAGE.require(tree, str(path), overrides)
    tree.setdefault("transport", {"kind": "mqtt"})
    config = validate(tree, "sim", SimConfig, str(path))
    checked(config.dataset, config.model.built_task.targets, str(path))
    weathers = config.weather_of_each()[:updates]
    with scratch() as folder:
        tables = dealt(config.dataset, weathers, folder, seed=config.seed, source=str(path))
        sensors = [
            TypeAdapter(AnySensor).validate_python(table).build(config.model.built_task.targets)
            for table in tables
        ]
        part = {"name": "v00", "state": str(folder), "sensor": tables[0]}
        tree["vehicle"] = {**table_of(tree, "vehicle", str(path)), **part}
        vehicle = validate(tree, "vehicle", VehicleConfig, str(path))
    progress.step("initial model: a head for clear weather on the frozen backbone")
    model = config.model.build(seed=config.seed)
    fit_head(model, *config.dataset.initial_frames(seed=config.seed))
    progress.step(f"{updates} updates of {len(sensors)} vehicles")
    trainers = [Trainer(vehicle.trainer, model) for _ in sensors]
    start, vectors = model.vector(), []
    for number in range(updates):
        turn = number % len(sensors)
        frames = sensors[turn].read(vehicle.trainer.num_examples)
        vectors.append(trainers[turn].train(start, frames, seed=config.seed + number).delta)
        if turn == len(sensors) - 1:
            start = start + np.mean(vectors[-len(sensors) :], axis=0, dtype=np.float32)
        progress.share((number + 1) / updates)
    topic = topics.update(config.fleet, vehicle.name, config.num_partitions)
    return Recording(model.layout, vectors, topic)


def measure(
    vectors: list[np.ndarray], layout: Layout, configs: Sequence[CodecConfig], *, topic: str
) -> list[dict[str, Any]]:
    """One row for each codec; byte counts are means over the vectors, float32 [P].

    Columns: codec, num_values, frame_bytes (signed frame), mqtt_bytes (frame and MQTT header),
    bits_per_value (from mqtt_bytes), encode_values_per_s and decode_values_per_s (CPU time of one core).
    """
    signer = Signer("bench", Ed25519PrivateKey.generate())
    rows = []
    for config in configs:
        codec = config.build(layout)
        bodies = [codec.encode(vector) for vector in vectors]
        frames = [len(_frame(config.kind_name, body, layout, signer)) for body in bodies]
        packets = [mqtt_publish_bytes(topic, size) for size in frames]
        rows.append(
            {
                "codec": named(config),
                "num_values": layout.size,
                "frame_bytes": round(float(np.mean(frames)), 1),
                "mqtt_bytes": round(float(np.mean(packets)), 1),
                "bits_per_value": round(8 * float(np.mean(packets)) / layout.size, 4),
                "encode_values_per_s": _values_per_s(codec.encode, vectors, layout.size),
                "decode_values_per_s": _values_per_s(codec.decode, bodies, layout.size),
            }
        )
    return rows


def named(config: CodecConfig) -> str:
    """The codec's kind followed by each setting that differs from its default, as `name=value`."""
    settings = config.model_dump(exclude_defaults=True, exclude={"kind"})
    return " ".join([config.kind_name, *(f"{name}={value}" for name, value in settings.items())])


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows of `measure` as a table for the terminal."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    shown.add_column("codec", no_wrap=True)
    for name in ("frame", "MQTT", "bits/value", "encode M/s", "decode M/s"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(
            row["codec"],
            f"{row['frame_bytes']:,.0f}",
            f"{row['mqtt_bytes']:,.0f}",
            f"{row['bits_per_value']:.3f}",
            f"{row['encode_values_per_s'] / 1e6:,.0f}",
            f"{row['decode_values_per_s'] / 1e6:,.0f}",
        )
    return shown


def _frame(codec: str, body: bytes, layout: Layout, signer: Signer) -> bytes:
    """Signed frame of an update as a vehicle sends it, with counters as large as after long operation."""
    now = int(time.time())
    update = Update(
        vehicle="v00",
        boot="00000000",
        sequence=1000,
        base_version=1000,
        layout=layout.fingerprint,
        parts=layout.parts,
        num_examples=320,
        local_steps=10,
        captured_from=now,
        captured_to=now,
        loss=0.5,
        codec=codec,
        body=body,
        generation="10-a1b2c3",
        base_sha256=bytes(8),
    )
    return wire.encode(update, signer)


def _values_per_s(work: Callable[[Any], object], inputs: Sequence[Any], size: int) -> int:
    seconds = []
    for _ in range(PASSES):
        # CPU time of this thread: other work on the machine does not count.
        start = time.thread_time()
        for one in inputs:
            work(one)
        seconds.append(time.thread_time() - start)
    return round(len(inputs) * size / max(min(seconds), 1e-9))
