"""Write golden bodies for codecs that have none: python tests/golden/codecs/write.py [KIND ...]

A body that stands here is never written again: whoever decodes it differently breaks the fleet.
"""

import importlib
import json
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np

from fleetfl.plugins import available
from fleetfl.vectors import Layout

HERE = Path(__file__).parent
INDEX = HERE / "bodies.json"
SHAPES = ((8, 48), (72, 8), (), (10, 24))
SETTINGS: dict[str, list[dict[str, object]]] = {
    "eden": [{"bits": b, "scale": s} for b in (1, 2, 3, 4) for s in ("unbiased", "least_error")],
    "int8": [{"block": 64}, {"block": 250, "level": 0}],
    "int4": [{"block": 64}, {"block": 250, "level": 0}],
    "top_signs": [{"keep": 0.05}, {"keep": 0.3, "by": "share_of_rms"}],
}
"""Where a kind should stand with more than its default settings."""


def vector(size: int) -> np.ndarray:
    """Float32 [size] by integer arithmetic, many small values and a few large ones."""
    steps = (np.arange(size, dtype=np.int64) * 7919 + 13) % 1009 - 504
    return (steps.astype(np.float64) ** 3 / 504**3 / 64).astype(np.float32)


def main(kinds: list[str]) -> None:
    entries = json.loads(INDEX.read_text()) if INDEX.exists() else []
    layout = Layout(tuple((str(i), shape) for i, shape in enumerate(SHAPES)))
    for kind in kinds or available("fleetfl.codecs"):
        if any(entry["kind"] == kind for entry in entries):
            continue
        for number, settings in enumerate(SETTINGS.get(kind, [{}])):
            config = importlib.import_module(f"fleetfl.codecs.{kind}").Config(**settings)
            codec = config.build(layout)
            body = codec.encode(vector(layout.size))
            name = f"{kind}_{number}.bin"
            (HERE / name).write_bytes(body)
            entries.append(
                {
                    "kind": kind,
                    "settings": settings,
                    "shapes": SHAPES,
                    "body": name,
                    "sha256": sha256(codec.decode(body).astype("<f4").tobytes()).hexdigest(),
                }
            )
    INDEX.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


if __name__ == "__main__":
    main(sys.argv[1:])
