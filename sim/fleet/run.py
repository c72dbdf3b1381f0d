"""A scenario from its first second to its last: `simulate` is the one door to virtual fleets.

scenario = read_scenario(Path("configs/virtual-fleet.yaml"), seed=3)
result = simulate(scenario, folder=Path("runs/mine"))
result.curve[-1].accuracy, result.staleness, result.vehicles["v003"].accepted
"""

import asyncio
import functools
import gc
import logging
import math
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetfl.events.event_log import EventLog
from fleetfl.task_group import together
from fleetfl.transport.memory import Broker
from sim.fleet import virtual_time
from sim.fleet.dice import normal, seed_of, uniform
from sim.fleet.executors import Executor
from sim.fleet.learning import Learning, Score
from sim.fleet.links import Link
from sim.fleet.network import Meter
from sim.fleet.releases import SharedVersions
from sim.fleet.scenario import Scenario, VirtualConfig, learning_context, training_context
from sim.fleet.server import VirtualServer, coordinator_of
from sim.fleet.vehicle import DeviceHardware, Ending, FleetContext, VirtualVehicle

MAX_PAYLOAD_BYTES = 64 * 2**20
"""No frame is cut into chunks: that is not what a fleet of many is about."""
TELL_EVERY = 200
"""Turns of telling progress in a run."""


@dataclass(frozen=True)
class Point:
    """The newest release at a moment of virtual time."""

    at_s: float
    """Since the run began."""
    version: int
    updates: int
    """Accepted until then."""
    accuracy: float
    by_condition: dict[str, float]


@dataclass(frozen=True)
class VehicleResult:
    """What became of one vehicle."""

    device: str
    seconds_per_training: float
    """In the middle: its speed."""
    weather: str
    """At the start."""
    class_shares: list[float]
    """How often it meets each class; empty where there are none."""
    trainings: int
    accepted: int
    lost: int
    """Trainings that never ended."""
    outcomes: dict[str, int]
    """How its updates ended, as its outbox has it."""
    waiting: int
    """Updates in its outbox at the end."""
    meter: Meter


@dataclass(frozen=True)
class FleetResult:
    """What a run came to. Bytes are MQTT packets, energy is the vehicles'."""

    virtual_s: float
    num_values: int
    """That are trained."""
    num_parameters: int
    """Of the whole model."""
    releases: int
    curve: list[Point]
    """The first one is version 0, the last one the newest at the end."""
    final: Score
    staleness: list[int]
    """Versions between base and use, of each accepted update in order."""
    refused: dict[str, int]
    """Updates by reason."""
    vehicles: dict[str, VehicleResult]

    @property
    def updates(self) -> int:
        """Accepted."""
        return len(self.staleness)

    @property
    def bytes_up(self) -> int:
        return sum(v.meter.bytes_up for v in self.vehicles.values())

    @property
    def bytes_down(self) -> int:
        return sum(v.meter.bytes_down for v in self.vehicles.values())

    @property
    def joules(self) -> float:
        return sum(v.meter.training_joules + v.meter.radio_joules for v in self.vehicles.values())

    def accuracy_of(self, vehicle: str) -> float:
        """Of the last version on what this vehicle meets: its classes, under its weather at the start."""
        mine = self.vehicles[vehicle]
        right = self.final.by_condition_and_class.get(mine.weather)
        if right is None or not mine.class_shares:
            return self.final.accuracy
        known = {label: share for label, share in enumerate(mine.class_shares) if label in right}
        total = sum(known.values()) or 1.0
        return sum(share * right[label] for label, share in known.items()) / total


def simulate(
    scenario: Scenario,
    *,
    folder: Path,
    tell: Callable[[float, str], None] = lambda done, note: None,
    say: Callable[[str], None] = lambda line: None,
) -> FleetResult:
    """Run the scenario. The same scenario gives the same result, and `events.jsonl` in `folder` to the byte.

    `tell` hears the share of the run that is done, and how it stands; `say` a line now and then. What
    does not depend on the seed (the factory's vector) is kept in `folder` and used again. Raises
    ConfigError, ModelError and SensorError for settings that do not fit.
    """
    events_path = folder / "events.jsonl"
    start_s = scenario.sim.start_hour * 3600
    training = training_context(scenario)
    with _quiet(), _unfrozen(), scenario.sim.executor.running(training) as executor:
        learning = scenario.sim.learning.build(learning_context(scenario, folder, say))
        run = VirtualRun(scenario, learning, executor, events_path, tell)
        return virtual_time.run(run.go(), start_s=start_s)


