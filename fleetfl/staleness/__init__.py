"""How much a late update counts. Staleness is in versions: released minus base, worked out by the server."""

from typing import Annotated

from pydantic import SerializeAsAny

from fleetfl.plugins import PluginConfig, chosen_from


class StalenessRule(PluginConfig):
    """A rule is its own settings: a pure function of one number."""

    def weight(self, staleness: int) -> float:
        """Factor in (0, 1] for an update that is `staleness` >= 0 versions old."""
        raise NotImplementedError


AnyStalenessRule = Annotated[SerializeAsAny[StalenessRule], chosen_from("fleetfl.staleness")]
