"""Which name the server's next generation has: higher than whatever this state folder knows of."""

from collections.abc import Iterable

from actors.config import ServerConfig
from fleetfl.releases.generations import number_of, successor
from fleetfl.storage.high_water import HighWater


class GenerationNames:
    """Numbers of generations outlive journal, checkpoints and registry, which may be set aside or lost."""

    def __init__(self, config: ServerConfig) -> None:
        self.registry = config.releases
        self.highest = HighWater(config.generation_path)

    def next(self, known: Iterable[str], *, past: int = 0) -> str:
        """A name that was never given, with a number higher than those of all `known` ones and `past`.

        It is on disk that the number is taken before this returns. Raises OSError, or
        GenerationError if there is no higher one.
        """
        past = max(past, self.highest.number)
        name = successor([*known, *self.registry.generations()], past=past)
        self.highest.raise_to(number_of(name), durably=True)
        self.highest.close()  # rarely written: no file is held open for it, which would hold a disk
        return name
