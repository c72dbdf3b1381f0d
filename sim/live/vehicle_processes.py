"""Vehicles as processes of their own: started from files, watched, started again when they die."""

import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fleetfl import FleetflError
from fleetfl.events.event_log import EventLog
from sim.datasets import Weather
from sim.processes import children

MAX_EARLY_DEATHS = 3


class FleetError(FleetflError, RuntimeError):
    """A vehicle that cannot run at all; says which, and the end of its log."""


@dataclass
class Vehicle:
    name: str
    file: Path
    log: Path
    weather: Weather
    process: "subprocess.Popen[bytes] | None" = None
    began: float = 0.0
    early_deaths: int = 0
    restart_at: float | None = field(default=None)


def write_files(
    tree: dict[str, Any],
    weathers: list[Weather],
    sensors: list[dict[str, Any]],
    folder: Path,
    *,
    server_key: Path,
) -> list[Vehicle]:
    """One settings file a vehicle: the run's own settings with name, state, sensor and key added."""
    vehicles = []
    for number, (weather, sensor) in enumerate(zip(weathers, sensors, strict=True)):
        name = f"v{number:02d}"
        part = {**tree.get("vehicle", {}), "name": name, "sensor": sensor}
        part["state"] = str((folder / name).absolute())
        part["server_key"] = str(server_key.absolute())
        mine = {key: value for key, value in tree.items() if key not in ("server", "sim")}
        mine |= {"seed": tree.get("seed", 0) + number, "vehicle": part}
        file = folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)  # the broker's password may be in it
        file.write_text(yaml.safe_dump(mine, sort_keys=False))
        vehicles.append(Vehicle(name, file, folder / f"{name}.log", weather))
    return vehicles


class VehicleProcesses:
    """Starts all; `watch` is called now and then and does the rest."""

    def __init__(self, vehicles: list[Vehicle], events: EventLog, *, restart_s: float) -> None:
        self.vehicles, self.events, self.restart_s = vehicles, events, restart_s

    def start(self) -> None:
        for vehicle in self.vehicles:
            self._start(vehicle)

    @property
    def alive(self) -> int:
        return sum(v.process is not None and v.process.poll() is None for v in self.vehicles)

    def watch(self) -> None:
        """Note deaths, start the dead again. Raises FleetError for one that dies at every start."""
        now = time.monotonic()
        for vehicle in self.vehicles:
            code = None if vehicle.process is None else vehicle.process.poll()
            if code is not None:
                self._died(vehicle, code, now)
            elif vehicle.restart_at is not None and now >= vehicle.restart_at:
                self._start(vehicle)

    def stop(self, patience_s: float = 10.0) -> None:
        """SIGTERM to all at once, SIGKILL to those that do not end."""
        running = [v.process for v in self.vehicles if v.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + patience_s
        for process in running:
            children.stop(process, max(0.1, deadline - time.monotonic()))

    def _start(self, vehicle: Vehicle) -> None:
        argv = [sys.executable, "-m", "fleetfl", "vehicle", "run", str(vehicle.file)]
        vehicle.process = children.start(argv, log=vehicle.log)
        vehicle.began, vehicle.restart_at = time.monotonic(), None
        self.events.write(
            "vehicle_started",
            vehicle=vehicle.name,
            condition=vehicle.weather.condition,
            severity=vehicle.weather.severity,
            pid=vehicle.process.pid,
        )

    def _died(self, vehicle: Vehicle, code: int, now: float) -> None:
        cause = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        self.events.write("vehicle_died", vehicle=vehicle.name, code=code, cause=cause)
        vehicle.process = None
        vehicle.early_deaths = vehicle.early_deaths + 1 if now - vehicle.began < 30 else 1
        if code > 0 and vehicle.early_deaths >= MAX_EARLY_DEATHS:
            raise FleetError(
                f"vehicle {vehicle.name} ended {vehicle.early_deaths} times right after its start "
                f"({cause}). The end of {vehicle.log}:\n{tail(vehicle.log)}"
            )
        vehicle.restart_at = now + self.restart_s


def tail(path: Path, lines: int = 12) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError as missing:
        return f"(no log: {missing})"
