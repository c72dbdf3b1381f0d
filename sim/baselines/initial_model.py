"""The initial model, release 0: the backbone with a head trained centrally on clear-weather frames."""

import math
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from fleetfl.models.adapted import AdaptedModel


def fit_head(
    model: AdaptedModel, images: np.ndarray, labels: np.ndarray, *, weight_decay: float = 1e-3
) -> float:
    """Fit the model's head to frozen features by the task's loss, to convergence.

    Images uint8 [N, H, W, 3], labels the task's targets [N, ...]; gives the mean score on them, 0 to 1. The
    adapter is left as it is. Full-batch L-BFGS: no rate to tune, the same result every time.
    """
    with torch.no_grad():
        features = torch.cat(
            [
                model.features(torch.from_numpy(images[i : i + 256]))
                for i in range(0, len(images), 256)
            ]
        )
    targets = model.placed(torch.from_numpy(labels))
    head = model.head
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=200, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model.task.loss(head(features), targets)
        loss = loss + weight_decay * head.weight.square().sum()
        loss.backward()
        return loss

    with _WithoutMkl():
        optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        predictions = model.task.predictions(head(features)).cpu().numpy()
    return float(model.task.scores(predictions, labels).mean())


class _WithoutMkl(TorchFunctionMode):
    """Context that computes dot products and roots without MKL, whose results differ between Intel and
    AMD.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.dot:
            one, other = args
            return (one * other).sum()
        if func is torch.Tensor.sqrt:
            return args[0].new_tensor(math.sqrt(args[0].item()))  # L-BFGS takes them of one number
        return func(*args, **(kwargs or {}))
