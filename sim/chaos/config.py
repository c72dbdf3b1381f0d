"""Settings of chaos runs: the section `chaos` of a settings file."""

from pathlib import Path

from pydantic import Field, model_validator

from fleetfl.fleet_config import FleetConfig
from sim.chaos.brokers import BrokerConfig
from sim.chaos.faults import AnyFault


class ChaosConfig(FleetConfig):
    """Settings of `fleetfl chaos run`: brokers, fleet, faults, and how long recovery may take."""

    runs: Path = Path("runs")
    """Parent folder: results are written to RUNS/FLEET, with the folders of failed runs."""
    brokers: list[BrokerConfig] = Field(
        default=[
            BrokerConfig(kind="nats"),
            BrokerConfig(kind="mosquitto"),
            BrokerConfig(kind="nats", persists=False),
            BrokerConfig(kind="mosquitto", persists=False),
        ],
        min_length=1,
    )
    """Brokers, assigned to the seeds in turn."""
    num_vehicles: int = Field(default=3, ge=1)
    """Vehicles in each run, one process each."""
    endpoint_every: int = Field(default=0, ge=0)
    """Every how many runs one has endpoint and evaluator too, in its own Ray cluster; 0 means none has."""
    faults: list[AnyFault] = Field(min_length=1)
    """Kinds of faults; each run draws its faults from them, in proportion to their weights."""
    num_faults: tuple[int, int] = (2, 4)
    """Smallest and largest number of drawn faults in a run; faults with `always` come in addition."""
    faults_s: float = Field(default=6.0, gt=0)
    """Window, in seconds from when the fleet is at work, in which faults begin; longer spreads them out."""
    come_back_s: float = Field(default=120.0, gt=0)
    """Time limit, in seconds after the last repair, until each vehicle has a receipt for a new update."""
    drain_s: float = Field(default=60.0, gt=0)
    """Time limit, in seconds after vehicles stop training, until every update has a receipt."""

    @model_validator(mode="after")
    def _ordered(self) -> "ChaosConfig":
        least = 0 if any(fault.always for fault in self.faults) else 1
        if not least <= self.num_faults[0] <= self.num_faults[1]:
            raise ValueError(f"num_faults: got {list(self.num_faults)}, expected FEWEST, MOST")
        return self
