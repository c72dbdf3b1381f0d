"""Messages between vehicles and server; wire.py turns them into bytes."""

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

VEHICLE_PATTERN = r"^[A-Za-z0-9_-]{1,64}\Z"
"""Pattern of a vehicle's name: one level of a topic, without `/` and wildcards (`$` would let a newline
in)."""

SERVER = "server"
"""Name under which releases and receipts are signed."""

MAX_NOTE = 300
"""Longest note of a status, characters."""

MAX_DETAIL = 300
"""Longest detail of a receipt, characters."""

MAX_ENDS = 64
"""Most kinds of outcome in a status, and most characters in a kind's name."""

FORMAT = "format"
"""Receipt's reason when the update cannot be read but names its vehicle. The vehicle takes back what it
learned with it."""

SIGNATURE = "signature"
"""Receipt's reason when nothing proves that the vehicle sent the update. The vehicle keeps the update."""

ROLLED_BACK = "undone"  # its name on the wire since the first version
"""Receipt's reason when the update was trained from a version that was rolled back. The vehicle drops the
update and what it learned with it."""


def fitting(said: str, most: int) -> str:
    """The first `most` characters of a text, with those escaped that UTF-8 cannot write, as in file names."""
    return said.encode("utf-8", "backslashreplace").decode()[:most]


