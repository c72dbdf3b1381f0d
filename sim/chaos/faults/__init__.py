"""What can go wrong, as data. Each kind is a file here that defines `Config`; dropping one in adds it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, SerializeAsAny, model_validator

from fleetfl.plugins import PluginConfig, chosen_from

if TYPE_CHECKING:
    from sim.chaos.stage import Testbed


def _nothing() -> None:
    """It mends itself."""


@dataclass(frozen=True)
class ActiveFault:
    """A fault that struck."""

    repair: Callable[[], None] = _nothing
    """Ends it."""
    vehicle: str = ""
    """The one that it struck; empty if it was not one of them."""


class FaultConfig(PluginConfig):
    """One kind of fault and how long it lasts."""

    weight: float = Field(default=1.0, gt=0)
    """How often it is chosen, against the others."""
    always: bool = False
    """It strikes in every run, beside those that are drawn."""
    for_s: tuple[float, float] = (0.5, 2.0)
    """Shortest and longest time until it is mended, seconds."""

    @model_validator(mode="after")
    def _ordered(self) -> "FaultConfig":
        if not 0 <= self.for_s[0] <= self.for_s[1]:
            raise ValueError(f"for_s: got {list(self.for_s)}, expected the shorter time first")
        return self

    @property
    def needs_endpoint(self) -> bool:
        """It strikes a part that is only there when the endpoint is."""
        return False

    @property
    def name(self) -> str:
        """In words, for the results."""
        return self.kind_name

    @property
    def victim(self) -> str:
        """Of the faults with the same one, there is one at a time."""
        return self.kind_name

    def inject(self, stage: "Testbed", rng: random.Random) -> ActiveFault:
        """Do it. Raises FaultError if it cannot be done here."""
        raise NotImplementedError


AnyFault = Annotated[SerializeAsAny[FaultConfig], chosen_from("sim.chaos.faults")]
