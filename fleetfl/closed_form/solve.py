"""Linear discriminant analysis from sufficient statistics, and the check that some frames can have them."""

import numpy as np

from fleetfl.closed_form.statistics import FRACTION_BITS, SufficientStatistics
from fleetfl.codecs import CodecError

EXAMPLES_ROUNDED = 64
"""Number of examples whose statistics may be off by one rounding; statistics of more examples may be off by
proportionally more, which is of little weight beside them."""
MOST_LOGIT = 1e4
"""Largest magnitude of a logit at a class's mean. A head beyond it is scaled down, which keeps the order."""


def require_consistent(statistics: SufficientStatistics) -> None:
    """Raises CodecError for statistics that no frames can have, up to what rounding to 1/16 leaves.

    The features of all classes add up to those of all frames; what is left of their squares when the
    classes' means are taken off is a sum of squares, so no direction's is negative. That bounds each
    product by its two squares as well.
    """
    unit, (size, num_classes) = 2.0**-FRACTION_BITS, statistics.cross.shape
    counts = statistics.cross[-1]
    if (counts & ((1 << FRACTION_BITS) - 1)).any() or statistics.cross[:, counts == 0].any():
        raise CodecError("statistics of classes with no or with broken numbers of examples")
    gram = statistics.square()
    of_all = np.rint(gram[:, -1] / unit)
    # Each sum was rounded once, however many examples it is of; who multiplies them multiplies that too.
    rounded = unit * max(1.0, counts.sum() / (EXAMPLES_ROUNDED << FRACTION_BITS))
    if np.abs(statistics.cross.sum(axis=1) - of_all).max() > (num_classes + 1) * rounded / unit:
        raise CodecError("statistics of the classes do not add up to those of all examples")
    means, within = _within(gram, statistics.cross * unit)
    longest = float(np.sqrt((means**2).sum(axis=1).max(initial=0)))
    slack = rounded * (size + num_classes * np.sqrt(size) * longest) + 1e-9 * np.trace(gram)
    if not _is_positive(within + slack * np.eye(size - 1)):
        raise CodecError("squares are smaller than those of the classes' means")


def discriminant(
    statistics: SufficientStatistics, *, shrinkage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weight float64 [C, D - 1] and bias [C] of linear discriminant analysis, all classes equally likely.

    Classes of which the fleet has no frames get zeros. Raises ValueError without any frames.
    """
    unit = 2.0**-FRACTION_BITS
    cross = statistics.cross * unit
    size, counts = len(cross), cross[-1]
    seen = counts > 0
    if not seen.any():
        raise ValueError("statistics of no frames")
    means, within = _within(statistics.square(), cross)
    within /= counts.sum()
    least = shrinkage * max(np.trace(within) / (size - 1), unit)
    within += np.eye(size - 1) * least
    if not _is_positive(within - np.eye(size - 1) * (least / 2)):
        # Rounding, or a forger, has left less than nothing in some direction.
        values, directions = np.linalg.eigh(within)
        within = (directions * np.maximum(values, least)) @ directions.T
    solved = np.linalg.solve(within, means.T).T
    scores = -0.5 * (solved * means).sum(axis=1)
    weight, bias = np.zeros((len(counts), size - 1)), np.zeros(len(counts))
    # What all classes have in common changes no probability.
    weight[seen] = solved - solved.mean(axis=0)
    bias[seen] = scores - scores.mean()
    most = np.abs(means @ weight.T + bias).max()
    if not np.isfinite(most):
        raise ValueError("statistics whose head is not finite")
    excess = max(1.0, most / MOST_LOGIT)
    return weight / excess, bias / excess


def _within(gram: np.ndarray, cross: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean features of the S classes seen, float64 [S, D - 1], and the scatter about them, [D - 1, D - 1]."""
    counts = cross[-1]
    seen = counts > 0
    means = (cross[:-1, seen] / counts[seen]).T
    return means, gram[:-1, :-1] - (means.T * counts[seen]) @ means


def _is_positive(matrix: np.ndarray) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
