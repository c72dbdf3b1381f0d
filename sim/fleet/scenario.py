"""A virtual fleet as a file describes it: what it shares, its server, its vehicles, and the part `sim`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from actors.config import ServerConfig
from fleetfl.config import ConfigError, Section, read_with, table, validate
from fleetfl.config.usage import Usage
from fleetfl.coordination.settings import CoordinatorSettings
from fleetfl.fleet_config import FleetConfig
from sim.datasets import AnyDataset, Weather, checked
from sim.datasets.drone_world import Config as DroneWorld
from sim.fleet.availability import AnyAvailability
from sim.fleet.availability.always import Config as Always
from sim.fleet.devices import DEVICES, Device
from sim.fleet.executors import AnyExecutor, TrainingContext
from sim.fleet.executors.serial import Config as Serial
from sim.fleet.learning import AnyLearning, LearningContext
from sim.fleet.learning.vision import Config as Vision
from sim.fleet.links import AnyLink
from sim.fleet.links.lte import Config as Lte
from sim.fleet.participation import AnyParticipation
from sim.fleet.participation.continuous import Config as Continuous
from sim.fleet.weather import AnyWeather
from sim.fleet.weather.dealt import Config as Dealt
from sim.settings import within_fleet
from vehicle_agent.config import VehicleConfig

READS = (
    *("fleet", "seed", "model", "model.classes", "num_partitions", "sim"),
    *(f"server.{name}" for name in (*CoordinatorSettings.model_fields, "initial", "held_out")),
    *(f"vehicle.{name}" for name in ("trainer", "codec", "error_feedback", "agent", "outbox")),
)
PASSES_OVER = {
    "server": "a virtual server keeps nothing on disk and listens nowhere",
    "transport": "virtual vehicles reach their server by `sim.links`",
    "vehicle": "every virtual vehicle has a name, frames and a state of its own",
    "vehicle.outbox.max_record": "an outbox in memory keeps no record",
    "sim.dataset.num_fleet": "only `fleetfl sim compare` deals frames out",
    "sim.transport": "virtual vehicles reach their server by `sim.links`",
}
"""Settings that a virtual fleet does not use, by path, and the reason."""


class StopConfig(Section):
    """When the run ends: at whichever comes first."""

    hours: float = Field(default=24.0, gt=0)
    """Hours of virtual time."""
    releases: int | None = Field(default=None, ge=1)
    """Versions released by then."""
    updates: int | None = Field(default=None, ge=1)
    """Accepted ones."""


class VirtualConfig(FleetConfig):
    """A virtual fleet: what vehicles, links and days are like, and when the run ends."""

    former_names: ClassVar = {"trainings": "executor"}

    clock: Literal["virtual"]
    """`virtual` runs the fleet on virtual time; without it a fleet of real processes runs."""
    runs: Path = Path("runs")
    """Results go to RUNS/FLEET."""
    num_vehicles: int = Field(default=100, ge=1, le=1_000_000)
    """Vehicles in the fleet."""
    start_hour: float = Field(default=0.0, ge=0, lt=24)
    """Hour of the day at which the run begins."""
    stop: StopConfig = StopConfig()
    """When the run ends."""
    learning: AnyLearning = Vision()
    """What a vehicle trains: the model on rendered frames, or a synthetic problem."""
    executor: AnyExecutor = Serial()
    """Executor of the trainings: one by one in this process, or in stacks on all cores."""
    dataset: AnyDataset = DroneWorld()
    """The data set: frames that the fleet sees. Weather comes from `weathers` and `weather`."""
    weathers: tuple[Weather, ...] = Field(
        default=(Weather(condition="fog"), Weather(condition="night")), min_length=1
    )
    """Conditions that the fleet meets."""
    weather: AnyWeather = Dealt()
    """Which of them a vehicle flies through, and when."""
    device_classes: dict[str, Device] = Field(default_factory=lambda: dict(DEVICES))
    """Computers that vehicles carry, by name, with their speed and power."""
    devices: dict[str, float] = Field(default_factory=lambda: {"jetson_orin": 1.0})
    """Share of the fleet that has each class."""
    speed_sigma: float = Field(default=0.5, ge=0)
    """Sigma of the log-normal factor by which a vehicle is slower or faster than its device."""
    jitter_sigma: float = Field(default=0.1, ge=0)
    """Sigma of a log-normal factor on each training's time, drawn anew each time."""
    links: tuple[AnyLink, ...] = Field(default=(Lte(),), min_length=1)
    """Dealt to the vehicles in turn."""
    availability: AnyAvailability = Always()
    """When a vehicle is switched on."""
    participation: AnyParticipation = Continuous()
    """Which of the vehicles that are on train, and when."""
    frame_every_s: float = Field(default=0.0, ge=0)
    """Between two frames that are worth training on; a training waits for all of its own."""
    lost_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of trainings in the middle of which a vehicle loses power."""
    evaluate_every_s: float = Field(default=600.0, gt=0)
    """Virtual seconds between two looks at the newest release's accuracy."""

    @model_validator(mode="after")
    def _classes_are_known(self) -> "VirtualConfig":
        shares = self.devices.values()
        is_known = all(name in self.device_classes for name in self.devices)
        if not is_known or min(shares, default=0) < 0 or not sum(shares) > 0:
            known = ", ".join(self.device_classes)
            raise ValueError(f"devices: got {self.devices}, expected positive shares of {known}")
        return self


