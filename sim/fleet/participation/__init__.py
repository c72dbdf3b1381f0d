"""Who takes part when. Of a vehicle that does not, only a timer or a weight in a pool is left."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, ClassVar, Protocol

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
    """Settings of one kind of participation."""

    passes_over: ClassVar[Mapping[str, str]] = {}
    """Settings of a virtual fleet, by path, that this kind does not use, and the reason."""

    def require_enough(self, wanted: int, num_vehicles: int, setting: str) -> None:
        """Raises ValueError if a release never comes of `wanted` updates, as `setting` asks for them."""

    def build(self, vehicles: list[VirtualVehicle], spawn: Spawn, *, seed: int) -> Participation:
        raise NotImplementedError


ONE_TRAINING: Mapping[str, str] = dict.fromkeys(
    ("vehicle.agent.pause_s", "vehicle.agent.max_waiting", "vehicle.agent.sums_wait_s"),
    "a vehicle is drawn for one training and off again afterwards",
)
"""What kinds do not use whose vehicles train once and then wait to be drawn again."""

AnyParticipation = Annotated[
    SerializeAsAny[ParticipationConfig], chosen_from("sim.fleet.participation")
]
