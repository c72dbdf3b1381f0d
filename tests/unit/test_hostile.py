"""One vehicle among eight sends what it wants, and the fleet learns all the same. A small model."""

import importlib

import numpy as np
import pytest

from fleetfl.aggregators.fedbuff import Config as FedBuff
from fleetfl.codecs import decoder
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.coordination.coordinator import Coordinator, Refusal
from fleetfl.plugins import available
from fleetfl.protocol.messages import Update
from fleetfl.server_optimizers.sgd import Config as SGD
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit
CLASSES, WIDTH, VEHICLES = 6, 12, 8
LAYOUT = Layout((("head.bias", (CLASSES,)), ("head.weight", (CLASSES, WIDTH))))
MALLORY = VEHICLES - 1
RATES = {"ace": 0.2, "fedasync": 0.5, "fedfa": 0.3}
"""Of the server, where every arrival makes a step."""


class Task:
    """Frames of six classes about six centres, and softmax regression on them."""

    def __init__(self):
        self.rng = np.random.default_rng(5)
        self.centres = self.rng.normal(size=(CLASSES, WIDTH))
        self.held_out = self.frames(600)

    def frames(self, num):
        labels = self.rng.integers(0, CLASSES, num)
        return self.centres[labels] + 0.8 * self.rng.normal(size=(num, WIDTH)), labels

    def start(self):
        """A model that knows half of it, as a factory's."""
        weight = 0.2 * self.centres + 0.1 * self.rng.normal(size=self.centres.shape)
        return self.flat(np.zeros(CLASSES), weight)

    def flat(self, bias, weight):
        tensors = {"head.bias": bias, "head.weight": weight}
        return LAYOUT.flatten({k: v.astype(np.float32) for k, v in tensors.items()})

    def train(self, vector):
        tensors = LAYOUT.unflatten(vector.astype(np.float64))
        bias, weight = tensors["head.bias"].copy(), tensors["head.weight"].copy()
        frames, labels = self.frames(32)
        for _ in range(5):
            logits = frames @ weight.T + bias
            error = np.exp(logits - logits.max(axis=1, keepdims=True))
            error = error / error.sum(axis=1, keepdims=True) - np.eye(CLASSES)[labels]
            weight -= 0.02 * error.T @ frames / len(frames)
            bias -= 0.02 * error.mean(axis=0)
        return self.flat(bias, weight) - vector

    def accuracy(self, vector):
        tensors = LAYOUT.unflatten(vector.astype(np.float64))
        frames, labels = self.held_out
        with np.errstate(all="ignore"):
            logits = frames @ tensors["head.weight"].T + tensors["head.bias"]
        assert np.isfinite(logits).all()
        return (logits.argmax(axis=1) == labels).mean()


def rotated(task, vector, delta):
    """The head with each class's row in the place of the next one's."""
    tensors = LAYOUT.unflatten(vector)
    return 10 * (task.flat(*(np.roll(tensors[name], 1, 0) for name in tensors)) - vector)


HOSTILE = {
    "huge": lambda task, vector, delta: np.full(LAYOUT.size, 1e6),
    "float32's limit": lambda task, vector, delta: np.full(LAYOUT.size, 3e38),
    "sign flip": lambda task, vector, delta: -10 * delta,
    "labels rotated": rotated,
    "noise": lambda task, vector, delta: 10 * task.rng.normal(size=LAYOUT.size),
    "examples": lambda task, vector, delta: -delta,
}


def run(make_update, aggregator, hostile=None, *, first=False, times=1, rounds=25, rate=1.0):
    """Accuracy at the end. Mallory reports first or last in each round, so many times."""
    task = Task()
    server = Coordinator(
        task.start(),
        LAYOUT,
        aggregator.build(LAYOUT.size),
        SGD(learning_rate=rate).build(LAYOUT.size),
        release_codec=Int8(),
    )
    codec = decoder("float32", LAYOUT)
    order = [*range(VEHICLES - 1)]
    turns = [MALLORY] * times + order if first else order + [MALLORY] * times
    for number in range(rounds * len(turns)):
        vehicle = turns[number % len(turns)]
        vector = server.published.vector
        delta, claimed = task.train(vector), 32
        if vehicle == MALLORY and hostile is not None:
            delta = HOSTILE[hostile](task, vector, delta)
            claimed = 2**53
        update = make_update(
            codec="float32",
            body=codec.encode(delta.astype(np.float32)),
            vehicle=f"v{vehicle}",
            sequence=number,
            base_version=server.version,
            layout=LAYOUT.fingerprint,
            num_examples=claimed,
        )
        outcome = server.submit(update)
        # FedAvg's round of seven is over when the eighth reports.
        assert vehicle == MALLORY or outcome.reason in (None, Refusal.DECLINED)
    return task.accuracy(server.published.vector)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", HOSTILE)
