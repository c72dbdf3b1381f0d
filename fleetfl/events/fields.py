"""Fields that several events share, and short ways to declare others. Knows no event."""

from fleetfl.events.declaration import Field, Kind


def text(name: str, about: str) -> Field:
    """A field of text."""
    return Field(name, Kind.TEXT, about)


def count(name: str, about: str, unit: str = "") -> Field:
    """A field of whole numbers."""
    return Field(name, Kind.COUNT, about, unit)


def number(name: str, about: str, unit: str = "") -> Field:
    """A field of numbers."""
    return Field(name, Kind.NUMBER, about, unit)


def listed(name: str, about: str) -> Field:
    """A field that is a list."""
    return Field(name, Kind.LIST, about)


def table(name: str, about: str, unit: str = "") -> Field:
    """A field that is a table."""
    return Field(name, Kind.TABLE, about, unit)


def may_lack(field: Field) -> Field:
    """The same field, which a line may lack."""
    return Field(field.name, field.kind, field.about, field.unit, is_optional=True)


DETAIL = text("detail", "Reason, in words.")
VEHICLE = text("vehicle", "Name of the vehicle.")
BOOT = text("boot", "Name of the start of the agent, drawn at each.")
PID = count("pid", "Process that writes the line.")
ROW = count("row", "Row of the journal.")
VERSION = count("version", "Version of the release.")
SHA256 = text("sha256", "SHA-256 of the release's float32 vector, 64 hexadecimal digits.")
WHY = text("why", "Reason, in the words of whoever asked.")
ACCURACY = number("accuracy", "Share of held-out frames that were classified right.", "1")
BY_CONDITION = table("by_condition", "The same for each weather condition.", "1")

OF_UPDATES = (
    VEHICLE,
    BOOT,
    count(
        "sequence", "Number of the update in its boot; (vehicle, boot, sequence) names the update."
    ),
    count(
        "base", "Version that training started from; -1 if the frame could not be read.", "versions"
    ),
    count("staleness", "Versions released between the update's base and its use.", "versions"),
    count("bytes", "Size of the update's frame.", "bytes"),
    may_lack(
        count(
            "row", "Row of the journal; absent if the gateway told it without or before a new row."
        )
    ),
)
OF_LEARNING = (
    may_lack(number("loss", "Mean training loss over the local steps.")),
    may_lack(count("num_examples", "Examples that the vehicle trained on.", "frames")),
    may_lack(
        number("clipped_to", "Share of the update that was counted, if it was too long.", "1")
    ),
)
OF_STATUS = (
    VEHICLE,
    BOOT,
    count("version", "Release that the vehicle trains on; -1 before the first."),
    count(
        "bytes_up", "Frames that the vehicle published since its boot, repeats included.", "bytes"
    ),
    count("bytes_down", "Release and snapshot frames that it received since its boot.", "bytes"),
    count("waiting", "Updates in its outbox.", "updates"),
    table("outcomes", "Number of its updates by how they ended, over all boots.", "updates"),
    text("note", "Whatever hinders the vehicle, in words; empty if nothing does."),
)
OF_A_ROLLBACK = (
    ROW,
    text("restores", "GENERATION/VERSION of the release that was asked for."),
)
OF_A_BAN = (ROW, VEHICLE)
