"""A fleet on virtual time in one loop: unequal vehicles, a scheduler, an aggregator, nothing in between.

No links, codecs or messages: what is compared here is aggregation alone. Who is chosen, how long a training
takes and which frames it sees follow from the seed, not from the algorithm.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fleetfl.aggregators import Aggregator, Declined
from fleetfl.server_optimizers import ServerOptimizer

Train = Callable[[int, np.ndarray, int], tuple[np.ndarray, int]]
"""(vehicle, base float32 [P], number of the training) -> delta float32 [P], examples."""


@dataclass(frozen=True)
class Vehicles:
    """Arrays over the fleet."""

    pace_s: np.ndarray
    """float64 [V]: seconds of one local training."""
    popularity: np.ndarray
    """float64 [V]: how often one is chosen, against the others."""

    @classmethod
    def drawn(
        cls, num: int, *, sigma: float, zipf: float, median_s: float, seed: int
    ) -> "Vehicles":
        """Log-normal paces, participation by Zipf's law; who is fast and who is frequent is independent."""
        rng = np.random.default_rng(seed)
        pace_s = median_s * np.exp(rng.normal(0.0, sigma, num))
        return cls(pace_s, (1.0 + rng.permutation(num)) ** -zipf)


@dataclass
class Flight:
    """One vehicle at work."""

    vehicle: int
    version: int
    base: np.ndarray
    began_s: float


@dataclass
class QuickFleet:
    """Up to `concurrency` vehicles train at any time; `rounds` calls all of them back at each version."""

    vehicles: Vehicles
    aggregator: Aggregator
    optimizer: ServerOptimizer
    params: np.ndarray
    train: Train
    concurrency: int
    rounds: bool
    seed: int
    jitter: float = 0.1
    vanish: float = 0.0
    """Share of trainings that never report; their place is free again after `lease_s`."""
    lease_s: float = 3600.0

    now_s: float = 0.0
    version: int = 0
    accepted: int = 0
    declined: int = 0
    busy_s: float = 0.0
    """Vehicles' time spent, also in vain."""
    staleness: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng([self.seed, 1])
        self.idle = np.ones(len(self.vehicles.pace_s), bool)
        self.flights: list[tuple[float, int, bool, Flight]] = []
        self.started = 0
        self.aggregator.released(self.params)
        self._fill()

    def until(self, end_s: float) -> None:
        """Go on to this moment of virtual time."""
        while self.flights and self.flights[0][0] <= end_s:
            self.now_s, _, reports, flight = heapq.heappop(self.flights)
            self.idle[flight.vehicle] = True
            self.busy_s += self.now_s - flight.began_s
            if reports:
                self._arrive(flight)
            self._fill()
        self.now_s = end_s

    def _arrive(self, flight: Flight) -> None:
        delta, num_examples = self.train(flight.vehicle, flight.base, self.accepted + self.declined)
        staleness = self.version - flight.version
        name = f"v{flight.vehicle:05d}"
        try:
            step = self.aggregator.add(
                delta, vehicle=name, num_examples=num_examples, staleness=staleness
            )
        except Declined:
            self.declined += 1
            return
        self.accepted += 1
        self.staleness[staleness] += 1
        if step is None:
            return
        self.params = self.optimizer.apply(self.params, step)
        self.version += 1
        self.aggregator.released(self.params)
        if self.rounds:
            self._call_back()

    def _call_back(self) -> None:
        for _, _, _, flight in self.flights:
            self.busy_s += self.now_s - flight.began_s
            self.idle[flight.vehicle] = True
        self.flights = []

    def _fill(self) -> None:
        """A round begins with all of its vehicles; otherwise whoever is done is replaced at once."""
        if self.rounds and self.flights:
            return
        while len(self.flights) < self.concurrency and self.idle.any():
            weights = self.vehicles.popularity * self.idle
            vehicle = int(self.rng.choice(len(weights), p=weights / weights.sum()))
            self.idle[vehicle] = False
            takes_s = self.vehicles.pace_s[vehicle] * np.exp(self.rng.normal(0.0, self.jitter))
            reports = bool(self.rng.random() >= self.vanish)
            end_s = self.now_s + (float(takes_s) if reports else self.lease_s)
            flight = Flight(vehicle, self.version, self.params, self.now_s)
            heapq.heappush(self.flights, (end_s, self.started, reports, flight))
            self.started += 1