def test_six_kinds_of_hostile_updates_cost_three_points_at_most(make_update, kind, first):
    buffer = FedBuff(goal=4, normalize="weights", weigh_examples=True)
    honest = run(make_update, buffer)
    assert honest > 0.9
    assert run(make_update, buffer, kind, first=first) >= honest - 0.03


@pytest.mark.parametrize("kind", ["sign flip", "labels rotated"])
def test_a_vehicle_that_fills_the_buffers_costs_three_points_at_most(make_update, kind):
    """Twelve in a row after each honest round: three whole buffers."""
    honest = run(make_update, FedBuff(goal=4))
    assert run(make_update, FedBuff(goal=4), kind, times=12) >= honest - 0.03


@pytest.mark.parametrize("aggregator", available("fleetfl.aggregators"))
@pytest.mark.parametrize("kind", ["huge", "labels rotated"])
def test_no_aggregator_lets_one_vehicle_own_the_model(make_update, aggregator, kind):
    settings = {"goal": VEHICLES - 1} if aggregator == "fedavg" else {}
    config = importlib.import_module(f"fleetfl.aggregators.{aggregator}").Config(**settings)
    rate = RATES.get(aggregator, 1.0)
    honest = run(make_update, config, rate=rate)
    assert honest > 0.85
    assert run(make_update, config, kind, rate=rate) >= honest - 0.05


def test_a_fleet_of_two_still_learns_with_five_updates_a_step(make_update):
    task = Task()
    server = Coordinator(
        task.start(),
        LAYOUT,
        FedBuff(goal=5).build(LAYOUT.size),
        SGD().build(LAYOUT.size),
        release_codec=Int8(),
    )
    codec = decoder("float32", LAYOUT)
    before = task.accuracy(server.published.vector)
    for number in range(150):
        outcome = server.submit(
            make_update(
                codec="float32",
                body=codec.encode(task.train(server.published.vector)),
                vehicle=f"v{number % 2}",
                sequence=number,
                base_version=server.version,
                layout=LAYOUT.fingerprint,
            )
        )
        assert (outcome.verdict, outcome.share) == ("accepted", 1.0)
    assert server.version == 30
    assert task.accuracy(server.published.vector) > max(0.9, before)


@pytest.mark.parametrize("kind", sorted({*available("fleetfl.aggregators")} - {"fedavg"}))
def test_a_flood_neither_owns_the_model_nor_makes_honest_updates_stale(kind):
    """500 hostile updates between each two rounds of seven others, each under another boot."""
    size = 50
    layout = Layout.flat(size)
    aggregator = importlib.import_module(f"fleetfl.aggregators.{kind}").Config().build(size)
    server = Coordinator(
        np.full(size, 0.1, np.float32),
        layout,
        aggregator,
        SGD().build(size),
        release_codec=Int8(),
        generation="1-a",
    )

    def send(vehicle, number, base, value):
        body = decoder("float32", layout).encode(np.full(size, value, np.float32))
        update = Update(
            vehicle,
            f"b{number}",
            number,
            base,
            layout.fingerprint,
            32,
            1,
            0,
            0,
            0.5,
            "float32",
            body,
        )
        return server.submit(update)

    first = [send(f"v{n}", 0, 0, 1e-3).verdict for n in range(7)]
    for turn in range(1, 8):
        base = server.version
        evil = [send("mallory", 500 * turn + n, server.version, -1e3) for n in range(500)]
        assert sum(each.verdict == "accepted" for each in evil) <= 20
        first += [send(f"v{n}", turn, base, 1e-3).verdict for n in range(7)]
    assert set(first) == {"accepted"}
    assert abs(float(server.published.vector.mean()) - 0.1) < 0.2
