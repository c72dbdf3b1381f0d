"""fleetfl: what vehicles and server share -- messages, vectors, codecs, aggregation, settings, models."""

__version__ = "0.1.0"


class FleetflError(Exception):
    """Something that a person can mend: the message names the value and what was expected."""
