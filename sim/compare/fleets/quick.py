"""Vehicles of unequal pace learn a small head on frozen features, in one loop: seconds a run.

No links, codecs or messages. For what those do, and for the agent that flies, use the other fleets.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from sim.compare.closed_form import in_turn, sent_at, with_solved_head
from sim.compare.curve import LAST, Curve
from sim.compare.features import Features, features_of
from sim.compare.fleets import Candidate, FleetKind
from sim.compare.head import Head
from sim.compare.quick import QuickFleet, Vehicles
from sim.processes.sweep import key_of
from sim.settings import SceneConfig


class Config(FleetKind):
    kind: Literal["quick"] = "quick"
    num_vehicles: int = Field(default=100, ge=5)
    """Vehicles in the fleet."""
    concurrency: int = Field(default=40, ge=1)
    """Vehicles at work at a time, the same for every entrant."""
    sigma: float = Field(default=1.0, ge=0)
    """Sigma of the log-normal time that a local training takes."""
    median_s: float = Field(default=60.0, gt=0)
    """Median of the time that a local training takes."""
    zipf: float = Field(default=1.2, ge=0)
    """Exponent of how unequally often vehicles are at work; 0 is equally often."""
    vanish: float = Field(default=0.0, ge=0, lt=1)
    """Share of trainings that never report."""
    alpha: float = Field(default=0.3, gt=0)
    """Dirichlet concentration of the labels over the vehicles of one weather."""
    horizon_s: float = Field(default=7200.0, gt=0)
    """Length of a run, virtual seconds."""
    evaluations: int = Field(default=240, ge=LAST)
    """Measurements of held-out accuracy in a run, evenly spread over it."""
    watts: float = Field(default=10.0, gt=0)
    """Power that a vehicle draws while it trains."""
    rank: int = Field(default=8, ge=1)
    """Rank of the small adapter that is trained besides the head."""
    local_steps: int = Field(default=10, ge=1)
    """Optimizer steps in one local training."""
    batch_size: int = Field(default=16, ge=1)
    """Frames in one optimizer step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of AdamW on the vehicle."""

    def prepare(self, sim: SceneConfig, folder: Path) -> None:
        features = features_of(sim, folder)
        self._start(self._head(sim, features), features, folder, seed=sim.seed)

    def curve(self, sim: SceneConfig, candidate: Candidate, folder: Path, *, seed: int) -> Curve:
        features = features_of(sim, folder)
        fleet, held_out = features.fleet, features.held_out
        head = self._head(sim, features)
        hands = features.hands(self.num_vehicles, self.alpha, seed=seed)
        vehicles = Vehicles.drawn(
            self.num_vehicles, sigma=self.sigma, zipf=self.zipf, median_s=self.median_s, seed=seed
        )

        def train(vehicle: int, base: np.ndarray, number: int) -> tuple[np.ndarray, int]:
            rows = hands[vehicle]
            delta = head.train(
                base, fleet.features[rows], fleet.labels[rows], seed=seed * 1_000_003 + number
            )
            return delta, len(rows)

        size, before = head.layout.size, self._start(head, features, folder, seed=sim.seed)
        start, sums_bytes, sums_at = before, 0, np.zeros(0)
        if candidate.closed_form is not None:
            turn = in_turn(vehicles.popularity, seed=seed)
            sums_at = sent_at(vehicles.pace_s[turn], self.concurrency)
            first = np.argsort(sums_at)[: candidate.closed_form]
            theirs = [hands[vehicle] for vehicle in turn[first]]
            start, sums_bytes = with_solved_head(head, before, fleet, theirs)
            sums_at = sums_at[first]
        begins_s = float(sums_at.max(initial=0.0))
        run = QuickFleet(
            vehicles,
            candidate.aggregator.build(size),
            candidate.optimizer.build(size),
            start,
            train,
            concurrency=self.concurrency,
            rounds=candidate.rounds,
            seed=seed,
            vanish=self.vanish,
        )
        moments = np.linspace(0, self.horizon_s, self.evaluations + 1).tolist()
        updates, right = [], []
        for moment in moments:
            is_begun = moment >= begins_s
            if is_begun:
                run.until(moment - begins_s)
            updates.append(int((sums_at <= moment).sum()) + run.accepted)
            params = run.params if is_begun else before
            right.append(head.predicted(params, held_out.features) == held_out.labels)
        shares = _shares(features, hands, len(sim.model.classes))
        return Curve(
            seconds=moments,
            accuracy=[float(one.mean()) for one in right],
            updates=updates,
            by_condition={
                weather.condition: float(
                    np.mean([one[held_out.condition == n].mean() for one in right[-LAST:]])
                )
                for n, weather in enumerate(sim.weathers)
            },
            by_vehicle=_by_vehicle(features, shares, right[-LAST:]),
            by_vehicle_before=_by_vehicle(features, shares, right[:1]),
            pace_s=vehicles.pace_s.tolist(),
            staleness={str(late): n for late, n in sorted(run.staleness.items())},
            versions=run.version,
            declined=run.declined,
            joules=(run.busy_s + begins_s * self.concurrency) * self.watts,
            bytes_up=4 * size * (run.accepted + run.declined) + sums_bytes,
        )

    def _head(self, sim: SceneConfig, features: Features) -> Head:
        return Head(
            num_features=features.fleet.features.shape[1],
            num_classes=len(sim.model.classes),
            rank=self.rank,
            local_steps=self.local_steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
        )

    def _start(self, head: Head, features: Features, folder: Path, *, seed: int) -> np.ndarray:
        """From the file in `folder`, made if it is not there: fitting it takes as long as a run."""
        path = folder / f"head_{key_of(features.key, head.rank, seed)}.npy"
        if not path.exists():
            factory = features.factory
            partial = path.with_suffix(".partial.npy")
            np.save(partial, head.start(factory.features, factory.labels, seed=seed))
            partial.replace(path)
        return np.load(path)


def _shares(features: Features, hands: list[np.ndarray], num_classes: int) -> np.ndarray:
    """float64 [V, C]: how often a vehicle meets which class."""
    labels = features.fleet.labels
    counts = [np.bincount(labels[rows], minlength=num_classes) / len(rows) for rows in hands]
    return np.stack(counts)


def _by_vehicle(features: Features, shares: np.ndarray, right: list[np.ndarray]) -> list[float]:
    """Accuracy on held-out frames of each vehicle's weather, weighted by its classes."""
    held_out = features.held_out
    often = np.mean(right, axis=0)
    conditions = int(held_out.condition.max()) + 1
    cells = np.zeros((conditions, shares.shape[1]))
    for condition in range(conditions):
        for label in range(shares.shape[1]):
            here = (held_out.condition == condition) & (held_out.labels == label)
            cells[condition, label] = often[here].mean() if here.any() else 0.0
    return [float(share @ cells[v % conditions]) for v, share in enumerate(shares)]
