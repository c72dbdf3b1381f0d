"""Settings of a comparison: the part `compare` of a file, beside what the fleet shares and `sim`."""

from itertools import product
from typing import Any, ClassVar

from pydantic import Field, ValidationError, model_validator

from fleetfl.config import ConfigError, Section
from fleetfl.fleet_config import FleetConfig
from sim.compare.fleets import AnyFleet, Candidate


class Scenario(Section):
    """One fleet that all contestants meet."""

    name: str = Field(min_length=1)
    """Name of the table in the report."""
    fleet: AnyFleet
    """The kind of simulated fleet and its settings."""


class CandidateConfig(Section):
    """An algorithm, and the values that it is tuned over."""

    name: str = Field(min_length=1)
    """Name of the row in tables and in the report."""
    aggregator: dict[str, Any]
    """As `server.aggregator`."""
    optimizer: dict[str, Any] = Field(default_factory=dict)
    """As `server.optimizer`."""
    rounds: bool = False
    """Synchronous: at each version all vehicles are called back, and a new cohort starts."""
    closed_form: int | None = Field(default=None, ge=1)
    """Vehicles send sums over their features first, and training goes on from the head that those of the
    first so many give, as with `server.closed_form.vehicles`; or all, if there are fewer."""
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    """Values to try by their path, such as `aggregator.goal: [5, 10]`: all of their combinations. Empty: it
    is not tuned."""

    def choices(self) -> list[dict[str, Any]]:
        return [
            dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())
        ]

    def candidate(self, choice: dict[str, Any]) -> Candidate:
        """With these values. Raises ConfigError."""
        tables: dict[str, Any] = {
            "aggregator": dict(self.aggregator),
            "optimizer": dict(self.optimizer),
            "rounds": self.rounds,
            "closed_form": self.closed_form,
        }
        for path, value in choice.items():
            *way, last = path.split(".")
            table = tables
            for step in way:
                table[step] = dict(table.get(step, {}))
                table = table[step]
            table[last] = value
        try:
            return Candidate.model_validate(tables)
        except ValidationError as invalid:
            error = invalid.errors()[0]
            where, why = (
                ".".join(map(str, error["loc"])),
                error["msg"].removeprefix("Value error, "),
            )
            raise ConfigError(f"compare: {self.name}: {where}: {why}") from invalid


class CompareConfig(FleetConfig):
    """A comparison of algorithms on the same fleets and seeds, each tuned on the same budget."""

    former_names: ClassVar = {"contestants": "candidates"}

    seeds: tuple[int, ...] = Field(default=(1, 2, 3, 4, 5), min_length=2, max_length=10)
    """Each draws the vehicles, their data and their luck anew."""
    tuning_seeds: tuple[int, ...] = Field(default=(101, 102), min_length=1)
    """Values are chosen on these, by time to the target; none of them is among `seeds`."""
    trials: int = Field(default=8, ge=1)
    """Combinations that every tuned contestant tries: the same budget for all."""
    target: float = Field(default=0.95, gt=0, le=1)
    """Share of a scenario's best final accuracy that a candidate is to reach."""
    against: str
    """The contestant that `sooner` counts from."""
    scenarios: tuple[Scenario, ...] = Field(min_length=1)
    """The fleets that each contestant meets."""
    candidates: tuple[CandidateConfig, ...] = Field(min_length=1)
    """The algorithms to compare, each with the values it is tuned over."""

    @model_validator(mode="after")
    def _is_fair(self) -> "CompareConfig":
        names = [candidate.name for candidate in self.candidates]
        for what, given in (
            ("candidates", names),
            ("scenarios", [s.name for s in self.scenarios]),
        ):
            if len(set(given)) < len(given):
                raise ValueError(f"{what} {given}: each needs a name of its own")
        if self.against not in names:
            raise ValueError(f"against {self.against!r}, expected one of {names}")
        if both := set(self.seeds) & set(self.tuning_seeds):
            raise ValueError(f"seeds {sorted(both)} are for tuning too: that would be cheating")
        for candidate in self.candidates:
            tried = len(candidate.choices())
            if candidate.grid and tried != self.trials:
                raise ValueError(f"{candidate.name} tries {tried} values, expected {self.trials}")
        return self
