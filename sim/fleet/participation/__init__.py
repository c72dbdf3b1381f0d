"""Who takes part when. Of a vehicle that does not, only a timer or a weight in a pool is left."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Protocol

from pydantic import SerializeAsAny

from fleetfl.plugins import PluginConfig, chosen_from
from sim.fleet.vehicle import Ending, VirtualVehicle

Spawn = Callable[[Coroutine[Any, Any, Ending], Callable[[Ending], None]], Callable[[], None]]
"""Runs a session as a task and tells how it ended, unless it was ended by the call that this gives back."""


class Participation(Protocol):
    def start(self) -> None:
        """Set the first timers; from here on timers, endings and releases keep it going."""
        ...

    def released(self, version: int) -> None:
        """A new version is out."""
        ...


class ParticipationConfig(PluginConfig):
    def build(self, vehicles: list[VirtualVehicle], spawn: Spawn, *, seed: int) -> Participation:
        raise NotImplementedError


AnyParticipation = Annotated[
    SerializeAsAny[ParticipationConfig], chosen_from("sim.fleet.participation")
]
