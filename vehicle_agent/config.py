"""Settings of one vehicle: what the fleet shares, and the part `vehicle`."""

from pathlib import Path

from pydantic import Field

from fleetfl.codecs import AnyCodec
from fleetfl.codecs.spectral import Config as Spectral
from fleetfl.fleet_config import FleetConfig
from fleetfl.protocol.messages import VEHICLE_PATTERN
from vehicle_agent.agent import Config as AgentConfig
from vehicle_agent.outbox import Config as OutboxConfig
from vehicle_agent.sensors import AnySensor
from vehicle_agent.training import Config as TrainerConfig


class VehicleConfig(FleetConfig):
    name: str = Field(pattern=VEHICLE_PATTERN)
    """Names the vehicle in the fleet; letters, digits, - and _."""
    state: Path
    """Folder for what must outlive the process: the outbox, and the key that the vehicle signs with."""
    server_key: Path | None = None
    """The server's public key (`server.pub` in its state folder): releases and receipts are taken only
    if it has signed them. None takes all."""
    sensor: AnySensor
    """The source of the vehicle's frames."""
    trainer: TrainerConfig = TrainerConfig()
    """Settings of one local training."""
    codec: AnyCodec = Spectral()
    """The codec that packs updates."""
    error_feedback: float = Field(default=0.9, ge=0, le=1)
    """Share of what packing dropped that is kept for the next update; 0 forgets it."""
    agent: AgentConfig = AgentConfig()
    """When the vehicle trains, reports and rests."""
    outbox: OutboxConfig = OutboxConfig()
    """Bounds on what waits for its receipt."""
    threads: int = Field(default=1, ge=1)
    """Processor threads for training."""

    @property
    def key_file(self) -> Path:
        """The private key; made at the first start."""
        return self.state / "key.pem"
