"""Releases are coded differences between versions that all hold to the bit. Knows no broker.

The server optimizes x and publishes a second vector, the hidden state x^ of QAFeL (arXiv:2308.00263):

    body = encode(x - x^);  x^ <- x^ + decode(body)

Every vehicle does the second half with the same bytes, so all hold the same float32 bits, and the
SHA-256 in each release proves it. What the codec drops stays in x - x^ and goes out later.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from fleetfl import FleetflError
from fleetfl.codecs import CodecConfig, CodecError, decoder
from fleetfl.protocol.messages import Release, Rollback, Snapshot
from fleetfl.protocol.topics import RING
from fleetfl.releases.generations import BEFORE_ALL, Order, order_of
from fleetfl.vectors import Layout, digest


class ReleaseError(FleetflError, ValueError):
    """A release that cannot be made, or does not lead to the vector that it names."""


class OlderRelease(ReleaseError):
    """A release or snapshot older than the version that was held already."""


BASE_DIGEST_BYTES = 8
"""Number of leading bytes of a version's SHA-256 by which an update names its base."""
MOST_DIGESTS = 4096
"""Most versions whose digests are remembered, however large `max_staleness` is."""
MOST_FORMER = 64
"""Most former names that are remembered; updates that name an older one are of no use any more."""


def unpacked(codec: str, body: bytes, layout: Layout) -> np.ndarray:
    """The vector, float32 [P], that `codec` packed into `body`. Raises ReleaseError for an unfit body."""
    try:
        return decoder(codec, layout).decode(body)
    except CodecError as broken:
        raise ReleaseError(str(broken)) from broken


def whole(news: Release | Snapshot | Rollback, layout: Layout) -> np.ndarray:
    """The whole vector, float32 [P], in a message's body. Raises ReleaseError if its SHA-256 does not fit."""
    return proven(news, unpacked(news.codec, news.body, layout))


def proven(news: Release | Snapshot | Rollback, vector: np.ndarray) -> np.ndarray:
    """`vector` itself. Raises ReleaseError if it has another SHA-256 than `news` names."""
    if (found := digest(vector)) != news.sha256:
        raise ReleaseError(
            f"version {news.version} has SHA-256 {found.hex()}, expected {news.sha256.hex()}"
        )
    return vector


