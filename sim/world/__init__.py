"""A small drone world: ten kinds of thing as a downward camera sees them, in any weather.

It knows nothing of learning or of fleets.
"""

from sim.world.conditions import CONDITIONS, under
from sim.world.objects import CLASSES
from sim.world.renderer import poses, render
from sim.world.sheet import contact_sheet

POSE = ("altitude", "heading")
"""Names of the numbers that `poses` gives, metres and degrees."""

__all__ = ["CLASSES", "CONDITIONS", "POSE", "contact_sheet", "poses", "render", "under"]
