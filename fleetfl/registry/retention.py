"""Which releases stay on disk. Knows their versions and sizes, and no file."""

from collections.abc import Mapping, Set

from pydantic import Field

from fleetfl.config import Section


class Config(Section):
    """The newest, the best-scored one and those that were rolled back to always stay."""

    newest: int = Field(default=100, ge=1)
    """So many of the newest."""
    every: int = Field(default=100, ge=1)
    """And each version that this number divides."""
    max_bytes: int = Field(default=2 * 2**30, ge=0)
    """Of all releases of a generation; beyond, the oldest go sooner."""

    def outlives(self, version: int, newest: int) -> bool:
        """Whether it stays for its number, with `newest` there."""
        return version > newest - self.newest or version % self.every == 0


def retained(num_bytes: Mapping[int, int], protected: Set[int], config: Config) -> set[int]:
    """Of the versions, whose sizes these are, the ones that stay."""
    newest = max(num_bytes, default=0)
    safe = {version for version in num_bytes if version == newest or version in protected}
    staying = safe | {version for version in num_bytes if config.outlives(version, newest)}
    used = sum(num_bytes[version] for version in staying)
    for version in sorted(staying - safe):
        if used <= config.max_bytes:
            break
        staying.remove(version)
        used -= num_bytes[version]
    return staying