class VirtualRun:
    """Wires one scenario. `go` runs on a VirtualTimeLoop."""

    def __init__(
        self,
        scenario: Scenario,
        learning: Learning,
        executor: Executor,
        events: Path,
        tell: Callable[[float, str], None],
    ) -> None:
        self.scenario, self.learning, self.executor = scenario, learning, executor
        self.events_path, self.tell = events, tell
        self.curve: list[Point] = []
        self.score: Score | None = None

    async def go(self) -> FleetResult:
        scenario, sim = self.scenario, self.scenario.sim
        loop = asyncio.get_running_loop()
        self.began = loop.time()
        self.over: asyncio.Future[None] = loop.create_future()
        self.broker = Broker()
        learning, vehicles = self.learning, self._vehicles()
        coordinator = coordinator_of(scenario.server, learning.initial, learning.layout)
        # Whatever may be wrong with the settings has been said by now: an earlier run's may go.
        self.events_path.unlink(missing_ok=True)
        self.events = EventLog(self.events_path, clock=loop.time)
        self.server = VirtualServer(sim.fleet, coordinator, self.events)
        self.vehicles = vehicles
        sessions = Sessions(self.over)
        # The vehicles stay to the end: a collection that looked at them all would find nothing.
        gc.freeze()
        seed = seed_of(sim.seed, "participation") % 2**31
        participation = sim.participation.build(self.vehicles, sessions.spawn, seed=seed)
        self.server.on_accepted = self._accepted
        self.server.on_release += [participation.released, self._released]
        self._evaluate()
        loop.call_later(sim.stop.hours * 3600, self._stop)
        self._tell_often(sim.stop.hours * 3600 / TELL_EVERY)
        server = asyncio.create_task(self._serve(), name="server")
        server.add_done_callback(self._server_ended)
        try:
            await asyncio.sleep(0)  # the server subscribes and announces version 0
            participation.start()
            await self.over
        finally:
            await sessions.end()
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
            self.events.close()
        self._evaluate(even_if_known=True)
        return self._result(scenario.sim)

    async def _serve(self) -> None:
        sim = self.scenario.sim
        async with self.broker.connect("server", max_payload_bytes=MAX_PAYLOAD_BYTES) as transport:
            await together(
                **{
                    f"gateway{n}": self.server.gateway(transport, n).run()
                    for n in range(sim.num_partitions)
                }
            )

    def _vehicles(self) -> list[VirtualVehicle]:
        sim, vehicle, learning = self.scenario.sim, self.scenario.vehicle, self.learning
        works = FleetContext(
            fleet=sim.fleet,
            num_partitions=sim.num_partitions,
            broker=self.broker,
            max_payload_bytes=MAX_PAYLOAD_BYTES,
            agent=vehicle.agent,
            outbox=vehicle.outbox,
            layout=learning.layout,
            codec=vehicle.codec,
            error_feedback=vehicle.error_feedback,
            frames_per_update=learning.frames_per_update,
            images_per_update=learning.images_per_update,
            versions=SharedVersions(),
            executor=self.executor,
            lost_share=sim.lost_share,
            jitter_sigma=sim.jitter_sigma,
            frame_every_s=sim.frame_every_s,
            kit=functools.partial(_kit, sim),
            windows=lambda seed: sim.availability.windows(seed_of(seed, "days")),
            learner=learning.learner,
        )
        width = len(str(sim.num_vehicles - 1))
        return [
            VirtualVehicle(f"v{number:0{width}d}", number, works, seed=seed_of(sim.seed, number))
            for number in range(sim.num_vehicles)
        ]

    def _released(self, version: int) -> None:
        stop = self.scenario.sim.stop
        if stop.releases is not None and version >= stop.releases:
            self._stop()

    def _accepted(self, updates: int) -> None:
        if updates == self.scenario.sim.stop.updates:
            self._stop()

    def _stop(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def _server_ended(self, server: "asyncio.Task[None]") -> None:
        if not server.cancelled() and not self.over.done():
            error = server.exception() or RuntimeError("the server ended by itself")
            self.over.set_exception(error)

    def _tell_often(self, period_s: float) -> None:
        stop, now = self.scenario.sim.stop, asyncio.get_running_loop().time() - self.began
        updates, version = len(self.server.staleness), self.server.coordinator.version
        shares = [now / (stop.hours * 3600)]
        shares += [version / stop.releases] if stop.releases else []
        shares += [updates / stop.updates] if stop.updates else []
        accuracy = f"  accuracy {self.curve[-1].accuracy:.1%}" if self.curve else ""
        day, seconds = divmod(int(asyncio.get_running_loop().time()), 86_400)
        clock = f"day {day + 1} {seconds // 3600:02d}:{seconds // 60 % 60:02d}"
        self.tell(min(1.0, max(shares)), f"{clock}  release {version}  {updates} updates{accuracy}")
        asyncio.get_running_loop().call_later(period_s, self._tell_often, period_s)

    def _evaluate(self, *, even_if_known: bool = False) -> None:
        """Score the newest release, and again after a while."""
        published, loop = self.server.coordinator.published, asyncio.get_running_loop()
        is_new = not self.curve or published.version > self.curve[-1].version
        if is_new or even_if_known:
            if is_new:
                self.score = self.learning.score(published.vector)
            assert self.score is not None
            self.curve.append(
                Point(
                    at_s=loop.time() - self.began,
                    version=published.version,
                    updates=len(self.server.staleness),
                    accuracy=self.score.accuracy,
                    by_condition=self.score.by_condition,
                )
            )
        if is_new and not even_if_known:
            self.events.write(
                "evaluated",
                version=published.version,
                accuracy=self.curve[-1].accuracy,
                by_condition=self.curve[-1].by_condition,
            )
        loop.call_later(self.scenario.sim.evaluate_every_s, self._evaluate)

    def _result(self, sim: VirtualConfig) -> FleetResult:
        assert self.score is not None
        vehicles = {}
        for number, vehicle in enumerate(self.vehicles):
            weather = sim.weather.at(sim.weathers, number, sim.num_vehicles, self.began)
            vehicles[vehicle.name] = VehicleResult(
                device=vehicle.kit.device_name,
                seconds_per_training=vehicle.seconds_per_training,
                weather=weather.condition,
                class_shares=self.learning.class_shares(number),
                trainings=vehicle.num_trainings,
                accepted=self.server.accepted[vehicle.name],
                lost=vehicle.num_lost,
                outcomes={} if vehicle.outbox is None else dict(vehicle.outbox.outcomes),
                waiting=len(vehicle.outbox or ()),
                meter=vehicle.meter,
            )
        return FleetResult(
            virtual_s=asyncio.get_running_loop().time() - self.began,
            num_values=self.learning.layout.size,
            num_parameters=self.learning.num_parameters,
            releases=self.server.coordinator.version,
            curve=self.curve,
            final=self.score,
            staleness=self.server.staleness,
            refused=dict(self.server.refused),
            vehicles=vehicles,
        )


class Sessions:
    """The vehicles that are switched on. A bug in one ends the run."""

    def __init__(self, over: "asyncio.Future[None]") -> None:
        self.over, self.is_ending = over, False
        self.tasks: dict[asyncio.Task[Ending], None] = {}

    def spawn(
        self, session: Coroutine[Any, Any, Ending], ended: Callable[[Ending], None]
    ) -> Callable[[], None]:
        task = asyncio.get_running_loop().create_task(session)
        self.tasks[task] = None
        task.add_done_callback(functools.partial(self._done, ended))

        def call_off() -> None:
            task.cancel()

        return call_off

    def _done(self, ended: Callable[[Ending], None], task: "asyncio.Task[Ending]") -> None:
        del self.tasks[task]
        if self.is_ending:
            return
        if task.cancelled():
            ended("off")
        elif (bug := task.exception()) is not None:
            if not self.over.done():
                self.over.set_exception(bug)
        else:
            ended(task.result())

    async def end(self) -> None:
        """Switch all off, in the order they were switched on."""
        self.is_ending = True
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _kit(sim: VirtualConfig, number: int, seed: int) -> DeviceHardware:
    device = _dealt(sim.devices, uniform(seed, "device"))
    return DeviceHardware(
        device,
        sim.device_classes[device],
        pace=math.exp(sim.speed_sigma * normal(seed, "pace")),
        link=Link(sim.links[number % len(sim.links)], seed),
    )


def _dealt(shares: dict[str, float], throw: float) -> str:
    left = throw * sum(shares.values())
    for name, share in shares.items():
        left -= share
        if left < 0:
            return name
    return next(reversed(shares))


@contextmanager
def _unfrozen() -> Iterator[None]:
    """What the run froze is garbage like any other afterwards."""
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _quiet() -> Iterator[None]:
    """What a vehicle says of its link is no news where links are made to fail."""
    log = logging.getLogger("vehicle_agent")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
