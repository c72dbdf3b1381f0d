"""Settings that every process of a fleet shares: the top level of its file."""

from typing import Annotated

from pydantic import Field, SerializeAsAny

from fleetfl.config import Section
from fleetfl.models import ModelConfig
from fleetfl.plugins import chosen_from
from fleetfl.protocol.messages import VEHICLE_PATTERN
from fleetfl.transport import TransportConfig

AnyTransport = Annotated[SerializeAsAny[TransportConfig], chosen_from("fleetfl.transport")]


class FleetConfig(Section):
    """The server's, vehicles' and simulator's settings extend this one."""

    fleet: str = Field(pattern=VEHICLE_PATTERN)
    """Name of the fleet, a level of every topic."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Everything random that belongs to the fleet follows from it."""
    model: ModelConfig
    """The model that vehicles train and the endpoint serves; a fleet shares it."""
    transport: AnyTransport
    """How to reach the broker."""
    num_partitions: int = Field(default=1, ge=1, le=1024)
    """Uplink topics, one gateway each."""
