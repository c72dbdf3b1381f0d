"""Bounds on the size of a frame, from the model's layout and the codecs. Knows no broker."""

from fleetfl import closed_form, codecs
from fleetfl.vectors import Layout

AROUND_BODY = 4096
"""Bytes of an update or a release beside its body: all texts of full length, and a signature."""
STATUS_BYTES = 32_768
"""Bound on a status, bytes; with its note and all kinds of outcome it takes four tenths of this at most."""


def max_frame_bytes(layout: Layout) -> int:
    """Largest size in bytes of a sound frame, of any type, in a fleet with this layout."""
    body = max(codecs.max_body_bytes(layout), closed_form.max_body_bytes(layout))
    return max(body + AROUND_BODY, STATUS_BYTES)
