"""A million hostile messages of closed-form statistics through a coordinator, on one core.

Claim: nothing but a refusal comes of any of them, and each head that is released is finite and has bounded
logits, also among those of honest vehicles and after any of them was taken out again.

Run: python benchmarks/fuzz_statistics.py [--messages 1000000] [--seed 0]

Messages are honest statistics, edited: numbers replaced by hostile ones, rows moved, all multiplied, features
stretched, squares made a little too small; claims of other numbers of examples; bytes of the body edited,
packed again or not.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter

import numpy as np
import zstandard

from fleetfl.closed_form import (
    BIAS,
    KIND,
    WEIGHT,
    Config,
    SufficientStatistics,
    features_of,
)
from fleetfl.closed_form.solve import MOST_LOGIT
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.coordination.settings import CoordinatorSettings
from fleetfl.protocol.messages import Ban, Update
from fleetfl.vectors import Layout

CLASSES, WIDTH, FRAMES, VEHICLES = 3, 5, 60, 4
LAYOUT = Layout(((BIAS, (CLASSES,)), (WEIGHT, (CLASSES, WIDTH)), ("w", (2,))))
VECTOR = np.ones(LAYOUT.size, np.float32)
FEATURES = features_of(VECTOR, LAYOUT)
NUMBERS = (0, 1, -1, 7, -7, 16, -16, 2**31, -(2**31), 2**43, 2**44, 2**44 + 1, -(2**44), 2**62)


class Fuzzer:
    """One stream of messages; the seed decides it."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.told: Counter[str] = Counter()
        self.sequence = 0
        self.solved_from = SufficientStatistics.zero(LAYOUT)
        self.server = self._server()

    def _server(self) -> Coordinator:
        server = Coordinator.from_settings(
            CoordinatorSettings(release=Int8(), closed_form=Config(vehicles=VEHICLES)),
            VECTOR,
            LAYOUT,
        )
        assert server.head is not None
        head, solved = server.head, server.head.solved

        def noted(vector: np.ndarray) -> np.ndarray:
            self.solved_from = head.fair_total()  # a server keeps no sums of a head that is out
            return solved(vector)

        server.head.solved = noted
        return server

    def step(self) -> None:
        """Submit one message. Raises AssertionError, or whatever comes out that should not."""
        vehicle = f"v{self.dice.randrange(VEHICLES + 1)}"
        if self.dice.random() < 0.02:
            self.server.ban(Ban("x", vehicle, True, ""))
            self.server.ban(Ban("x", vehicle, False, ""))
        self.sequence += 1
        outcome = self.server.submit(self._message(vehicle))
        self.told[outcome.reason.value if outcome.reason else outcome.verdict] += 1
        assert outcome.reason is None or outcome.reason.value in ("body", "declined"), outcome
        if outcome.released:
            self._require_sense(self.server.published.vector)
            self.told["heads"] += 1
            self.server = self._server()

    def _require_sense(self, vector: np.ndarray) -> None:
        tensors = LAYOUT.unflatten(vector.astype(np.float64))
        assert np.isfinite(vector).all()
        counts = self.solved_from.cross[-1]
        means = self.solved_from.cross[:-1, counts > 0] / counts[counts > 0]
        logits = tensors[WEIGHT] @ means + tensors[BIAS][:, None]
        assert np.abs(logits).max() <= 1.01 * MOST_LOGIT, logits

    def _message(self, vehicle: str) -> Update:
        sums = self._statistics()
        claimed = max(1, min(sums.num_examples, 2**53))
        if self.dice.random() < 0.05:
            claimed = self.dice.choice((1, 59, 61, 2**40, 2**53))
        body = sums.packed(FEATURES)
        if self.dice.random() < 0.1:
            body = self._edited(body)
        about = (vehicle, "fuzz", self.sequence, 0, LAYOUT.fingerprint, claimed, 1, 0, 0, 0.5)
        return Update(*about, KIND, body)

    def _edited(self, body: bytes) -> bytes:
        if self.dice.random() < 0.5:
            content = bytearray(zstandard.decompress(body[8:]))
            for _ in range(self.dice.randrange(1, 9)):
                content[self.dice.randrange(len(content))] = self.dice.randrange(256)
            return body[:8] + zstandard.compress(bytes(content))
        edited = bytearray(body)
        edited[self.dice.randrange(len(edited))] = self.dice.randrange(256)
        return bytes(
            edited[: self.dice.randrange(len(edited) + 1)] if self.dice.random() < 0.3 else edited
        )

    def _statistics(self) -> SufficientStatistics:
        stretch = 2.0 ** self.dice.choice((0, 0, 0, 0, -6, 6, 12, 18))
        labels = self.numbers.integers(0, self.dice.randrange(1, CLASSES + 1), FRAMES)
        features = stretch * (self.numbers.normal(size=(FRAMES, WIDTH)) + labels[:, None])
        if self.dice.random() < 0.1:
            features[:] = features[0]
        sums = SufficientStatistics.of(features, labels, CLASSES)
        times = self.dice.choice((1, 1, 1, 1, 1, 3, 2**20, 2**30))
        gram, cross = times * sums.gram, times * sums.cross
        for _ in range(self.dice.choice((0, 0, 0, 1, 2, 5))):
            whole = gram if self.dice.random() < 0.5 else cross.reshape(-1)
            at = self.dice.randrange(whole.size)
            value = self.dice.choice(NUMBERS)
            value += 0 if self.dice.random() < 0.5 else int(whole[at])
            whole[at] = max(-(2**62), min(value, 2**62))
        if self.dice.random() < 0.05:
            cross = np.roll(cross, self.dice.randrange(CLASSES), axis=self.dice.randrange(2))
        return SufficientStatistics(gram, cross)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    fuzzer, began = Fuzzer(options.seed), time.process_time()
    for number in range(options.messages):
        try:
            fuzzer.step()
        except Exception:
            print(f"message {number} of seed {options.seed}")
            raise
    took = time.process_time() - began
    told = ", ".join(f"{what} {count:,}" for what, count in fuzzer.told.most_common())
    print(f"{options.messages:,} messages in {took:.0f} s of one core: {told}; no exception")


if __name__ == "__main__":
    main()
