"""Settings that decide what a coordinator makes of updates. Knows no server, disk or network."""

from pydantic import Field

from fleetfl.aggregators import AnyAggregator
from fleetfl.aggregators.fedbuff import Config as FedBuff
from fleetfl.closed_form import Config as ClosedFormConfig
from fleetfl.codecs import AnyCodec
from fleetfl.codecs.spectral import Config as Spectral
from fleetfl.config import Section
from fleetfl.defences.influence import Config as ClipConfig
from fleetfl.server_optimizers import AnyServerOptimizer
from fleetfl.server_optimizers.sgd import Config as SGD


class CoordinatorSettings(Section):
    """Every bit of a release follows from these settings, the initial vector and the updates in their order.

    The server's settings extend this class, so that whoever runs its coordinator (a server, a virtual fleet,
    a replay, a bench) runs it with all of them.
    """

    aggregator: AnyAggregator = FedBuff()
    """The rule that folds updates into one server step."""
    optimizer: AnyServerOptimizer = SGD()
    """The server's step on what the aggregator gives."""
    release: AnyCodec = Spectral(bits_per_value=0.37)
    """Codec of the difference between two versions; values that it drops go out with later versions."""
    closed_form: ClosedFormConfig | None = None
    """Solves the first head from sufficient statistics of the vehicles' features
    (`vehicle.agent.sums_of_frames`); None accepts no such statistics."""
    clip: ClipConfig | None = ClipConfig()
    """Bounds what one vehicle's update may change; null counts updates of any length that makes sense."""
    max_staleness: int = Field(default=50, ge=0)
    """Versions; an update based on an older one is refused."""
