"""The versions that a fleet holds, each once: vehicles that hold the same one hold the same array."""

from collections import OrderedDict

from fleetfl.protocol.messages import Release, Snapshot
from fleetfl.protocol.topics import RING
from fleetfl.releases.versions import CurrentRelease, Follower
from fleetfl.vectors import Layout


class SharedVersions:
    """The newest versions. Those before them are held by nobody any more: the way on is a snapshot."""

    def __init__(self, kept: int = RING + 1) -> None:
        self.kept = kept
        self.held: OrderedDict[bytes, CurrentRelease] = OrderedDict()
        """By SHA-256."""

    def remember(self, held: CurrentRelease) -> CurrentRelease:
        """The one of all that are equal to it."""
        known = self.held.setdefault(held.sha256, held)
        while len(self.held) > self.kept:
            self.held.popitem(last=False)
        return known

    def known(self, news: Release | Snapshot) -> CurrentRelease | None:
        held = self.held.get(news.sha256)
        is_same = held is not None and (held.generation, held.version) == (
            news.generation,
            news.version,
        )
        return held if is_same else None


class SharedFollower(Follower):
    """Adds a step, or reads a snapshot, only where no vehicle has done so before.

    Of the same bits the real one makes the same version, so whoever comes later may take that.
    """

    def __init__(
        self, layout: Layout, versions: SharedVersions, start: CurrentRelease | None
    ) -> None:
        super().__init__(layout)
        self.versions, self.held = versions, start

    def apply(self, release: Release) -> None:
        known, held = self.versions.known(release), self.held
        before = (release.generation, release.base_version)
        if known is None or held is None or before != (held.generation, held.version):
            super().apply(release)
            self._share()
        elif not self.is_past(release):
            self.held = known

    def adopt(self, snapshot: Snapshot) -> None:
        known = self.versions.known(snapshot)
        if known is None:
            super().adopt(snapshot)
            self._share()
        elif not self.has(snapshot) and not self.is_past(snapshot):
            self.held = known

    def _share(self) -> None:
        if self.held is not None:
            self.held = self.versions.remember(self.held)