@dataclass(frozen=True)
class Scenario:
    """The settings of a virtual fleet. Vehicles sign nothing: what signatures cost is measured elsewhere."""

    sim: VirtualConfig
    server: ServerConfig
    vehicle: VehicleConfig
    initial_seed: int
    """Of version 0 and the held-out frames; `sim.seed` deals the rest."""


def learning_context(
    scenario: Scenario, folder: Path, say: Callable[[str], None]
) -> LearningContext:
    """The scenario's part that its learning may know; `folder` keeps what takes long to make."""
    sim, server = scenario.sim, scenario.server
    return LearningContext(
        fleet=sim.fleet,
        seed=sim.seed,
        initial_seed=scenario.initial_seed,
        num_vehicles=sim.num_vehicles,
        model=sim.model,
        trainer=scenario.vehicle.trainer,
        dataset=sim.dataset,
        weathers=sim.weathers,
        weather=sim.weather,
        initial=server.initial,
        held_out=server.held_out,
        folder=folder,
        say=say,
    )


def training_context(scenario: Scenario) -> TrainingContext:
    """The scenario's part that its executor may know."""
    sim = scenario.sim
    return TrainingContext(
        learning=sim.learning.kind_name,
        model=sim.model,
        trainer=scenario.vehicle.trainer,
        seed=sim.seed,
    )


def read_scenario(
    path: Path, overrides: Sequence[str] = (), *, seed: int | None = None
) -> Scenario:
    """From a file. With `seed` the same factory's fleet is dealt anew. Raises ConfigError."""
    tree = read_with(path, overrides)
    return scenario_of(tree, str(path), seed=seed, overrides=overrides)


def scenario_of(
    tree: dict[str, Any],
    source: str,
    *,
    seed: int | None = None,
    overrides: Sequence[str] = (),
) -> Scenario:
    """From a tree of settings, as read from `source` with the overrides laid over it. Raises ConfigError."""
    given = tree
    tree = {"transport": {"kind": "memory"}, **tree}
    initial_seed = tree.get("seed", 0)
    if seed is not None:
        tree["seed"] = seed
    if isinstance(tree.get("model"), dict):
        # Not what suits the processor: the same on all of them.
        tree["model"] = {"precision": "float32", "device": "cpu", **tree["model"]}
    sim = validate(tree, "sim", VirtualConfig, source)
    usage_of(sim).require(given, source, overrides)
    nowhere = {"state": "/nonexistent"}
    camera = {"kind": "sim.sensors.drone_camera"}
    server = {**tree, "server": {**table(tree, "server", source), **nowhere}}
    own = {"name": "v", "sensor": camera, **nowhere}
    vehicle = {**tree, "vehicle": {**table(tree, "vehicle", source), **own}}
    if isinstance(sim.learning, Vision):
        checked(sim.dataset, sim.model.built_task.targets, source)
    scenario = Scenario(
        sim,
        within_fleet(validate(server, "server", ServerConfig, source), sim.num_vehicles),
        validate(vehicle, "vehicle", VehicleConfig, source),
        initial_seed,
    )
    _require_possible(scenario, source)
    return scenario


def usage_of(sim: VirtualConfig) -> Usage:
    """The settings that a virtual fleet of these kinds of learning and participation reads."""
    return Usage(
        "fleetfl sim run (clock: virtual)",
        READS,
        {**PASSES_OVER, **sim.learning.passes_over, **sim.participation.passes_over},
        belongs_to_others=("bench", "compare", "chaos"),
    )


def _require_possible(scenario: Scenario, source: str) -> None:
    """Raises ConfigError for a fleet that would wait for ever."""
    sim, server = scenario.sim, scenario.server
    goal, head = getattr(server.aggregator, "goal", 1), server.closed_form
    if head is not None and not scenario.vehicle.agent.sums_of_frames:
        raise ConfigError(
            f"{source}: server.closed_form: no vehicle sends sums, expected vehicle.agent.sums_of_frames "
            "of 1 or more"
        )
    try:
        sim.participation.require_enough(goal, sim.num_vehicles, "server.aggregator.goal")
        if head is not None:
            sim.participation.require_enough(
                head.vehicles, sim.num_vehicles, "server.closed_form.vehicles"
            )
    except ValueError as impossible:
        raise ConfigError(f"{source}: sim.participation: {impossible}") from None
