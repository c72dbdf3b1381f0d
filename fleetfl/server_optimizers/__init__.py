"""Server optimizers turn an aggregator's step into the next version. Vector maths: no clock, no model."""

from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import SerializeAsAny

from fleetfl.aggregators import Step
from fleetfl.plugins import PluginConfig, chosen_from


class ServerOptimizer(Protocol):
    """Applies steps to params, float32 [P]; explicit state in, state out. A change points downhill."""

    def apply(self, params: np.ndarray, step: Step) -> np.ndarray:
        """New params, float32 [P]; the old ones are left as they are. `step.change` may be kept."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """State that `restore` needs to go on as if never stopped; later steps do not change it."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of `snapshot`."""
        ...


class OptimizerConfig(PluginConfig):
    """Settings of one server optimizer."""

    def build(self, size: int) -> ServerOptimizer:
        """Make the optimizer for vectors of `size` values."""
        raise NotImplementedError


AnyServerOptimizer = Annotated[
    SerializeAsAny[OptimizerConfig], chosen_from("fleetfl.server_optimizers", default="sgd")
]
