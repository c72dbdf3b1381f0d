"""Momentum approximation: past steps re-weighed so that stale updates add up to momentum (arXiv:2402.09247).

A step R_t is a mean of updates from several versions: W[t, s] is the share that was trained from version s.
Momentum on fresh updates would count what was learned at s with M[t, s] = beta^(t - s). Here

    a = argmin |sum_j a_j W[j] - M[t]|^2,   x <- x + eta_g sum_j a_j R_j

over the last `history` steps j (the paper takes all); of several minima the shortest a. With fresh updates
only, W is the identity, a_j = beta^(t - j), and this is `sgd` with momentum.

W counts updates, so it fits aggregators that weigh all alike, such as `fedbuff` with a constant rule.

By hand, beta = 1/2: step 0 is 4, fresh: x = 4. Step 1 is 8 and one version late, so both are of version 0 and
nothing is known of version 1: a_0 + a_1 is to be 1/2, a = (1/4, 1/4), x = 4 + (4 + 8) / 4 = 7.

The least squares are LAPACK's, whose last bits depend on the processor.
"""

from collections import Counter, deque
from typing import Any, Literal

import numpy as np
from pydantic import Field

from fleetfl.aggregators import Step
from fleetfl.aggregators._weighted_sum import weighted_sum
from fleetfl.server_optimizers import OptimizerConfig


class Config(OptimizerConfig):
    """Settings of momentum approximation."""

    kind: Literal["momentum_approximation"] = "momentum_approximation"
    learning_rate: float = Field(default=1.0, gt=0)
    """Factor on the re-weighed sum of steps (eta_g); larger values move faster and less steadily."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum that past steps add up to (beta); closer to 1 counts old steps longer."""
    history: int = Field(default=30, ge=1)
    """Number of past steps kept, float32 [P] each. More approximate momentum better and take more memory."""

    def build(self, size: int) -> "MomentumApproximation":
        return MomentumApproximation(self)


class MomentumApproximation:
    """The last steps with their base versions, re-weighed at each new one."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.steps = 0
        self.past: deque[tuple[np.ndarray, list[int]]] = deque(maxlen=config.history)
        """Change, float32 [P], and base versions of the updates of each of the last steps."""

    def apply(self, params: np.ndarray, step: Step) -> np.ndarray:
        bases = [self.steps - late for late in step.staleness]
        self.past = deque([*self.past, (step.change, bases)], self.config.history)
        weights = self.config.learning_rate * self._weights(self.steps)
        self.steps += 1
        return weighted_sum(
            [change for change, _ in self.past], weights.tolist(), onto=params.copy()
        )

    def _weights(self, now: int) -> np.ndarray:
        """Weights a of the kept steps, float64 [steps kept]."""
        versions = sorted({base for _, bases in self.past for base in bases})
        shares = np.zeros((len(versions), len(self.past)))
        for column, (_, bases) in enumerate(self.past):
            for base, count in Counter(bases).items():
                shares[versions.index(base), column] = count / len(bases)
        wanted = self.config.momentum ** (now - np.array(versions, np.float64))
        return np.linalg.lstsq(shares, wanted, rcond=None)[0]

    def snapshot(self) -> dict[str, Any]:
        return {"steps": self.steps, "past": [[*each] for each in self.past]}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.past = deque(((change, bases) for change, bases in state["past"]), self.config.history)
