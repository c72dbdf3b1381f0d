"""Describes a frame as a table of plain values. Believes nothing in it and reads no file."""

import json
from typing import Any

import msgspec
import numpy as np

from fleetfl import closed_form
from fleetfl.codecs import decoder
from fleetfl.protocol.chunks import MAGIC as CHUNK_MAGIC
from fleetfl.protocol.chunks import Chunk
from fleetfl.protocol.wire import FORMAT, Opened, Verifier, WireError, objection_to, open_frame
from fleetfl.vectors import Layout


def described(
    frame: bytes, *, keys: Verifier | None = None, layout: Layout | None = None
) -> dict[str, Any]:
    """Kind, fields, signature and body of a frame, or the place of a chunk; ready for JSON.

    With `keys` the signature is checked, with `layout` the body is decoded.
    Raises WireError for what is no frame, or is one of another layout; CodecError for its body.
    """
    if frame[:4] == CHUNK_MAGIC:
        chunk = Chunk.read(frame)
        fields = {"transfer": chunk.transfer.hex(), "index": chunk.index, "count": chunk.count}
        return {"kind": "Chunk", "bytes": len(frame), "fields": fields | {"total": chunk.total}}
    opened = open_frame(frame)
    fields = {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in msgspec.structs.asdict(opened.message).items()
        if name != "body"
    }
    about: dict[str, Any] = {
        "kind": type(opened.message).__name__,
        "format": FORMAT,
        "bytes": len(frame),
        "sender": opened.sender,
        "signature": _signature(opened, keys),
        "fields": fields,
    }
    body = getattr(opened.message, "body", b"")
    if body:
        about["body_bytes"] = len(body)
        about["other_bytes"] = len(frame) - len(body)
    if body and layout is not None and layout.size:
        about["values"] = _values(opened.message, body, layout)
    return about


def lines(about: dict[str, Any]) -> list[str]:
    """Lines for a terminal from a table of `described`; strings are quoted, as they may hold anything."""
    flat = {name: value for name, value in about.items() if not isinstance(value, dict)}
    tables = [table for table in about.values() if isinstance(table, dict)]
    said = []
    for table in (flat, *tables):
        said += [f"{name.replace('_', ' '):<16}{_word(value)}" for name, value in table.items()] + [
            ""
        ]
    return said[:-1]


def _word(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value)


def _signature(opened: Opened, keys: Verifier | None) -> str:
    if not opened.signature:
        return "none"
    return "not checked" if keys is None else objection_to(opened, keys) or "valid"


def _values(message: Any, body: bytes, layout: Layout) -> dict[str, Any]:
    parts = getattr(message, "parts", b"")
    unlike = layout.objection(message.layout, parts, ours="the adapter file's")
    if unlike and message.layout != layout.plain.fingerprint:  # an older version's fits as well
        raise WireError(unlike)
    if message.codec == closed_form.KIND:
        return _statistics(message, body, layout)
    vector = decoder(message.codec, layout).decode(body).astype(np.float64)
    return {
        "count": vector.size,
        "bits_per_value": 8 * len(body) / vector.size,
        "zeros": float(np.mean(vector == 0)),
        "mean": float(vector.mean()),
        "std": float(vector.std()),
        "min": float(vector.min()),
        "max": float(vector.max()),
        "norm": float(np.linalg.norm(vector)),
    }


def _statistics(message: Any, body: bytes, layout: Layout) -> dict[str, Any]:
    """Counts in a body of sufficient statistics; the features' name is not checked without the model."""
    features = closed_form.features_in(body)
    found = closed_form.unpacked(body, layout, features=features, num_examples=message.num_examples)
    return {
        "features": features.hex(),
        "count": found.gram.size + found.cross.size,
        "examples": found.num_examples,
        "examples_per_class": [int(count) for count in found.examples_per_class],
    }
