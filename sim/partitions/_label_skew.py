"""Who holds what: label skew by Dirichlet shares (arXiv:1909.06335). Smaller alpha, more skew."""

import numpy as np

from fleetfl import FleetflError


class PartitionError(FleetflError, ValueError):
    """Data that cannot be dealt to so many vehicles in such shares."""


def dirichlet_shares(num_vehicles: int, num_classes: int, alpha: float, *, seed: int) -> np.ndarray:
    """Each vehicle's class shares, float64 [V, C], rows summing to 1."""
    return np.random.default_rng(seed).dirichlet([alpha] * num_classes, num_vehicles)


def dirichlet_rows(
    labels: np.ndarray, num_vehicles: int, alpha: float, *, seed: int, least: int = 32
) -> list[np.ndarray]:
    """Row numbers for each vehicle, int64; every row goes to exactly one.

    Each class's rows, int [N] labels, are dealt by Dirichlet shares; drawn again until every
    vehicle has at least `least` rows. Raises PartitionError if 1,000 draws give none.
    """
    if len(labels) < least * num_vehicles:
        raise PartitionError(f"{len(labels)} rows do not give {num_vehicles} vehicles {least} each")
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        hands: list[list[np.ndarray]] = [[] for _ in range(num_vehicles)]
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            cuts = np.cumsum(rng.dirichlet([alpha] * num_vehicles))[:-1] * len(rows)
            for hand, part in zip(hands, np.split(rows, cuts.astype(int)), strict=True):
                hand.append(part)
        if min(sum(map(len, hand)) for hand in hands) >= least:
            return [np.sort(np.concatenate(hand)) for hand in hands]
    raise PartitionError(
        f"{len(labels)} rows do not give {num_vehicles} vehicles {least} each at alpha {alpha}"
    )


def rows_by_shares(labels: np.ndarray, shares: np.ndarray, *, seed: int) -> list[np.ndarray]:
    """Row numbers for each vehicle, int64; every row of a class that somebody meets goes to exactly one.

    Each class's rows, int [N] labels, are dealt in proportion to its column of `shares`, float64 [V, C].
    Raises PartitionError if that leaves a vehicle without any.
    """
    rng = np.random.default_rng(seed)
    hands: list[list[np.ndarray]] = [[] for _ in shares]
    for label in np.unique(labels):
        rows, weights = rng.permutation(np.flatnonzero(labels == label)), shares[:, label]
        if weights.sum() == 0:
            continue
        cuts = np.rint(np.cumsum(weights)[:-1] / weights.sum() * len(rows)).astype(int)
        for hand, part in zip(hands, np.split(rows, cuts), strict=True):
            hand.append(part)
    dealt = [np.sort(np.concatenate(hand)) if hand else np.zeros(0, np.int64) for hand in hands]
    if not min(map(len, dealt)):
        raise PartitionError(f"{len(labels)} rows do not give each of {len(shares)} vehicles any")
    return dealt
