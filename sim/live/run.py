"""A fleet on this machine: broker, server, vehicle processes and a client, from start to report."""

import contextlib
import datetime
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from actors.cluster import Server, serving
from actors.config import ServerConfig
from actors.startup import require_broker, require_ports
from fleetfl.codecs import decoder
from fleetfl.config import ConfigError, read_with, table, validate
from fleetfl.config.usage import Usage
from fleetfl.evaluation.held_out import HeldOut
from fleetfl.events.event_log import Config as EventsConfig
from fleetfl.events.event_log import EventLog, EventReader, parts
from fleetfl.models.adapted import AdaptedModel
from fleetfl.registry.adapter_file import write_adapter
from fleetfl.storage.scratch import scratch
from fleetfl.storage.state_lock import LOCK, state_lock
from fleetfl.vectors import Layout
from fleetfl.version import commit
from sim.baselines.centralized import train_central
from sim.baselines.initial_model import fit_head
from sim.datasets import checked, dealt
from sim.live.client import Client, png
from sim.live.config import CentralizedConfig, SimConfig
from sim.live.tally import Tally
from sim.live.vehicle_processes import VehicleProcesses, write_files
from sim.processes import brokers
from sim.report import write_report
from sim.report.measurement import Measurement
from sim.report.progress import Progress
from sim.report.summary import summarize
from sim.settings import within_fleet
from vehicle_agent.config import VehicleConfig
from vehicle_agent.sensors import AnySensor

OURS = (
    "adapter.safetensors",
    "bans.json",
    "broker",
    "checkpoints",
    "events.jsonl",
    "factory.safetensors",
    "gateway-id",
    "generation",
    "held_out.npz",
    "journal",
    "key.pem",
    "keys",
    "last_told_row",
    "registry",
    "report.html",
    "server",
    "server.lock",
    "server.pub",
    "shards",
    "summary.json",
    "vehicles",
)
"""What a run writes into its folder, and what the next run of that name clears away."""


def run(path: Path, overrides: Sequence[str] = (), *, progress: Progress) -> dict[str, Any]:
    """Run the fleet that the file describes; gives the summary, also written to RUNS/FLEET.

    Raises ConfigError, and the errors of the parts: BrokerError, ServerError, FleetError,
    ModelError, SensorError.
    """
    tree = read_with(path, overrides)
    return run_settings(tree, str(path), progress=progress, overrides=overrides)


