"""Settings of chaos: the part `chaos` of a fleet's file."""

from pathlib import Path

from pydantic import Field, model_validator

from fleetfl.fleet_config import FleetConfig
from sim.chaos.brokers import BrokerConfig
from sim.chaos.faults import AnyFault


class ChaosConfig(FleetConfig):
    runs: Path = Path("runs")
    """Results are in RUNS/FLEET, with the folders of the runs that failed."""
    brokers: list[BrokerConfig] = Field(
        default=[
            BrokerConfig(kind="nats"),
            BrokerConfig(kind="mosquitto"),
            BrokerConfig(kind="nats", persists=False),
            BrokerConfig(kind="mosquitto", persists=False),
        ],
        min_length=1,
    )
    """Dealt over the seeds, one after the other."""
    num_vehicles: int = Field(default=3, ge=1)
    """Vehicles in each run, one process each."""
    endpoint_every: int = Field(default=0, ge=0)
    """One run of so many has endpoint and evaluator too, in a Ray cluster of its own; 0: none has."""
    faults: list[AnyFault] = Field(min_length=1)
    """Those of a run are drawn from these by weight."""
    num_faults: tuple[int, int] = (2, 4)
    """Fewest and most in a run, beside those that are `always` in one."""
    faults_s: float = Field(default=6.0, gt=0)
    """Seconds within which they strike."""
    come_back_s: float = Field(default=120.0, gt=0)
    """How long the fleet may take, once all is mended, until each vehicle has a receipt for an update
    made since."""
    drain_s: float = Field(default=60.0, gt=0)
    """How long it may take from then, producing no more, until all updates have receipts."""

    @model_validator(mode="after")
    def _ordered(self) -> "ChaosConfig":
        least = 0 if any(fault.always for fault in self.faults) else 1
        if not least <= self.num_faults[0] <= self.num_faults[1]:
            raise ValueError(f"num_faults: got {list(self.num_faults)}, expected FEWEST, MOST")
        return self
