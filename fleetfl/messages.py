"""What vehicles and server say to each other. Bytes are wire.py's business."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

VEHICLE_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
"""A vehicle's name is one level of a topic, so neither `/` nor a wildcard."""

Name = Annotated[str, Meta(pattern=VEHICLE_PATTERN)]
Short = Annotated[str, Meta(max_length=64)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]


class Message(msgspec.Struct, frozen=True, tag_field="type"):
    """One of the types below; the tag tells which."""


class Update(Message, frozen=True, tag="update"):
    """One vehicle's local change to the adapter. (vehicle, boot, sequence) names it."""

    vehicle: Name
    boot: Short
    """Drawn anew at each start of the agent, so that a lost state folder repeats no name."""
    sequence: Count
    base_version: Count
    """Release that training started from. Staleness is the server's to work out."""
    layout: Short
    """Fingerprint of the vector's layout."""
    num_examples: Positive
    local_steps: Positive
    captured_from: float
    captured_to: float
    """When the oldest and newest frame trained on were taken, UTC seconds."""
    loss: float
    """Mean training loss over the local steps."""
    codec: Short
    body: bytes
    """float32 [P] as `codec` packed it."""


class Release(Message, frozen=True, tag="release"):
    """A new version of the adapter, kept on the broker (retained) for vehicles that come late."""

    version: Count
    layout: Short
    codec: Short
    sha256: Short
    """Of the float32 vector: proof that all hold the same bits."""
    body: bytes
    """The whole vector, float32 [P], as `codec` packed it."""


class Receipt(Message, frozen=True, tag="receipt"):
    """What became of one update. The vehicle keeps and resends it until this comes."""

    vehicle: Name
    boot: Short
    sequence: Count
    verdict: Literal["accepted", "duplicate", "refused"]
    reason: str
    """Why it was refused, else empty."""
    staleness: int
    """Versions released between its base and its use."""
    version: Count
    """The server's version after it."""


class Status(Message, frozen=True, tag="status"):
    """How a vehicle is, retained. The broker publishes the `offline` one as its last will."""

    vehicle: Name
    boot: Short
    state: Literal["online", "offline"]
    version: int
    """Release it trains on, -1 before the first."""
    bytes_up: Count
    """Frames published since boot, repeats included."""
    bytes_down: Count
    """Release frames received since boot."""
    waiting: Count
    """Updates in the outbox."""
    note: str
    """What hinders it, in words; empty if nothing does."""


AnyMessage = Update | Release | Receipt | Status
