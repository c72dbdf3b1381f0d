"""A mean over seeds and how sure it is."""

from collections.abc import Sequence

import numpy as np

T_975 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Student's t for a 95 % interval of the mean, by number of seeds."""


def mean_ci95(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval (Student's t), of 2 to 10 values."""
    spread = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return float(np.mean(values)), T_975[len(values)] * spread
