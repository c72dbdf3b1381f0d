"""Decides which releases stay on disk, from their versions and sizes. Knows no file."""

from collections.abc import Mapping, Set

from pydantic import Field

from fleetfl.config import Section


class Config(Section):
    """Settings of the releases that stay on disk; the newest, the best and those rolled back to always do."""

    newest: int = Field(default=100, ge=1)
    """Number of newest releases that stay. More of them allow a rollback farther back and take more disk."""
    every: int = Field(default=100, ge=1)
    """Interval, in versions, of older releases that stay: those whose version it divides. A larger one keeps
    fewer of them."""
    max_bytes: int = Field(default=2 * 2**30, ge=0)
    """Disk space, bytes, of all releases of a generation; beyond it the oldest are deleted sooner."""

    def outlives(self, version: int, newest: int) -> bool:
        """Whether `version` stays because of its number, where `newest` is the newest one."""
        return version > newest - self.newest or version % self.every == 0


def retained(num_bytes: Mapping[int, int], protected: Set[int], config: Config) -> set[int]:
    """Versions that stay, of those in `num_bytes`, which gives the size of each; `protected` ones
    always do.
    """
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
