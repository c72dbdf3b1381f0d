"""Passes one picture through a backbone, so that an unfit one is refused before a fleet is started."""

import torch
from torch import nn

from fleetfl.models import ModelError
from fleetfl.models.weights_file import one_line


def num_features(module: nn.Module, image_size: int, source: str) -> int:
    """Width of the one vector that the module makes of a picture.

    Raises ModelError if it makes something else, or draws by chance: two processes would disagree.
    """
    before = torch.get_rng_state()
    try:
        with torch.no_grad():
            out = module.eval()(torch.zeros(1, 3, image_size, image_size))
        shape = tuple(out.shape)
    except Exception as failed:
        raise ModelError(
            f"{source} takes no pictures of {image_size} x {image_size}: {one_line(failed)}"
        ) from failed
    if len(shape) != 2 or shape[0] != 1:
        raise ModelError(f"{source} makes {shape} of a picture, expected one vector of features")
    if not torch.equal(before, torch.get_rng_state()):
        raise ModelError(f"{source} draws by chance what it makes of a picture: no two are alike")
    return shape[1]
