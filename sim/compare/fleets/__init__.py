"""Fleets that algorithms can be compared on. Each turns an entrant and a seed into a curve."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SerializeAsAny

from fleetfl.aggregators import AnyAggregator
from fleetfl.config import Section
from fleetfl.plugins import PluginConfig, chosen_from
from fleetfl.server_optimizers import AnyServerOptimizer
from fleetfl.server_optimizers.sgd import Config as SGD
from sim.compare.curve import Curve
from sim.settings import SceneConfig


class Candidate(Section):
    """One algorithm with all of its values."""

    aggregator: AnyAggregator
    """The aggregation rule, as `server.aggregator`."""
    optimizer: AnyServerOptimizer = SGD()
    """The server optimizer, as `server.optimizer`."""
    rounds: bool = False
    """Synchronous: at each version all vehicles are called back, and a new cohort starts."""
    closed_form: int | None = Field(default=None, ge=1)
    """Vehicles send sums over their features first, and training goes on from the head that those of the
    first so many give, as with `server.closed_form.vehicles`; or all, if there are fewer."""


class FleetKind(PluginConfig):
    """Settings of one fleet; what a run gives follows from them, the entrant and the seed."""

    def prepare(self, sim: SceneConfig, folder: Path) -> None:
        """Make in `folder` what all runs share and takes long."""

    def curve(self, sim: SceneConfig, candidate: Candidate, folder: Path, *, seed: int) -> Curve:
        raise NotImplementedError


AnyFleet = Annotated[SerializeAsAny[FleetKind], chosen_from("sim.compare.fleets")]