def run_settings(
    tree: dict[str, Any], source: str, *, progress: Progress, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """As `run`, with the settings as they were read from `source`, the overrides laid over them already."""
    given, tree = tree, {"transport": {"kind": "mqtt"}, **tree}
    config = validate(tree, "sim", SimConfig, source)
    usage_of(config).require(given, source, overrides)
    checked(config.dataset, config.model.built_task.targets, source)
    return _Run(source, tree, config, progress).go()


MADE = "a run makes its own"
USAGE = Usage(
    "fleetfl sim run",
    ("fleet", "seed", "model", "transport", "num_partitions", "server", "vehicle", "sim"),
    {
        **dict.fromkeys([f"server.{n}" for n in ("state", "resume", "initial", "held_out")], MADE),
        **dict.fromkeys([f"vehicle.{n}" for n in ("name", "state", "sensor", "server_key")], MADE),
        "sim.dataset.num_fleet": "only `fleetfl sim compare` deals frames out",
    },
    belongs_to_others=("bench", "compare", "chaos"),
)
OF_OUR_BROKER = dict.fromkeys(
    ("transport.host", "transport.port"), "the run starts a broker; see sim.broker: external"
)


def usage_of(config: SimConfig) -> Usage:
    """The settings that a run reads, with a broker of its own or another one."""
    if config.broker == "external":
        return USAGE
    return replace(USAGE, passes_over={**USAGE.passes_over, **OF_OUR_BROKER})


class _Run:
    """The steps of one run, in the order of `go`."""

    def __init__(
        self, source: str, tree: dict[str, Any], config: SimConfig, progress: Progress
    ) -> None:
        self.source, self.tree, self.config, self.progress = source, tree, config, progress
        self.folder = (config.runs / config.fleet).absolute()
        self.weathers = config.weather_of_each()
        self.sensors: list[dict[str, Any]] = []
        """The `sensor` table of each vehicle."""

    def go(self) -> dict[str, Any]:
        config, began = self.config, datetime.datetime.now(datetime.timezone.utc)
        self._check()
        model, held_out = self._factory()
        factory = model.vector()
        # Only now is it known that this run can start: before, the results of the last one stay.
        self._begin_folder(factory, model.layout, held_out)
        with self._broker() as transport:
            self.tree["transport"] = transport
            with serving(self._server_config(), tell=self.progress.step) as server:
                assert server.url is not None, "checked in _server_config"
                self.progress.say(f"endpoint at [bold]{server.url}[/] (docs at {server.url}/docs)")
                client = Client(server.url, held_out, model.task, self.events)
                with contextlib.closing(client):
                    start, end = self._train(server, client)
                newest = server.newest()
                vector = decoder(newest.codec, model.layout).decode(newest.body)
        write_adapter(
            self.folder / "adapter.safetensors", model.layout, vector, version=end.version
        )
        centralized_baseline = None
        if config.centralized_baseline is not None:
            centralized_baseline = self._centralized_baseline(
                model, factory, held_out, config.centralized_baseline
            )
        events = EventReader(self.folder / "events.jsonl").read()
        summary = summarize(
            events,
            start=start,
            end=end,
            centralized_baseline=centralized_baseline,
            num_values=model.layout.size,
            num_parameters=sum(p.numel() for p in model.parameters()),
            latencies_s=client.latencies_s,
            http_requests=client.requests,
            http_failures=client.failures,
            name=config.fleet,
            folder=str(self.folder),
            config=self.source,
            commit=commit(),
            seed=config.seed,
            started_at=began.isoformat(timespec="seconds"),
            duration_s=round((datetime.datetime.now(datetime.timezone.utc) - began).seconds, 1),
            num_vehicles=config.num_vehicles,
            precision=str(model.dtype).removeprefix("torch."),
        )
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        write_report(
            self.folder / "report.html", summary, events, pictures=example_pictures(held_out)
        )
        return summary

    def _factory(self) -> tuple[AdaptedModel, HeldOut]:
        config = self.config
        self.progress.step("factory: a head for clear weather on the frozen backbone")
        model = config.model.build(seed=config.seed)
        images, labels = config.dataset.initial_frames(seed=config.seed)
        accuracy = fit_head(model, images, labels)
        held_out = config.dataset.held_out(self.weathers, seed=config.seed)
        self.progress.say(
            f"{len(images)} clear frames, {accuracy:.1%} right on them; "
            f"{model.layout.size:,} values to train, {len(held_out.labels)} held-out frames"
        )
        return model, held_out

    def _train(self, server: Server, client: Client) -> tuple[Measurement, Measurement]:
        config, stop = self.config, self.config.stop
        self.progress.step("release 0 through the endpoint")
        start = client.measure()
        self.progress.say(f"factory model under the fleet's weather: [bold]{start.accuracy:.1%}[/]")
        vehicles = write_files(
            self.tree,
            self.weathers,
            self.sensors,
            self.folder / "vehicles",
            server_key=self.folder / "server.pub",
        )
        fleet = VehicleProcesses(vehicles, self.events, restart_s=config.restart_s)
        try:
            self.progress.step(f"{len(vehicles)} vehicles start")
            fleet.start()
            client.start(config.client_rate_per_s)
            # The clock runs from the first update: a slow start of 8 processes is no training.
            tally, began = Tally(self.folder / "events.jsonl"), None
            self.progress.step("the fleet learns")
            while True:
                time.sleep(0.5)
                fleet.watch()
                server.check()
                for incident in tally.read():
                    self.progress.say(incident)
                if began is None and tally.accepted:
                    began = time.monotonic()
                spent = 0.0 if began is None else time.monotonic() - began
                done = max(
                    spent / stop.seconds if stop.seconds else 0.0,
                    tally.version / stop.releases if stop.releases else 0.0,
                )
                self.progress.fleet(min(done, 1.0), f"{fleet.alive} vehicles  {tally}")
                if done >= 1:
                    break
        finally:
            self.progress.step("vehicles stop")
            fleet.stop()
            client.stop()
        newest = server.newest().version
        self._wait_for(client, newest)
        self.progress.step(f"release {newest} through the endpoint")
        return start, client.measure()

    def _wait_for(self, client: Client, version: int, patience_s: float = 30.0) -> None:
        deadline = time.monotonic() + patience_s
        while client.version() < version and time.monotonic() < deadline:
            time.sleep(0.05)

    def _centralized_baseline(
        self,
        model: AdaptedModel,
        factory: np.ndarray,
        held_out: HeldOut,
        settings: CentralizedConfig,
    ) -> float:
        steps = settings.image_steps
        self.progress.step(
            f"centralized baseline: training on the pooled data, {steps:,} image steps"
        )
        sensors = [TypeAdapter(AnySensor).validate_python(table) for table in self.sensors]
        vector = train_central(
            model,
            factory,
            [sensor.build(model.task.targets) for sensor in sensors],
            image_steps=steps,
            learning_rate=settings.learning_rate,
            seed=self.config.seed,
            progress=self.progress.share,
        )
        model.load(vector)
        accuracy, _ = held_out.accuracy(model.task, model.predictions(held_out.images))
        self.progress.say(f"centralized baseline: [bold]{accuracy:.1%}[/]")
        return accuracy

    @contextlib.contextmanager
    def _broker(self) -> Iterator[dict[str, Any]]:
        """The `transport` table that reaches the broker, which ends with the context if it is ours."""
        if self.config.broker == "external":
            yield self.tree["transport"]
            return
        self.progress.step(f"broker: {self.config.broker}")
        start = brokers.nats_server if self.config.broker == "nats" else brokers.mosquitto
        with start(self.folder / "broker") as running:
            self.progress.say(f"MQTT at {running.host}:{running.port}")
            yield {**self.tree["transport"], "host": running.host, "port": running.port}

    def _part(self, part: str, **ours: Any) -> dict[str, Any]:
        return {**self.tree, part: {**table(self.tree, part, self.source), **ours}}

    def _server_config(self) -> ServerConfig:
        ours = {
            "state": str(self.folder),
            "initial": str(self.folder / "factory.safetensors"),
            "held_out": str(self.folder / "held_out.npz"),
        }
        config = validate(self._part("server", **ours), "server", ServerConfig, self.source)
        if "events" not in config.model_fields_set:  # each status is in the report
            config = config.model_copy(update={"events": EventsConfig(status_s=0)})
        if config.http is None:
            raise ConfigError(
                f"{self.source}: server.http: got null, expected the endpoint's settings"
            )
        return within_fleet(config, self.config.num_vehicles)

    def _check(self) -> None:
        """Say what is wrong before anything is started, written or deleted.

        Raises ConfigError, SensorError, BrokerError, ServerError for a port that is taken, and TenancyError
        if the folder is that of a run that goes on.
        """
        require_clearable(self.folder)
        server = self._server_config()
        with scratch() as folder:
            tables = self._dealt(folder)
            ours = {"name": "v00", "state": str(self.folder), "sensor": tables[0]}
            validate(self._part("vehicle", **ours), "vehicle", VehicleConfig, self.source)
        require_ports(server)
        if self.config.broker == "external":
            require_broker(server.transport, self.config.fleet)
        else:
            brokers.require(self.config.broker)

    def _dealt(self, folder: Path) -> list[dict[str, Any]]:
        config = self.config
        return dealt(
            config.dataset,
            self.weathers,
            folder / "shards",
            seed=config.seed,
            source=self.source,
        )

    def _begin_folder(self, factory: np.ndarray, layout: Layout, held_out: HeldOut) -> None:
        with state_lock(self.folder):
            clear(self.folder)
        self.sensors = self._dealt(self.folder)
        write_adapter(self.folder / "factory.safetensors", layout, factory, version=0)
        held_out.save(self.folder / "held_out.npz")
        self.events = EventLog(self.folder / "events.jsonl")


def require_clearable(folder: Path) -> None:
    """Raises ConfigError if it holds other things than runs write, TenancyError if a run goes on there."""
    ours = {*OURS, *(part.name for part in parts(folder / "events.jsonl"))}
    strangers = sorted(path.name for path in folder.glob("*") if path.name not in ours)
    if strangers or folder.is_file():
        raise ConfigError(f"sim.runs: {folder} holds {strangers or 'a file'}, which no run wrote")
    if (folder / LOCK).exists():
        with state_lock(folder):
            pass


def clear(folder: Path) -> None:
    """Remove what an earlier run wrote, but for the lock, which whoever calls this holds."""
    for path in (*(folder / name for name in OURS), *parts(folder / "events.jsonl")):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)


def example_pictures(held_out: HeldOut, each: int = 4) -> list[tuple[str, bytes]]:
    """A few held-out frames of each condition: caption and PNG."""
    return [
        (str(condition), png(held_out.images[row]))
        for condition in np.unique(held_out.conditions)
        for row in np.flatnonzero(held_out.conditions == condition)[:each]
    ]
