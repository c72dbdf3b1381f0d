"""Import this for all that a process which trains needs: by the one that the others are forked from."""

import gc
from importlib import import_module

from fleetfl.models.loading import uncollected

with uncollected():
    for name in ("sim.fleet.workers.stacked_model", "timm.models.vision_transformer"):
        import_module(name)
# No collection writes to these objects any more: the processes forked from here share their memory.
gc.freeze()
