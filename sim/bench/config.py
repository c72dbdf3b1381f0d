"""Settings of codec benchmarks: the section `bench` of a settings file."""

from pydantic import Field

from fleetfl.codecs import AnyCodec
from fleetfl.codecs.float32 import Config as Float32
from fleetfl.config import Section
from fleetfl.fleet_config import FleetConfig


class CandidateConfig(Section):
    """One candidate: codecs for both directions, with the error feedback that is used with them."""

    name: str = Field(min_length=1)
    """Name of the candidate's row in tables and pictures."""
    codec: AnyCodec
    """Codec of the updates that vehicles send."""
    error_feedback: float = Field(default=0.9, ge=0, le=1)
    """Fraction of the encoding error that a vehicle adds to its next update, as `vehicle.error_feedback`.
    0 turns error feedback off."""
    release: AnyCodec = Float32()
    """Codec of the releases that the server sends."""
    seeds: int | None = Field(default=None, ge=2, le=10)
    """Number of the benchmark's seeds to run, from the first; None runs all. More seeds narrow the
    interval."""


class BenchConfig(FleetConfig):
    """Settings of `fleetfl bench rate-accuracy`: candidates, seeds and the length of each run."""

    updates: int = Field(default=300, ge=1)
    """Number of updates that the whole fleet sends in each run."""
    seeds: tuple[int, ...] = Field(default=(1, 2, 3, 4, 5), min_length=2, max_length=10)
    """Seeds, one run each: a seed decides partitions, vehicle speeds and batches, but not the initial
    model."""
    sigma: float = Field(default=0.5, ge=0)
    """Standard deviation of the logarithm of the vehicles' speeds; 0 makes all vehicles equally fast."""
    last_releases: int = Field(default=3, ge=1)
    """Number of last releases whose mean accuracy is a run's accuracy; more of them average out
    fluctuation."""
    baseline: str = "float32"
    """Name of the candidate that `loss_points` is measured against."""
    codecs: tuple[CandidateConfig, ...] = Field(min_length=1)
    """The codecs to measure, each on the same fleet, arrivals and seeds."""
