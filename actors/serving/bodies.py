"""Recognises bodies that wrap a picture in something else, and says what to send instead. Decodes nothing."""

import re

PLAIN = "send the picture's bytes alone as the body: curl --data-binary @picture.jpg URL"
FORM = re.compile(rb"[\w.%-]{1,64}=|%89PNG")
BASE64 = (b"iVBORw0KGgo", b"/9j/", b"_9j_", b"UklGR")
"""Beginnings of a PNG, JPEG or WebP in base64."""


def instead(body: bytes, content_type: str, content_encoding: str) -> str:
    """A sentence on what the body seems to be and what to send; empty if nothing is recognised."""
    kind = content_type.split(";", maxsplit=1)[0].strip().lower()
    start = body[:4096].lstrip()
    signs = {
        f"it is packed (Content-Encoding {content_encoding[:40]!r})": (
            content_encoding.lower() not in ("", "identity")
        ),
        "it is a multipart form (as of curl -F, or of files= in requests)": (
            kind == "multipart/form-data" or b"Content-Disposition:" in start[:1024]
        ),
        "it is a data: URL in base64": start.startswith(b"data:image/"),
        "it is JSON": kind == "application/json" or start[:1] in (b"{", b"["),
        "it is base64": start.strip(b'"').startswith(BASE64),
        "it is an HTML form": FORM.match(start) is not None,
        "it is HTML, SVG or XML": start[:1] == b"<",
        "it is an address, and none is fetched": start.startswith((b"http://", b"https://")),
    }
    return next((f"{what}: {PLAIN}" for what, so in signs.items() if so), "")
