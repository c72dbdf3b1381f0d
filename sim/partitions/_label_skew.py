"""Label skew between vehicles by Dirichlet shares (arXiv:1909.06335). Smaller alpha, more skew."""

import numpy as np

from fleetfl import FleetflError


class PartitionError(FleetflError, ValueError):
    """Raised when the data cannot be partitioned over that many vehicles in such shares."""


def dirichlet_shares(num_vehicles: int, num_classes: int, alpha: float, *, seed: int) -> np.ndarray:
    """Class shares of each vehicle, float64 [V, C], rows summing to 1."""
    return np.random.default_rng(seed).dirichlet([alpha] * num_classes, num_vehicles)


def dirichlet_rows(
    labels: np.ndarray, num_vehicles: int, alpha: float, *, seed: int, least: int = 32
) -> list[np.ndarray]:
    """Row numbers of each vehicle, int64; every row goes to exactly one vehicle.

    The rows of each class, by int [N] labels, are partitioned by Dirichlet shares, which are drawn again
    until every vehicle has at least `least` rows. Raises PartitionError after 1,000 draws without success.
    """
    if len(labels) < least * num_vehicles:
        raise PartitionError(f"{len(labels)} rows do not give {num_vehicles} vehicles {least} each")
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        partitions: list[list[np.ndarray]] = [[] for _ in range(num_vehicles)]
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            cuts = np.cumsum(rng.dirichlet([alpha] * num_vehicles))[:-1] * len(rows)
            for own, part in zip(partitions, np.split(rows, cuts.astype(int)), strict=True):
                own.append(part)
        if min(sum(map(len, own)) for own in partitions) >= least:
            return [np.sort(np.concatenate(own)) for own in partitions]
    raise PartitionError(
        f"{len(labels)} rows do not give {num_vehicles} vehicles {least} each at alpha {alpha}"
    )


def rows_by_shares(labels: np.ndarray, shares: np.ndarray, *, seed: int) -> list[np.ndarray]:
    """Row numbers of each vehicle, int64; every row of a class with a share goes to exactly one vehicle.

    The rows of each class, by int [N] labels, are partitioned in proportion to its column of `shares`,
    float64 [V, C]. Raises PartitionError if that leaves a vehicle without rows.
    """
    rng = np.random.default_rng(seed)
    partitions: list[list[np.ndarray]] = [[] for _ in shares]
    for label in np.unique(labels):
        rows, weights = rng.permutation(np.flatnonzero(labels == label)), shares[:, label]
        if weights.sum() == 0:
            continue
        cuts = np.rint(np.cumsum(weights)[:-1] / weights.sum() * len(rows)).astype(int)
        for own, part in zip(partitions, np.split(rows, cuts), strict=True):
            own.append(part)
    sorted_rows = [
        np.sort(np.concatenate(own)) if own else np.zeros(0, np.int64) for own in partitions
    ]
    if not min(map(len, sorted_rows)):
        raise PartitionError(f"{len(labels)} rows do not give each of {len(shares)} vehicles any")
    return sorted_rows
