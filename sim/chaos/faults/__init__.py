"""Kinds of faults as settings. Each kind is a module here that defines `Config`; a new file adds a kind."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, SerializeAsAny, model_validator

from fleetfl.plugins import PluginConfig, chosen_from

if TYPE_CHECKING:
    from sim.chaos.testbed import Testbed


def _nothing() -> None:
    """Repair of a fault that repairs itself."""


@dataclass(frozen=True)
class ActiveFault:
    """A fault that has been injected and is not repaired yet."""

    repair: Callable[[], None] = _nothing
    """Ends the fault."""
    vehicle: str = ""
    """Name of the affected vehicle; empty if the fault affects no single vehicle."""


class FaultConfig(PluginConfig):
    """One kind of fault and how long it lasts."""

    weight: float = Field(default=1.0, gt=0)
    """Relative frequency of this fault among the drawn ones; 2 is drawn twice as often as 1."""
    always: bool = False
    """Whether every run has this fault, in addition to the drawn ones."""
    for_s: tuple[float, float] = (0.5, 2.0)
    """Shortest and longest time until the fault is repaired, in seconds."""

    @model_validator(mode="after")
    def _ordered(self) -> "FaultConfig":
        if not 0 <= self.for_s[0] <= self.for_s[1]:
            raise ValueError(f"for_s: got {list(self.for_s)}, expected the shorter time first")
        return self

    @property
    def needs_endpoint(self) -> bool:
        """Whether the fault affects a part that only runs with an endpoint have."""
        return False

    @property
    def name(self) -> str:
        """The fault in words, for results and tables."""
        return self.kind_name

    @property
    def victim(self) -> str:
        """Name of the affected part; two faults with the same victim never overlap."""
        return self.kind_name

    def inject(self, testbed: "Testbed", rng: random.Random) -> ActiveFault:
        """Inject the fault into the testbed. Raises FaultError if that is impossible."""
        raise NotImplementedError


AnyFault = Annotated[SerializeAsAny[FaultConfig], chosen_from("sim.chaos.faults")]
