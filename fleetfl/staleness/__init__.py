"""Staleness rules weigh late updates. Staleness is the number of versions released since the base."""

from typing import Annotated

from pydantic import SerializeAsAny

from fleetfl.plugins import PluginConfig, chosen_from


class StalenessRule(PluginConfig):
    """Base of a staleness rule, which is its own settings: a pure function of the staleness."""

    def weight(self, staleness: int) -> float:
        """Factor in (0, 1] for an update that is `staleness` >= 0 versions old."""
        raise NotImplementedError


AnyStalenessRule = Annotated[SerializeAsAny[StalenessRule], chosen_from("fleetfl.staleness")]
