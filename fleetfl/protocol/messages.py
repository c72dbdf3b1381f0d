"""What vehicles and server say to each other. Bytes are wire.py's business."""

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

VEHICLE_PATTERN = r"^[A-Za-z0-9_-]{1,64}\Z"
"""A vehicle's name is one level of a topic, so neither `/` nor a wildcard; `$` would let a newline follow."""

SERVER = "server"
"""The name that releases and receipts are signed under."""

MAX_NOTE = 300
"""Characters of a status's note."""

MAX_DETAIL = 300
"""Characters of a receipt's detail."""

MAX_ENDS = 64
"""Kinds of end in a status, and characters of a kind's name."""

FORMAT = "format"
"""A receipt's reason when the update cannot be read, and it can be seen whose it is. The vehicle takes back
what it learned there."""

SIGNATURE = "signature"
"""A receipt's reason when it is not shown that its vehicle sent the update. The vehicle keeps it."""

ROLLED_BACK = "undone"  # its name on the wire since the first version
"""A receipt's reason when the update was trained from a version that was rolled back. The vehicle drops it,
and what it learned there."""


def fitting(said: str, most: int) -> str:
    """At most so many characters, all of which UTF-8 can write: names of files need not be that."""
    return said.encode("utf-8", "backslashreplace").decode()[:most]


Name = Annotated[str, Meta(pattern=VEHICLE_PATTERN)]
Short = Annotated[str, Meta(max_length=64)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
Fingerprint = Annotated[bytes, Meta(min_length=8, max_length=8)]
"""Of the vector's layout."""
Parts = Annotated[bytes, Meta(max_length=16)]
"""A byte for each part of that layout (`vectors.PARTS`), so that who refuses can name the one that differs;
empty from older versions."""
Sha256 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Second = Annotated[int, Meta(ge=0, le=2**40)]
"""UTC, whole seconds since 1970."""


class Message(msgspec.Struct, frozen=True, array_like=True):
    """One of the types below, packed as an array that begins with the type's tag.

    Readers skip what they do not know and fill in defaults, so a field may be added at the end, with
    a default. Anything else is another format (`wire.FORMAT`).
    """


class Update(Message, frozen=True, tag=1):
    """One vehicle's local change to the adapter. (vehicle, boot, sequence) names it."""

    vehicle: Name
    boot: Short
    """Drawn anew at each start of the agent, so that a lost state folder repeats no name."""
    sequence: Count
    base_version: Count
    """Release that training started from. Staleness is the server's to work out."""
    layout: Fingerprint
    num_examples: Positive
    local_steps: Positive
    captured_from: Second
    captured_to: Second
    """When the oldest and newest frame trained on were taken."""
    loss: float
    """Mean training loss over the local steps."""
    codec: Short
    body: bytes
    """float32 [P] as `codec` packed it; sums over features if that is `feature_sums` (closed_form.py)."""
    generation: Short = ""
    """Of the release that training started from; empty if it is not known."""
    parts: Parts = b""
    base_sha256: Annotated[bytes, Meta(max_length=8)] = b""
    """The first 8 bytes of the SHA-256 of the vector that training started from; empty if not known."""


class Release(Message, frozen=True, tag=2):
    """A new version of the adapter as the way to it from the version before."""

    generation: Short
    """Name of the generation of versions, `{number}-{hex}` (generations.py)."""
    version: Count
    base_version: int
    """The version before; -1 for a whole version, and if this says only that `version` is the newest."""
    layout: Fingerprint
    sha256: Sha256
    """Of the float32 vector that the step leads to: proof that all hold the same bits."""
    codec: Short
    """Empty if this says only that `version` is the newest."""
    body: bytes
    """The difference, float32 [P], as `codec` packed it, or the whole version if there is no base version.
    Empty if the broker takes no packet of that size: then the release in its slot has it."""
    max_staleness: Annotated[int, Meta(ge=-1, le=2**53)] = -1
    """The server refuses an update whose base is more versions behind; -1 if it does not say."""
    parts: Parts = b""


class Snapshot(Message, frozen=True, tag=3):
    """A whole version of the adapter, for whoever cannot get there by releases."""

    generation: Short
    version: Count
    layout: Fingerprint
    sha256: Sha256
    codec: Short
    body: bytes
    """The vector, float32 [P], as `codec` packed it."""
    parts: Parts = b""


class Receipt(Message, frozen=True, tag=4):
    """What became of one update. The vehicle keeps and resends it until this comes."""

    vehicle: Name
    boot: Short
    sequence: Count
    verdict: Literal["accepted", "duplicate", "refused"]
    reason: Short
    """Why it was refused, else empty."""
    staleness: int
    """Versions released between its base and its use."""
    version: Count
    """The server's version after it."""
    detail: Annotated[str, Meta(max_length=MAX_DETAIL)] = ""
    """Why it was refused, in words: the value and what was expected."""


class Status(Message, frozen=True, tag=5):
    """How a vehicle is, retained. The broker publishes the `offline` one as its last will."""

    vehicle: Name
    boot: Short
    state: Literal["online", "offline"]
    version: int
    """Release it trains on, -1 before the first."""
    bytes_up: Count
    """Frames published since boot, repeats included."""
    bytes_down: Count
    """Release and snapshot frames received since boot."""
    waiting: Count
    """Updates in the outbox."""
    note: Annotated[str, Meta(max_length=MAX_NOTE)]
    """What hinders it, in words; empty if nothing does."""
    key: Annotated[bytes, Meta(max_length=32)] = b""
    """Its Ed25519 public key, so that a server may note it at the first use; empty if it signs nothing."""
    outcomes: Annotated[dict[Short, Count], Meta(max_length=MAX_ENDS)] = {}
    """How many of its updates ended how, as {"accepted": 12, "expired age": 1}; over all boots."""


class Rollback(Message, frozen=True, tag=6):
    """That the next version shall have an older one's bits. It is in a server's journal and nowhere else."""

    vehicle: ClassVar[str] = ""
    sequence: ClassVar[int] = 0
    """In the journal (vehicle, boot, sequence) names it, and no vehicle has that name."""

    boot: Short
    """Drawn for each."""
    generation: Short
    version: Count
    """Of the one to go back to."""
    layout: Fingerprint
    sha256: Sha256
    codec: Short
    body: bytes
    """Its vector, float32 [P], as `codec` packed it: a replay needs no file but the journal."""
    reason: Annotated[str, Meta(max_length=MAX_NOTE)] = ""
    """In the words of whoever asked."""


class Ban(Message, frozen=True, tag=7):
    """Request to take nothing more of a vehicle, or to take from it again. Only a server's journal has it."""

    vehicle: ClassVar[str] = ""
    sequence: ClassVar[int] = 0
    """In the journal (vehicle, boot, sequence) names the request, and no vehicle has that name."""

    boot: Short
    """Drawn for each."""
    name: Name
    """The vehicle's."""
    is_banned: bool
    """False lifts an earlier ban."""
    reason: Annotated[str, Meta(max_length=MAX_NOTE)] = ""
    """In the words of whoever asked."""


AnyMessage = Update | Release | Snapshot | Receipt | Status | Rollback | Ban
