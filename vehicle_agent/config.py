"""Settings of one vehicle: what the fleet shares, and the part `vehicle`."""

from pathlib import Path

from pydantic import Field

from fleetfl.codecs import AnyCodec
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.fleet import FleetConfig
from fleetfl.messages import VEHICLE_PATTERN
from vehicle_agent.agent import Config as AgentConfig
from vehicle_agent.sensors import AnySensor
from vehicle_agent.trainer import Config as TrainerConfig


class VehicleConfig(FleetConfig):
    name: str = Field(pattern=VEHICLE_PATTERN)
    """Names the vehicle in the fleet; letters, digits, - and _."""
    state: Path
    """Folder for what must outlive the process (the outbox)."""
    sensor: AnySensor
    """Where frames come from."""
    trainer: TrainerConfig = TrainerConfig()
    codec: AnyCodec = Int8()
    """How updates are packed."""
    agent: AgentConfig = AgentConfig()
    threads: int = Field(default=1, ge=1)
    """Processor threads for training."""
