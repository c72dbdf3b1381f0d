"""Names that `import fleetfl` offers to notebooks and scripts, found when they are first used.

The import itself reads nothing heavy, and the core names no package above it: each is an entry point of the
group `fleetfl.api`.
"""

from importlib.metadata import entry_points
from typing import Any

GROUP = "fleetfl.api"


def found(name: str) -> Any:
    """The object behind the name. Raises ImportError that says which packages it needs."""
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    if not points:
        raise ImportError(f"fleetfl.{name} is not known to the installation: install fleetfl again")
    try:
        return points[0].load()
    except ModuleNotFoundError as missing:
        extras = ",".join(points[0].extras) or "all"
        raise ImportError(
            f'fleetfl.{name} needs {missing.name}, which is not here: pip install "fleetfl[{extras}]"'
        ) from missing
