"""Settings of measurements of codecs: the part `bench` of a file, beside what the fleet shares and `sim`."""

from pydantic import Field

from fleetfl.codecs import AnyCodec
from fleetfl.codecs.float32 import Config as Float32
from fleetfl.config import Section
from fleetfl.fleet_config import FleetConfig


class CandidateConfig(Section):
    """A codec to measure."""

    name: str = Field(min_length=1)
    """Name of the row in tables and pictures."""
    codec: AnyCodec
    """The codec of the way up."""
    error_feedback: float = Field(default=0.9, ge=0, le=1)
    """As `vehicle.error_feedback`."""
    release: AnyCodec = Float32()
    """The codec of the way down."""
    seeds: int | None = Field(default=None, ge=2, le=10)
    """So many of the bench's seeds, the first ones; None takes all."""


class BenchConfig(FleetConfig):
    updates: int = Field(default=300, ge=1)
    """Of the whole fleet, in each run."""
    seeds: tuple[int, ...] = Field(default=(1, 2, 3, 4, 5), min_length=2, max_length=10)
    """Each deals the data, draws the vehicles' speeds and their batches anew; the factory model stays."""
    sigma: float = Field(default=0.5, ge=0)
    """Of the log-normal speeds of the vehicles."""
    last_releases: int = Field(default=3, ge=1)
    """A run's accuracy is the mean over so many of its last releases."""
    baseline: str = "float32"
    """The contestant that `loss_points` counts from."""
    codecs: tuple[CandidateConfig, ...] = Field(min_length=1)
    """The codecs to measure, each on the same fleet, arrivals and seeds."""