def moved(vector: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Sum of vector and difference, float32 [P]: the step that server and vehicles share.

    Raises ReleaseError if it is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        total = vector + difference
    finite = np.isfinite(total)
    if not finite.all():
        at = int(np.argmin(finite))
        raise ReleaseError(f"value {at} of {total.size} becomes {total[at]}, expected finite")
    return total


class Published:
    """The server's half of releasing: the published vector, and the differences that led to it."""

    def __init__(
        self,
        vector: np.ndarray,
        layout: Layout,
        codec: CodecConfig,
        *,
        generation: str,
        max_staleness: int = -1,
    ) -> None:
        """Version 0 is `vector`, float32 [P]. Raises CodecError if no vehicle knows the codec."""
        self.layout, self.codec, self.codec_kind = layout, codec.build(layout), codec.kind_name
        decoder(self.codec_kind, layout)
        self.generation, self.version, self.max_staleness = generation, 0, max_staleness
        self.former: dict[str, int] = {}
        """Last version of each generation under which these versions were counted before."""
        self.vector = vector.astype(np.float32)
        self.sha256 = digest(self.vector)
        self.digests: dict[int, bytes] = {}
        """SHA-256, cut to BASE_DIGEST_BYTES, of the newest versions, oldest first."""
        self._note_digest()
        self.recent = deque([self._bare()], RING)
        """Newest releases, newest last. The first of a generation, or after `restore`, has no body."""

    def advance(self, params: np.ndarray) -> Release:
        """Release the next version, as near to `params` (float32 [P]) as the codec gets in one step.

        Raises ReleaseError, and changes nothing, if the difference cannot be coded.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            difference = params - self.vector
        try:
            body = self.codec.encode(difference)
        except CodecError as unfit:
            raise ReleaseError(f"version {self.version + 1}: {unfit}") from unfit
        self.vector = moved(self.vector, unpacked(self.codec_kind, body, self.layout))
        self.sha256 = digest(self.vector)
        self.version += 1
        self._note_digest()
        self.recent.append(self._release(self.version - 1, self.codec_kind, body))
        return self.recent[-1]

    def replace(self, vector: np.ndarray) -> Release:
        """Release `vector`, float32 [P], to the bit and whole as the next version."""
        self.vector = vector
        self.sha256 = digest(vector)
        self.version += 1
        self._note_digest()
        body = decoder("float32", self.layout).encode(vector)
        self.recent.append(self._release(-1, "float32", body))
        return self.recent[-1]

    def whole(self) -> Snapshot:
        """Snapshot of the newest version, for vehicles that cannot reach it by differences."""
        return Snapshot(
            generation=self.generation,
            version=self.version,
            layout=self.layout.fingerprint,
            sha256=self.sha256,
            codec="float32",
            body=decoder("float32", self.layout).encode(self.vector),
            parts=self.layout.parts,
        )

    def since(self, version: int) -> list[Release]:
        """Releases past `version` among the newest RING, newest last."""
        return [release for release in self.recent if release.version > version]

    def later_than(self, than: Order) -> list[Release]:
        """Releases later than `than` among the newest RING, newest last."""
        return [release for release in self.recent if order_of(release) > than]

    def rename(self, generation: str) -> None:
        """Continue as another generation, because these versions may not be those that went out before."""
        self.former.pop(self.generation, None)
        self.former[self.generation] = self.version
        while len(self.former) > MOST_FORMER:
            del self.former[next(iter(self.former))]
        self.generation = generation
        self.recent = deque([self._bare()], RING)

    def last_of(self, generation: str) -> int | None:
        """Last version of a generation that updates may be based on; None if there is none."""
        return self.version if generation == self.generation else self.former.get(generation)

    def has_other_bits(self, version: int, base_sha256: bytes) -> bool:
        """Whether `version` is known to have another digest here; an empty digest never differs."""
        known = self.digests.get(version)
        return bool(base_sha256) and known is not None and base_sha256 != known

    def _note_digest(self) -> None:
        self.digests[self.version] = self.sha256[:BASE_DIGEST_BYTES]
        depth = RING if self.max_staleness < 0 else self.max_staleness
        while len(self.digests) > min(depth + 1, MOST_DIGESTS):
            del self.digests[next(iter(self.digests))]

    def _bare(self) -> Release:
        return self._release(-1, "", b"")

    def _release(self, base_version: int, codec: str, body: bytes) -> Release:
        return Release(
            generation=self.generation,
            version=self.version,
            base_version=base_version,
            layout=self.layout.fingerprint,
            sha256=self.sha256,
            codec=codec,
            body=body,
            max_staleness=self.max_staleness,
            parts=self.layout.parts,
        )

    def snapshot(self) -> dict[str, Any]:
        return {
            "lineage": self.generation,  # its name on disk since the first version
            "former": dict(self.former),
            "version": self.version,
            "vector": self.vector.copy(),
            "digests": dict(self.digests),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.generation, self.version = state["lineage"], state["version"]
        former = state.get("former", {})
        # An older fleetfl kept names alone.
        self.former = dict.fromkeys(former, self.version) if isinstance(former, list) else former
        self.vector = state["vector"].copy()
        self.sha256 = digest(self.vector)
        self.digests = dict(state.get("digests", {}))
        self.digests.pop(self.version, None)
        self._note_digest()
        self.recent = deque([self._bare()], RING)


@dataclass(frozen=True)
class Step:
    """A difference that led from one version's bits to another's."""

    from_sha256: bytes
    """SHA-256 of the vector before the step."""
    codec: str
    """Name of the codec that packed the body."""
    body: bytes
    """The difference, float32 [P], as `codec` packed it."""


@dataclass(frozen=True)
class CurrentRelease:
    """A version that a vehicle can train from."""

    generation: str
    version: int
    sha256: bytes
    vector: np.ndarray
    """The version, float32 [P]; never written to, so training may read it while the next one is made."""
    steps: tuple[Step, ...] = ()
    """Last steps that led here, oldest first; a file with an earlier version needs only these."""

    def since(self, sha256: bytes) -> tuple[Step, ...] | None:
        """Steps that lead here from the version with this SHA-256; None if they are not known."""
        if sha256 == self.sha256:
            return ()
        starts = [n for n, step in enumerate(self.steps) if step.from_sha256 == sha256]
        return self.steps[starts[-1] :] if starts else None

    def next(self, release: Release, vector: np.ndarray) -> "CurrentRelease":
        """The version that `release`, a difference to this one, leads to: `vector`, float32 [P]."""
        steps = (*self.steps, Step(self.sha256, release.codec, release.body))
        left = sum(len(step.body) for step in steps)
        while steps and left > vector.nbytes:  # the whole is no longer than they are
            left -= len(steps[0].body)
            steps = steps[1:]
        return CurrentRelease(release.generation, release.version, release.sha256, vector, steps)


class Follower:
    """A vehicle's half of releasing: a version whose SHA-256 is always the one that the server named.

    It goes forward only: nothing older than a version held before is taken, from any generation.
    """

    def __init__(self, layout: Layout, *, floor: Order = BEFORE_ALL) -> None:
        """`floor` is the order of the newest version that was held before, such as before a restart."""
        self.layout = layout
        self.held: CurrentRelease | None = None
        self.lowest = floor

    @property
    def floor(self) -> Order:
        """Order of the oldest version that is still taken."""
        return self.lowest if self.held is None else max(self.lowest, order_of(self.held))

    def has(self, news: Release | Snapshot) -> bool:
        """Whether this version, or a newer one of its generation, is held."""
        held = self.held
        if held is None or held.generation != news.generation:
            return False
        return held.version > news.version or (
            held.version == news.version and held.sha256 == news.sha256
        )

    def is_past(self, news: Release | Snapshot) -> bool:
        """Whether `news` is older than a version held before, and is not to be taken any more."""
        return order_of(news) < self.floor

    def missing(self, release: Release) -> range | None:
        """Versions between the held one and `release`, whose differences lead there.

        None if a snapshot is needed, or costs fewer bytes (were all of this release's size, or of a
        byte a value where its body does not come with it).
        Raises ReleaseError for another model's release.
        """
        self._require_layout(release)
        if release.base_version < 0:
            return range(0) if release.codec else None
        held = self.held
        if held is None or held.generation != release.generation:
            return None
        gap = release.version - held.version
        size = len(release.body) or self.layout.size
        is_cheaper = gap == 1 or gap * size < 4 * self.layout.size
        return range(held.version + 1, release.version) if 1 <= gap <= RING and is_cheaper else None

    def apply(self, release: Release) -> None:
        """Hold the release's version. Raises ReleaseError, and keeps the held one, if it does not lead
        there.
        """
        self._require_layout(release)
        self._require_later(release)
        if release.base_version < 0 and release.codec:
            self._hold(release, whole(release, self.layout))
            return
        held = self.held
        is_next = (
            held is not None
            and release.generation == held.generation
            and release.base_version == held.version
            and release.version == held.version + 1
        )
        if held is None or not is_next:
            at = "nothing" if held is None else f"version {held.version} of {held.generation}"
            raise ReleaseError(
                f"version {release.version} of {release.generation} is a difference against "
                f"{release.base_version}, held is {at}"
            )
        difference = unpacked(release.codec, release.body, self.layout)
        self.held = held.next(release, proven(release, moved(held.vector, difference)))

    def adopt(self, snapshot: Snapshot) -> None:
        """Hold the snapshot's version unless it is held. Raises ReleaseError if it is older or its bits
        differ.
        """
        self._require_layout(snapshot)
        if not self.has(snapshot):
            self._require_later(snapshot)
            self._hold(snapshot, whole(snapshot, self.layout))

    def _hold(self, news: Release | Snapshot, vector: np.ndarray) -> None:
        self.held = CurrentRelease(news.generation, news.version, news.sha256, vector)

    def _require_later(self, news: Release | Snapshot) -> None:
        if self.is_past(news):
            number, version = self.floor
            raise OlderRelease(
                f"an older release was offered: version {news.version} of {news.generation}, where "
                f"version {version} of generation {number} was held already"
            )

    def _require_layout(self, news: Release | Snapshot) -> None:
        unlike = self.layout.objection(news.layout, news.parts, ours="this vehicle's")
        if unlike:
            raise ReleaseError(f"{unlike}: the server's `model` settings are other ones")
