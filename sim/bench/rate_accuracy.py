"""Accuracy lost to each codec, measured on the same fleet with the same arrivals.

Each (codec, seed) is one run in a process of its own and one line of RUNS/FLEET/rate_accuracy.jsonl,
so a bench that was stopped goes on where it was.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from actors.config import ServerConfig
from fleetfl.config import Section, read_with, validate
from fleetfl.config import table as table_of
from fleetfl.config.usage import Usage
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.protocol.signing import Signer
from fleetfl.releases.generations import successor
from fleetfl.storage.scratch import scratch
from fleetfl.vectors import Layout
from sim.baselines.initial_model import fit_head
from sim.bench.config import BenchConfig, CandidateConfig
from sim.bench.lockstep import LockstepFleet, Traffic
from sim.datasets import checked, dealt
from sim.processes.sweep import key_of, measured
from sim.report.intervals import mean_ci95
from sim.settings import CrewConfig
from vehicle_agent.config import VehicleConfig
from vehicle_agent.sensors import AnySensor
from vehicle_agent.trainer import Trainer

S = TypeVar("S", bound=Section)

USAGE = Usage(
    "fleetfl bench rate-accuracy",
    (
        *("fleet", "seed", "model", "bench", "vehicle.trainer"),
        *(f"sim.{name}" for name in ("runs", "seed", "num_vehicles", "dataset", "weathers")),
        *(f"server.{name}" for name in ("aggregator", "optimizer", "clip", "max_staleness")),
    ),
    {
        "num_partitions": "no broker is there",
        "server": "updates are judged one after the other, without a server around it",
        "server.release": "each of bench.codecs has its own",
        "sim": "no fleet of processes runs",
        "sim.dataset.num_fleet": "only `fleetfl sim compare` deals frames out",
        "transport": "no broker is there",
        "vehicle": "each of bench.codecs has a codec and an error feedback of its own",
    },
    belongs_to_others=("compare", "chaos"),
)

Job = tuple[CandidateConfig, int]
"""One run: a candidate and a seed."""


@dataclass(frozen=True)
class Trial:
    """Inputs of one run, in a form that another process can receive."""

    tree: dict[str, Any]
    """Settings of the whole file, with overrides applied."""
    source: str
    """Name of the settings file, for error messages."""
    candidate_json: str
    """The `CandidateConfig` as JSON."""
    seed: int
    """Seed of the partitions, vehicle speeds and batches."""
    initial: Path
    """File with the initial parameters, float32 [P] as .npy."""


def run(
    path: Path, overrides: Sequence[str] = (), *, workers: int | None = None
) -> Iterator[tuple[int, int, list[dict[str, Any]]]]:
    """Yield (runs done, runs in all, rows so far) after every run; the last rows are the result.

    Columns: codec, kind, num_values, seeds, mqtt_bytes (mean over the updates, with MQTT's header),
    mqtt_bytes_max, bits_per_value (of the whole packet), body_bytes, release_mqtt_bytes, accuracy_mean
    and accuracy_ci95 (fractions; half the width of the interval), loss_points and loss_ci95 (percentage
    points below the baseline on the same seeds). Raises ConfigError, ModelError or SensorError.
    """
    tree = read_with(path, overrides)
    USAGE.require(tree, str(path), overrides)
    tree.setdefault("transport", {"kind": "mqtt"})
    config = validate(tree, "bench", BenchConfig, str(path))
    sim = validate(tree, "sim", CrewConfig, str(path))
    folder = (sim.runs / config.fleet).absolute()
    checked(sim.dataset, sim.model.built_task.targets, str(path))
    folder.mkdir(parents=True, exist_ok=True)
    initial = _initial_vector(tree, sim, folder)
    log = folder / "rate_accuracy.jsonl"
    jobs = {
        _key(tree, config, candidate, seed): (candidate, seed)
        for candidate in config.codecs
        for seed in config.seeds[: candidate.seeds]
    }
    trials = {
        key: Trial(tree, str(path), candidate.model_dump_json(), seed, initial)
        for key, (candidate, seed) in jobs.items()
    }
    for lines in measured(log, trials, _measure, workers=workers):
        done = {jobs[key]: line for key, line in lines.items()}
        yield len(done), len(jobs), rows(config, done)


def _key(tree: dict[str, Any], config: BenchConfig, candidate: CandidateConfig, seed: int) -> str:
    """Key of a run's settings; runs with equal keys have equal results."""
    settings = {part: tree.get(part) for part in ("seed", "model", "server", "sim")}
    settings["trainer"] = table_of(tree, "vehicle", "settings").get("trainer")
    bench = config.model_dump(mode="json", include={"updates", "sigma", "last_releases"})
    mine = candidate.model_dump(mode="json", exclude={"name", "seeds"})
    return key_of(settings, bench, mine, seed)


def _initial_vector(tree: dict[str, Any], sim: CrewConfig, folder: Path) -> Path:
    """File with the initial parameters, float32 [P] as .npy; trained if this model and data have none yet."""
    text = json.dumps([tree.get("seed"), tree["model"], tree["sim"]["dataset"]], default=str)
    # The former word, so that folders of earlier runs keep their initial models.
    path = folder / f"factory_{hashlib.sha256(text.encode()).hexdigest()[:12]}.npy"
    if not path.exists():
        model = sim.model.build(seed=sim.seed)
        fit_head(model, *sim.dataset.initial_frames(seed=sim.seed))
        np.save(path, model.vector())
    return path


def _measure(trial: Trial) -> dict[str, Any]:
    """Run one candidate on one seed; gives its line of rate_accuracy.jsonl."""
    tree, source = trial.tree, trial.source
    candidate = CandidateConfig.model_validate_json(trial.candidate_json)
    bench = validate(tree, "bench", BenchConfig, source)
    sim = validate(tree, "sim", CrewConfig, source)
    weathers = sim.weather_of_each()
    with scratch() as folder:
        tables = dealt(sim.dataset, weathers, folder / "shards", seed=trial.seed, source=source)
        sensors = [
            TypeAdapter(AnySensor).validate_python(t).build(sim.model.built_task.targets)
            for t in tables
        ]
        own = {"state": str(folder)}
        server = _section(trial, "server", ServerConfig, own)
        own |= {"name": "v00", "sensor": tables[0]}
        vehicle = _section(trial, "vehicle", VehicleConfig, own)
        signer = Signer.from_file(sim.fleet, folder / "key.pem")
    model = sim.model.build(seed=sim.seed, threads=1)
    held_out = sim.dataset.held_out(weathers, seed=sim.seed)
    coordinator = coordinator_of(server, candidate, np.load(trial.initial), model.layout)
    fleet = LockstepFleet(
        sim.fleet,
        coordinator,
        sensors,
        [Trainer(vehicle.trainer, model) for _ in sensors],
        codec=candidate.codec,
        error_feedback=candidate.error_feedback,
        signer=signer,
        seed=trial.seed,
    )
    last = _last_releases(fleet, coordinator, bench)
    accuracies = []
    for vector in last:
        model.load(vector)
        accuracies.append(held_out.accuracy(model.task, model.predictions(held_out.images))[0])
    return _line(candidate, trial.seed, model.layout.size, accuracies, fleet.traffic)


def _section(trial: Trial, name: str, section: type[S], own: dict[str, Any]) -> S:
    """Section `name` of the trial's settings, with the values `own` of this run."""
    part = {**table_of(trial.tree, name, trial.source), **own}
    return validate({**trial.tree, name: part}, name, section, trial.source)


def _last_releases(
    fleet: LockstepFleet, coordinator: Coordinator, bench: BenchConfig
) -> list[np.ndarray]:
    """Run the fleet to its end; gives the parameters of the last releases, float32 [P] each."""
    last: dict[int, np.ndarray] = {}

    def keep(_done: int) -> None:
        last[coordinator.version] = coordinator.published.vector
        last.pop(coordinator.version - bench.last_releases, None)

    fleet.run(bench.updates, sigma=bench.sigma, each=keep)
    return list(last.values())


def _line(
    candidate: CandidateConfig,
    seed: int,
    num_values: int,
    accuracies: list[float],
    traffic: Traffic,
) -> dict[str, Any]:
    return {
        "codec": candidate.name,
        "seed": seed,
        "num_values": num_values,
        "accuracy": float(np.mean(accuracies)),
        "accuracies": accuracies,
        "body_bytes": float(np.mean(traffic.bodies)),
        "mqtt_bytes": float(np.mean(traffic.packets)),
        "mqtt_bytes_max": max(traffic.packets),
        "release_mqtt_bytes": float(np.mean(traffic.releases)) if traffic.releases else None,
        "release_mqtt_bytes_max": max(traffic.releases, default=None),
    }


def coordinator_of(
    server: ServerConfig, candidate: CandidateConfig, initial: np.ndarray, layout: Layout
) -> Coordinator:
    """The server's coordinator with the candidate's codec on the way down; `initial` is float32 [P]."""
    settings = server.model_copy(update={"release": candidate.release})
    return Coordinator.from_settings(settings, initial, layout, generation=successor())


def rows(config: BenchConfig, done: dict[Job, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each candidate with two runs or more, in the order of the settings."""
    by_name = {
        c.name: {seed: line for (mine, seed), line in done.items() if mine == c}
        for c in config.codecs
    }
    against = by_name.get(config.baseline, {})
    return [
        _row(candidate, by_name[candidate.name], against)
        for candidate in config.codecs
        if len(by_name[candidate.name]) > 1
    ]


def _row(
    candidate: CandidateConfig, lines: dict[int, dict[str, Any]], against: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    """The candidate's row, from its lines and the baseline's by seed."""
    every = list(lines.values())
    num_values = every[0]["num_values"]
    mean, interval = mean_ci95([line["accuracy"] for line in every])
    loss, loss_interval = _lost_points(lines, against)
    packet = float(np.mean([line["mqtt_bytes"] for line in every]))
    downs = [line["release_mqtt_bytes"] for line in every if line["release_mqtt_bytes"]]
    return {
        "codec": candidate.name,
        "kind": candidate.codec.kind_name,
        "release": candidate.release.kind_name,
        "num_values": num_values,
        "seeds": len(every),
        "mqtt_bytes": round(packet, 1),
        "mqtt_bytes_max": max(line["mqtt_bytes_max"] for line in every),
        "bits_per_value": round(8 * packet / num_values, 4),
        "body_bytes": round(float(np.mean([line["body_bytes"] for line in every])), 1),
        "release_mqtt_bytes": round(float(np.mean(downs)), 1) if downs else None,
        "accuracy_mean": round(mean, 5),
        "accuracy_ci95": round(interval, 5),
        "loss_points": loss,
        "loss_ci95": loss_interval,
    }


def _lost_points(
    lines: dict[int, dict[str, Any]], against: dict[int, dict[str, Any]]
) -> tuple[float | None, float | None]:
    """Mean and 95 % interval of the percentage points below the baseline; None with one shared seed or
    none.
    """
    shared = [seed for seed in lines if seed in against]
    losses = [100 * (against[s]["accuracy"] - lines[s]["accuracy"]) for s in shared]
    if len(losses) < 2:
        return None, None
    loss, interval = mean_ci95(losses)
    return round(loss, 3), round(interval, 3)


def table(results: Sequence[dict[str, Any]]) -> Table:
    """The result of `rows` as a table for the terminal."""
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
