"""Names new generations, each with a number above all that the state folder knows. Knows no Coordinator."""

from collections.abc import Iterable

from actors.config import ServerConfig
from fleetfl.releases.generations import number_of, successor
from fleetfl.storage.high_water import HighWater


class GenerationNames:
    """Draws generation names; the highest number outlives a lost journal, registry or checkpoint."""

    def __init__(self, config: ServerConfig) -> None:
        self.registry = config.releases
        self.highest = HighWater(config.generation_path)

    def next(self, known: Iterable[str], *, past: int = 0) -> str:
        """A name that was never given, with a number higher than those of all `known` ones and `past`.

        The number is on disk as taken before this returns. Raises OSError, or
        GenerationError if there is no higher one.
        """
        past = max(past, self.highest.number)
        name = successor([*known, *self.registry.generations()], past=past)
        self.highest.raise_to(number_of(name), durably=True)
        self.highest.close()  # rarely written: no file is held open for it, which would hold a disk
        return name
