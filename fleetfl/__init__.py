"""fleetfl: what vehicles and server share -- messages, vectors, codecs, aggregation, settings, models.

For notebooks and scripts, each loaded when it is first used:

    fleetfl.simulate("configs/virtual-fleet.yaml", "sim.seed=3")   a whole fleet; gives its Summary
    fleetfl.load_release("state/server", "best")                   a release as a torch module
    fleetfl.Client("http://127.0.0.1:8000").classify("frame.png")  a question to the endpoint
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleetfl.client import Classification as Classification
    from fleetfl.client import Client as Client
    from fleetfl.registry.loading import load_release as load_release

__version__ = "0.1.0"

_LAZY = ("Classification", "Client", "Summary", "load_release", "simulate")
"""Names of the entry points `fleetfl.api`."""


class FleetflError(Exception):
    """An error that a person can correct: the message names the value and what was expected."""


def __getattr__(name: str) -> Any:
    # Every `from fleetfl import config` asks here first.
    if name in _LAZY:
        from fleetfl import api

        globals()[name] = api.found(name)
        return globals()[name]
    raise AttributeError(f"module 'fleetfl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
