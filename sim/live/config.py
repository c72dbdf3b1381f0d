"""Settings of a simulated fleet: what the fleet shares, and the part `sim`."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from fleetfl.config import Section
from sim.settings import CrewConfig


class StopConfig(Section):
    """When the run ends: at whichever comes first."""

    seconds: float | None = Field(default=None, gt=0)
    """Seconds of training, counted from the first vehicle's start."""
    releases: int | None = Field(default=None, ge=1)
    """Versions released by then."""

    @model_validator(mode="after")
    def _one_is_set(self) -> "StopConfig":
        if self.seconds is None and self.releases is None:
            raise ValueError("set `seconds` or `releases`, or the run would never end")
        return self


class CentralizedConfig(Section):
    """Central training on the pooled data, printed beside the fleet's result."""

    image_steps: int = Field(default=50_000, ge=1)
    """Images seen, repeats counted."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Highest rate of AdamW, which follows a one-cycle schedule."""


class SimConfig(CrewConfig):
    """A fleet of real processes on this machine."""

    former_names: ClassVar = {"ceiling": "centralized_baseline"}

    broker: Literal["nats", "mosquitto", "external"] = "nats"
    """Started by us on a free loopback port, or the one that `transport` names."""
    stop: StopConfig
    """When the run ends."""
    client_rate_per_s: float = Field(default=10.0, gt=0, le=10_000)
    """Requests to the endpoint, with held-out frames, for as long as the run lasts."""
    restart_s: float = Field(default=3.0, ge=0)
    """A vehicle that died starts again after this."""
    centralized_baseline: CentralizedConfig | None = None
    """Central training to compare the fleet with; none if not given."""
