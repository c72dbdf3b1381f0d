"""Error feedback: what a lossy codec dropped goes with the next update. Knows no file and no network.

    p = delta + decay * e;  body = C(p);  e = round(p - C(p))

With decay 1 that is the textbook's (arXiv:1901.09847). A little less forgets what was dropped long
ago, on a model that has moved on since: better at very few bits (docs/results/bytes.md). The residual e
stays on the vehicle, so it works at whatever pace the server has. It is rounded, in the mean without
error, to what costs a disk half a byte a value (vehicle_agent/residual.py).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fleetfl.codecs import Codec
from vehicle_agent.residual import coarse


@dataclass(frozen=True)
class Packed:
    body: bytes
    residual: np.ndarray
    """float32 [P]: what is left for the next update once this one is kept."""


class ErrorFeedback:
    """Wraps any codec. Each method says what the residual would be; who owns the disk sets it.

    `rounded` makes of a residual, float32 [P], what is kept of it.
    """

    def __init__(
        self,
        codec: Codec,
        size: int,
        *,
        decay: float,
        rounded: Callable[[np.ndarray], np.ndarray] = coarse,
    ) -> None:
        self.codec, self.decay, self.rounded = codec, np.float32(decay), rounded
        self.residual = np.zeros(size, np.float32)

    def pack(self, delta: np.ndarray) -> Packed:
        """delta, float32 [P], and the residual in one body. Raises CodecError."""
        wanted = delta + self.decay * self.residual
        body = self.codec.encode(wanted)
        return Packed(body, self.rounded(wanted - self.codec.decode(body)))

    def returned(self, body: bytes) -> np.ndarray:
        """The residual, float32 [P], if this body is never counted: as if it had packed nothing.

        Raises CodecError.
        """
        return self.rounded(self.residual + self.codec.decode(body))