Name = Annotated[str, Meta(pattern=VEHICLE_PATTERN)]
Short = Annotated[str, Meta(max_length=64)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
Fingerprint = Annotated[bytes, Meta(min_length=8, max_length=8)]
"""Fingerprint, 8 bytes, of the vector's layout (`vectors.Layout`)."""
Parts = Annotated[bytes, Meta(max_length=16)]
"""One byte for each part of the layout (`vectors.PARTS`), by which a refusal names the part that differs;
empty from older versions."""
Sha256 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Second = Annotated[int, Meta(ge=0, le=2**40)]
"""Time, UTC, in whole seconds since 1970."""


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages, packed as an array that begins with the type's tag.

    Readers skip what they do not know and fill in defaults, so a field may be added at the end, with
    a default. Anything else is another format (`wire.FORMAT`).
    """


class Update(Message, frozen=True, tag=1):
    """A vehicle's local change to the adapter, named by (vehicle, boot, sequence)."""

    vehicle: Name
    boot: Short
    """Random name of the agent's start, drawn at each, so that a lost state folder repeats no name."""
    sequence: Count
    """Number of the update in its boot, from 0."""
    base_version: Count
    """Release that training started from; the server works out the staleness."""
    layout: Fingerprint
    num_examples: Positive
    """Number of frames trained on."""
    local_steps: Positive
    """Number of local optimizer steps."""
    captured_from: Second
    """Capture time of the oldest frame trained on."""
    captured_to: Second
    """Capture time of the newest frame trained on."""
    loss: float
    """Mean training loss over the local steps."""
    codec: Short
    """Name of the codec that packed the body."""
    body: bytes
    """The delta, float32 [P], as `codec` packed it; sufficient statistics if that is `feature_sums`
    (fleetfl/closed_form)."""
    generation: Short = ""
    """Generation of the release that training started from; empty if it is not known."""
    parts: Parts = b""
    base_sha256: Annotated[bytes, Meta(max_length=8)] = b""
    """The first 8 bytes of the SHA-256 of the vector that training started from; empty if not known."""


class Release(Message, frozen=True, tag=2):
    """A new version of the adapter, as the difference from the version before it."""

    generation: Short
    """Name of the generation of versions, `{number}-{hex}` (generations.py)."""
    version: Count
    base_version: int
    """The version before; -1 for a whole version, and if this says only that `version` is the newest."""
    layout: Fingerprint
    sha256: Sha256
    """SHA-256 of the float32 vector that the step leads to: proof that all hold the same bits."""
    codec: Short
    """Name of the codec that packed the body; empty if this says only that `version` is the newest."""
    body: bytes
    """The difference, float32 [P], as `codec` packed it, or the whole version if there is no base version.
    It is empty if the broker takes no packet of that size; the release in its slot has it then."""
    max_staleness: Annotated[int, Meta(ge=-1, le=2**53)] = -1
    """Largest staleness, in versions, of an update that the server counts; -1 if it does not say."""
    parts: Parts = b""


class Snapshot(Message, frozen=True, tag=3):
    """A whole version of the adapter, for vehicles that cannot reach it by releases."""

    generation: Short
    version: Count
    layout: Fingerprint
    sha256: Sha256
    codec: Short
    body: bytes
    """The vector, float32 [P], as `codec` packed it."""
    parts: Parts = b""


class Receipt(Message, frozen=True, tag=4):
    """The server's answer to one update. The vehicle keeps and resends the update until it comes."""

    vehicle: Name
    boot: Short
    sequence: Count
    verdict: Literal["accepted", "duplicate", "refused"]
    reason: Short
    """Reason of a refusal, one word; empty otherwise."""
    staleness: int
    """Versions released between the update's base and its use."""
    version: Count
    """The server's version after the update was judged."""
    detail: Annotated[str, Meta(max_length=MAX_DETAIL)] = ""
    """Reason of a refusal in words: the value found and what was expected."""


class Status(Message, frozen=True, tag=5):
    """State of a vehicle, retained. The broker publishes the `offline` one as the vehicle's last will."""

    vehicle: Name
    boot: Short
    state: Literal["online", "offline"]
    version: int
    """Release that the vehicle trains on; -1 before the first."""
    bytes_up: Count
    """Bytes of frames published since boot, repeats included."""
    bytes_down: Count
    """Bytes of release and snapshot frames received since boot."""
    waiting: Count
    """Number of updates in the outbox."""
    note: Annotated[str, Meta(max_length=MAX_NOTE)]
    """Obstacles of the vehicle, in words; empty if there are none."""
    key: Annotated[bytes, Meta(max_length=32)] = b""
    """Ed25519 public key of the vehicle, which a server may note at the first use; empty if it signs
    nothing."""
    outcomes: Annotated[dict[Short, Count], Meta(max_length=MAX_ENDS)] = {}
    """Number of the vehicle's updates by outcome, over all boots, as {"accepted": 12, "expired age": 1}."""


class Rollback(Message, frozen=True, tag=6):
    """Request to publish an older version again as the next one. Only a server's journal has it."""

    vehicle: ClassVar[str] = ""
    sequence: ClassVar[int] = 0
    """In the journal (vehicle, boot, sequence) names the request, and no vehicle has that name."""

    boot: Short
    """Random name of the request."""
    generation: Short
    """Generation of the release to go back to."""
    version: Count
    """Version of the release to go back to."""
    layout: Fingerprint
    sha256: Sha256
    codec: Short
    body: bytes
    """Vector of that release, float32 [P], as `codec` packed it: a replay needs no file but the journal."""
    reason: Annotated[str, Meta(max_length=MAX_NOTE)] = ""
    """Reason for the rollback, in the words of whoever asked."""


class Ban(Message, frozen=True, tag=7):
    """Request to refuse a vehicle's updates, or to accept them again. Only a server's journal has it."""

    vehicle: ClassVar[str] = ""
    sequence: ClassVar[int] = 0
    """In the journal (vehicle, boot, sequence) names the request, and no vehicle has that name."""

    boot: Short
    """Random name of the request."""
    name: Name
    """Name of the vehicle."""
    is_banned: bool
    """Whether the vehicle is banned; false lifts an earlier ban."""
    reason: Annotated[str, Meta(max_length=MAX_NOTE)] = ""
    """Reason for the ban, in the words of whoever asked."""


AnyMessage = Update | Release | Snapshot | Receipt | Status | Rollback | Ban
