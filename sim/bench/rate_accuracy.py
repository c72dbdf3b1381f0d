"""What a codec costs in accuracy: the same fleet, the same arrivals, one codec after the other.

Each (codec, seed) is one run in a process of its own and one line of RUNS/FLEET/rate_accuracy.jsonl,
so a bench that was stopped goes on where it was.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from actors.config import ServerConfig
from fleetfl.config import read_with, validate
from fleetfl.config import table as table_of
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.protocol.signing import Signer
from fleetfl.releases.generations import successor
from fleetfl.storage.scratch import scratch
from sim.baselines.initial_model import fit_head
from sim.bench.config import BenchConfig, CandidateConfig
from sim.bench.lockstep import LockstepFleet
from sim.datasets import checked, dealt
from sim.live.config import SimConfig
from sim.processes.sweep import key_of, measured
from sim.report.intervals import mean_ci95
from vehicle_agent.config import VehicleConfig
from vehicle_agent.sensors import AnySensor
from vehicle_agent.trainer import Trainer

Job = tuple[CandidateConfig, int]
"""A run: the codec, and the seed."""


def run(
    path: Path, overrides: Sequence[str] = (), *, workers: int | None = None
) -> Iterator[tuple[int, int, list[dict[str, Any]]]]:
    """(runs done, runs in all, rows so far) after every run; the last rows are the result.

    A row: codec, kind, num_values, seeds, mqtt_bytes (mean over the updates, with MQTT's header),
    mqtt_bytes_max, bits_per_value (of the whole packet), body_bytes, release_mqtt_bytes, accuracy_mean
    and accuracy_ci95 (fractions; half the width of the interval), loss_points and loss_ci95 (percentage
    points below the baseline on the same seeds). Raises ConfigError, ModelError or SensorError.
    """
    tree = read_with(path, overrides)
    tree.setdefault("transport", {"kind": "mqtt"})
    config = validate(tree, "bench", BenchConfig, str(path))
    sim = validate(tree, "sim", SimConfig, str(path))
    folder = (sim.runs / config.fleet).absolute()
    checked(sim.dataset, sim.model.classes, str(path))
    folder.mkdir(parents=True, exist_ok=True)
    factory = _factory(tree, sim, folder)
    log = folder / "rate_accuracy.jsonl"
    jobs = {
        _key(tree, config, candidate, seed): (candidate, seed)
        for candidate in config.codecs
        for seed in config.seeds[: candidate.seeds]
    }
    cells = {
        key: (tree, str(path), candidate.model_dump_json(), seed, factory)
        for key, (candidate, seed) in jobs.items()
    }
    for lines in measured(log, cells, _measure, workers=workers):
        done = {jobs[key]: line for key, line in lines.items()}
        yield len(done), len(jobs), rows(config, done)


def _key(tree: dict[str, Any], config: BenchConfig, candidate: CandidateConfig, seed: int) -> str:
    """Equal for runs that would come out equal."""
    settings = {part: tree.get(part) for part in ("seed", "model", "server", "sim")}
    settings["trainer"] = table_of(tree, "vehicle", "settings").get("trainer")
    bench = config.model_dump(mode="json", include={"updates", "sigma", "last_releases"})
    mine = candidate.model_dump(mode="json", exclude={"name", "seeds"})
    return key_of(settings, bench, mine, seed)


def _factory(tree: dict[str, Any], sim: SimConfig, folder: Path) -> Path:
    """The factory's vector, float32 [P] as .npy, made if this model and data have none yet."""
    text = json.dumps([tree.get("seed"), tree["model"], tree["sim"]["dataset"]], default=str)
    path = folder / f"factory_{hashlib.sha256(text.encode()).hexdigest()[:12]}.npy"
    if not path.exists():
        model = sim.model.build(seed=sim.seed)
        fit_head(model, *sim.dataset.initial_frames(seed=sim.seed))
        np.save(path, model.vector())
    return path


def _measure(trial: tuple[dict[str, Any], str, str, int, Path]) -> dict[str, Any]:
    tree, source, contestant_json, seed, factory = trial
    candidate = CandidateConfig.model_validate_json(contestant_json)
    bench = validate(tree, "bench", BenchConfig, source)
    sim = validate(tree, "sim", SimConfig, source)
    with scratch() as folder:
        weathers = sim.weather_of_each()
        tables = dealt(sim.dataset, weathers, folder / "shards", seed=seed, source=source)
        sensors = [
            TypeAdapter(AnySensor).validate_python(t).build(sim.model.classes) for t in tables
        ]
        mine = {"name": "v00", "state": str(folder), "sensor": tables[0]}
        part = {**table_of(tree, "vehicle", source), **mine}
        vehicle = validate({**tree, "vehicle": part}, "vehicle", VehicleConfig, source)
        part = {**table_of(tree, "server", source), "state": str(folder)}
        server = validate({**tree, "server": part}, "server", ServerConfig, source)
        signer = Signer.from_file(sim.fleet, folder / "key.pem")
    model = sim.model.build(seed=sim.seed, threads=1)
    held_out = sim.dataset.held_out(weathers, seed=sim.seed)
    coordinator = Coordinator(
        np.load(factory),
        model.layout,
        server.aggregator.build(model.layout.size),
        server.optimizer.build(model.layout.size),
        release_codec=candidate.release,
        generation=successor(),
        max_staleness=server.max_staleness,
        clip=server.clip,
    )
    fleet = LockstepFleet(
        sim.fleet,
        coordinator,
        sensors,
        [Trainer(vehicle.trainer, model) for _ in sensors],
        codec=candidate.codec,
        error_feedback=candidate.error_feedback,
        signer=signer,
        seed=seed,
    )
    last: dict[int, np.ndarray] = {}

    def keep(_done: int) -> None:
        last[coordinator.version] = coordinator.published.vector
        last.pop(coordinator.version - bench.last_releases, None)

    fleet.run(bench.updates, sigma=bench.sigma, each=keep)
    accuracies = []
    for vector in last.values():
        model.load(vector)
        accuracies.append(held_out.accuracy(model.probabilities(held_out.images).argmax(1))[0])
    traffic = fleet.traffic
    return {
        "codec": candidate.name,
        "seed": seed,
        "num_values": model.layout.size,
        "accuracy": float(np.mean(accuracies)),
        "accuracies": accuracies,
        "body_bytes": float(np.mean(traffic.bodies)),
        "mqtt_bytes": float(np.mean(traffic.packets)),
        "mqtt_bytes_max": max(traffic.packets),
        "release_mqtt_bytes": float(np.mean(traffic.releases)) if traffic.releases else None,
        "release_mqtt_bytes_max": max(traffic.releases, default=None),
    }


def rows(config: BenchConfig, done: dict[Job, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each contestant with two runs or more, in the settings' order."""
    by_name = {
        c.name: {seed: line for (mine, seed), line in done.items() if mine == c}
        for c in config.codecs
    }
    against = by_name.get(config.baseline, {})
    found = []
    for candidate in config.codecs:
        lines = by_name[candidate.name]
        if len(lines) < 2:
            continue
        every = list(lines.values())
        mean, interval = mean_ci95([line["accuracy"] for line in every])
        shared = [seed for seed in lines if seed in against]
        losses = [100 * (against[s]["accuracy"] - lines[s]["accuracy"]) for s in shared]
        loss, loss_interval = mean_ci95(losses) if len(losses) > 1 else (None, None)
        packet = float(np.mean([line["mqtt_bytes"] for line in every]))
        downs = [line["release_mqtt_bytes"] for line in every if line["release_mqtt_bytes"]]
        found.append(
            {
                "codec": candidate.name,
                "kind": candidate.codec.kind_name,
                "release": candidate.release.kind_name,
                "num_values": every[0]["num_values"],
                "seeds": len(every),
                "mqtt_bytes": round(packet, 1),
                "mqtt_bytes_max": max(line["mqtt_bytes_max"] for line in every),
                "bits_per_value": round(8 * packet / every[0]["num_values"], 4),
                "body_bytes": round(float(np.mean([line["body_bytes"] for line in every])), 1),
                "release_mqtt_bytes": round(float(np.mean(downs)), 1) if downs else None,
                "accuracy_mean": round(mean, 5),
                "accuracy_ci95": round(interval, 5),
                "loss_points": None if loss is None else round(loss, 3),
                "loss_ci95": None if loss_interval is None else round(loss_interval, 3),
            }
        )
    return found


def table(results: Sequence[dict[str, Any]]) -> Table:
    """`rows` for a terminal."""
    drawn = Table(box=SIMPLE_HEAD)
    for heading in (
        "codec",
        "seeds",
        "up, B",
        "most, B",
        "down, B",
        "bits/value",
        "accuracy",
        "lost",
    ):
        drawn.add_column(heading, justify="left" if heading == "codec" else "right")
    for row in results:
        down, lost = row["release_mqtt_bytes"], row["loss_points"]
        drawn.add_row(
            row["codec"],
            str(row["seeds"]),
            f"{row['mqtt_bytes']:,.0f}",
            f"{row['mqtt_bytes_max']:,}",
            "" if down is None else f"{down:,.0f}",
            f"{row['bits_per_value']:.3f}",
            f"{row['accuracy_mean']:.1%} ± {100 * row['accuracy_ci95']:.1f}",
            "" if lost is None else f"{lost:+.2f} ± {row['loss_ci95']:.2f}",
        )
    return drawn
