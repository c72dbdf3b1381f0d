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
    """Name of the fleet; it is a level of every topic and part of every signature."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of everything random that belongs to the fleet, such as the initial model."""
    model: ModelConfig
    """The model that vehicles train and the endpoint serves; a fleet shares it."""
    transport: AnyTransport
    """Transport that reaches the broker, with its address and login."""
    num_partitions: int = Field(default=1, ge=1, le=1024)
    """Number of uplink topics, each read by one gateway. More of them carry more updates a second."""
