"""How large a frame can be: that follows from the model's layout and the codecs. Knows no broker."""

from fleetfl import closed_form, codecs
from fleetfl.vectors import Layout

AROUND_BODY = 4096
"""Bytes of an update or a release beside its body: all texts of full length, and a signature."""
STATUS_BYTES = 32_768
"""A status with its note and all kinds of end takes a tenth of this in ASCII, and four tenths at most."""


def max_frame_bytes(layout: Layout) -> int:
    """No sound frame of a fleet with this layout is longer, of whatever type."""
    body = max(codecs.max_body_bytes(layout), closed_form.max_body_bytes(layout))
    return max(body + AROUND_BODY, STATUS_BYTES)
