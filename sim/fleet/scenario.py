"""A virtual fleet as a file describes it: what it shares, its server, its vehicles, and the part `sim`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from actors.config import ServerConfig
from fleetfl.config import Section, read_with, table, validate
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
from vehicle_agent.config import VehicleConfig


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
    weathers: tuple[Weather, ...] = (Weather(condition="fog"), Weather(condition="night"))
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
        unknown = [name for name in self.devices if name not in self.device_classes]
        if unknown or not sum(self.devices.values()) > 0:
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
    return scenario_of(read_with(path, overrides), str(path), seed=seed)


def scenario_of(tree: dict[str, Any], source: str, *, seed: int | None = None) -> Scenario:
    """From a tree of settings, as read from `source`. Raises ConfigError."""
    tree = {"transport": {"kind": "memory"}, **tree}
    initial_seed = tree.get("seed", 0)
    if seed is not None:
        tree["seed"] = seed
    if isinstance(tree.get("model"), dict):
        # Not what suits the processor: the same on all of them.
        tree["model"] = {"precision": "float32", "device": "cpu", **tree["model"]}
    sim = validate(tree, "sim", VirtualConfig, source)
    nowhere = {"state": "/nonexistent"}
    camera = {"kind": "sim.sensors.drone_camera"}
    server = {**tree, "server": {**table(tree, "server", source), **nowhere}}
    own = {"name": "v", "sensor": camera, **nowhere}
    vehicle = {**tree, "vehicle": {**table(tree, "vehicle", source), **own}}
    if isinstance(sim.learning, Vision):
        checked(sim.dataset, sim.model.built_task.targets, source)
    return Scenario(
        sim,
        validate(server, "server", ServerConfig, source),
        validate(vehicle, "vehicle", VehicleConfig, source),
        initial_seed,
    )
