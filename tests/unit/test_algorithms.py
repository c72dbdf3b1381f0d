"""Every aggregator and server optimizer against independent references, and the golden cases.

The references are written from the papers in float64 and plain loops. Ours keep float32 where vectors are
kept, so they may be off by the rounding of values of this size: 1e-7 of the largest value a step.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from fleetfl.aggregators import AnyAggregator, Declined
from fleetfl.server_optimizers import AnyServerOptimizer

pytestmark = pytest.mark.unit
GOLDEN = Path(__file__).parents[1] / "golden"
SIZE = 33
NUM = 80


def built(about, table, size):
    return TypeAdapter(about).validate_python(table).build(size)


def walk(aggregator, optimizer, updates, start):
    """All versions, float32 [N, P], and which updates were declined."""
    x = np.array(start, np.float32)
    aggregator, optimizer = (
        built(AnyAggregator, aggregator, len(x)),
        built(AnyServerOptimizer, optimizer, len(x)),
    )
    versions, declined = [x], []
    aggregator.released(x)
    for delta, about in updates:
        try:
            step = aggregator.add(np.array(delta, np.float32), **about)
        except Declined:
            declined.append(True)
            continue
        declined.append(False)
        if step is not None:
            x = optimizer.apply(x, step)
            versions.append(x)
            aggregator.released(x)
    return np.stack(versions), declined


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_golden_case(path):
    """Published as data for other implementations to try: tests/golden/*.json."""
    case = json.loads(path.read_text())
    keys = ("vehicle", "num_examples", "staleness")
    updates = [(u["delta"], {key: u[key] for key in keys}) for u in case["updates"]]
    versions, declined = walk(case["aggregator"], case["optimizer"], updates, case["start"])
    np.testing.assert_allclose(versions[-1], case["end"], atol=1e-7)
    assert declined == [u.get("declined", False) for u in case["updates"]]


@pytest.fixture
def stream():
    """(delta, about) of 80 updates of nine vehicles, two of which send half of them."""
    rng = np.random.default_rng(5)
    names = rng.choice(9, NUM, p=[0.3, 0.2] + [0.5 / 7] * 7)
    return [
        (
            (rng.normal(size=SIZE) * 0.01).astype(np.float32),
            {
                "vehicle": f"v{name}",
                "num_examples": int(rng.integers(1, 30)),
                "staleness": int(rng.integers(0, 4)),
            },
        )
        for name in names
    ]


def with_staleness(stream, goal):
    """No staler than there are versions by then, if every `goal` updates make one."""
    return [
        (delta, {**about, "staleness": min(about["staleness"], n // goal)})
        for n, (delta, about) in enumerate(stream)
    ]


def double(stream):
    return [(d.astype(float), a["vehicle"], a["num_examples"], a["staleness"]) for d, a in stream]


def assert_matches(versions, expected):
    expected = np.stack(expected)
    assert np.abs(expected[-1]).max() > 1e-3
    np.testing.assert_allclose(versions, expected, atol=1e-7)


def test_fedavg(stream):
    """Rounds of 5 with one late update and one repeat in each."""
    stream = [(d, {**a, "vehicle": f"v{n % 7}"}) for n, (d, a) in enumerate(stream)]
    x, expected, round_, seen = np.zeros(SIZE), [np.zeros(SIZE)], [], set()
    for delta, vehicle, examples, staleness in double(stream):
        if staleness or vehicle in seen:
            continue
        round_.append((delta, examples))
        seen.add(vehicle)
        if len(round_) == 5:
            x = x + sum(d * n for d, n in round_) / sum(n for _, n in round_)
            expected, round_, seen = [*expected, x], [], set()
    versions, declined = walk({"kind": "fedavg", "goal": 5}, {}, stream, np.zeros(SIZE))
    assert sum(declined) > 20
    assert_matches(versions, expected)


@pytest.mark.parametrize("exponent", [0.0, 0.5])
def test_fedasync(stream, exponent):
    stream = with_staleness(stream, 1)
    expected = [np.zeros(SIZE)]
    for delta, _, _, staleness in double(stream):
        alpha = 0.6 * (1 + staleness) ** -exponent
        local = expected[-1 - staleness] + delta
        expected.append((1 - alpha) * expected[-1] + alpha * local)
    rule = {"kind": "polynomial", "exponent": exponent}
    config = {"kind": "fedasync", "mixing": 0.6, "staleness": rule}
    assert_matches(walk(config, {}, stream, np.zeros(SIZE))[0], expected)


def test_fedfa(stream):
    expected, deltas = [np.zeros(SIZE)], []
    for delta, *_ in double(stream):
        deltas.append(delta)
        expected.append(expected[-1] + 0.1 * np.mean(deltas[-7:], axis=0))
    rate = {"learning_rate": 0.1}
    assert_matches(walk({"kind": "fedfa", "window": 7}, rate, stream, np.zeros(SIZE))[0], expected)


def test_ca2fl(stream):
    x, expected, h, buffer = np.zeros(SIZE), [np.zeros(SIZE)], {}, []
    for delta, vehicle, *_ in double(stream):
        buffer.append((vehicle, delta))
        if len(buffer) == 5:
            mean = sum(h.values()) / len(h) if h else 0
            x = x + mean + sum(d - h.get(v, 0) for v, d in buffer) / 5
            h |= dict(buffer)
            expected, buffer = [*expected, x], []
    assert_matches(walk({"kind": "ca2fl", "goal": 5}, {}, stream, np.zeros(SIZE))[0], expected)


@pytest.mark.parametrize("max_age", [None, 0, 6])
def test_ace(stream, max_age):
    stream = with_staleness(stream, 1)
    x, expected, h = np.zeros(SIZE), [np.zeros(SIZE)], {}
    for version, (delta, vehicle, _, staleness) in enumerate(double(stream)):
        h[vehicle] = (version - staleness, delta)
        young = [
            d
            for v, (base, d) in h.items()
            if max_age is None or version - base <= max_age or v == vehicle
        ]
        x = x + 0.1 * np.mean(young, axis=0)
        expected.append(x)
    config = {"kind": "ace", "max_age": max_age}
    versions, _ = walk(config, {"learning_rate": 0.1}, stream, np.zeros(SIZE))
    assert_matches(versions, expected)


def test_accord(stream):
    """Every number again from the whole history, at goal 3."""
    stream = [(d * (n < 40) + 0.004, a) for n, (d, a) in enumerate(with_staleness(stream, 3))]
    stream = [(d.astype(np.float32), a) for d, a in stream]
    history = double(stream)
    x, total, expected, releases = np.zeros(SIZE), 0, [np.zeros(SIZE)], [0]
    products, squares, taus, gaps = [], [], [], []

    def late_mean(values):
        """The first 30 evenly, then each counts 1/30."""
        value = 0.0
        for n, one in enumerate(values):
            value += (one - value) / min(n + 1, 30)
        return value

    for n, (delta, vehicle, _, staleness) in enumerate(history):
        taus.append(n + 1 - releases[-1 - staleness])
        others = [d for d, v, *_ in history[max(0, n - 16) : n] if v != vehicle]
        if others:
            products.append(delta @ np.mean(others, axis=0))
            squares.append(delta @ delta)
        rho = late_mean(products) / late_mean(squares) if products else 1 / 8
        tau, early = late_mean(taus), min(max(taus), 4 * late_mean(taus))
        tau = max(tau, early) if n + 1 <= 2 * early else tau
        rounds = (n + 1) / len({v for _, v, *_ in history[: n + 1]})
        rate = min(1.5 * min(1, max(1 / 256, rho)), 16 / tau) / max(1, rounds / 2) ** 0.75
        before = [m for m in range(n) if history[m][1] == vehicle]
        balance = 1.0
        if before:
            gaps.append(np.log(n - before[-1]))
            balance = np.clip(np.exp(gaps[-1] - late_mean(gaps)), 1 / 4, 4)
        total = total + rate * balance * delta
        if n % 3 == 2:
            x, total = x + total, 0
            expected, releases = [*expected, x], [*releases, n + 1]
    versions, _ = walk({"kind": "accord", "goal": 3}, {}, stream, np.zeros(SIZE))
    assert_matches(versions, expected)


def accord_after(deltas, *, vehicles=7):
    """Accord at goal 1 that was told these deltas, one vehicle after the other."""
    aggregator = built(AnyAggregator, {"kind": "accord", "goal": 1}, deltas.shape[1])
    aggregator.released(np.zeros(deltas.shape[1], np.float32))
    for n, delta in enumerate(deltas.astype(np.float32)):
        name = f"v{n % vehicles}"
        step = aggregator.add(delta, vehicle=name, num_examples=1, staleness=0)
        aggregator.released(np.zeros(deltas.shape[1], np.float32))
    return aggregator, step


def test_accord_finds_how_much_of_an_update_the_others_share():
    """A common part of norm 1 and noise of norm 3 (33 values of 3/sqrt(33)): 1 / (1 + 9) = 0.1."""
    rng = np.random.default_rng(2)
    common = np.ones(33) / 33**0.5
    deltas = common + rng.normal(size=(400, 33)) * 3 / 33**0.5
    found = [accord_after(deltas[n : n + 100])[0].rho for n in (0, 100, 200, 300)]
    assert np.mean(found) == pytest.approx(0.1, abs=0.03)


def test_accord_hardly_moves_on_noise():
    noise = np.random.default_rng(2).normal(size=(300, 33))
    assert accord_after(noise)[0].rho < 0.06


def test_a_vehicle_alone_is_nobody_to_agree_with():
    assert accord_after(np.ones((50, 3)), vehicles=1)[0].rho == 1 / 8


@pytest.mark.parametrize("delay", ["paper", "scaled"])
def test_fadas(stream, delay):
    """A rate of 0.5, so that 1 / tau_max bites."""
    stream = with_staleness(stream, 4)
    x, expected, buffer = np.zeros(SIZE), [np.zeros(SIZE)], []
    m = v = u = np.zeros(SIZE)
    for delta, _, _, staleness in double(stream):
        buffer.append((delta, staleness))
        if len(buffer) < 4:
            continue
        mean, oldest = np.mean([d for d, _ in buffer], axis=0), max(s for _, s in buffer)
        m, v = 0.9 * m + 0.1 * mean, 0.99 * v + 0.01 * mean**2
        u = np.maximum(u, v)
        slow = min(0.5, 1 / oldest) if delay == "paper" and oldest else 0.5 / max(1, oldest)
        x = x + (slow if oldest > 1 else 0.5) * m / (np.sqrt(u) + 1e-8)
        expected, buffer = [*expected, x], []
    config = {"kind": "fedbuff", "goal": 4, "staleness": {"kind": "constant"}}
    optimizer = {"kind": "fadas", "learning_rate": 0.5, "delay": delay}
    versions, _ = walk(config, optimizer, stream, np.zeros(SIZE))
    # x itself is float32 and of size 3 here: 20 steps of half its last bit, 2^-23.
    np.testing.assert_allclose(versions, np.stack(expected), atol=20 * 2**-23)


def test_momentum_approximation(stream):
    """Dense matrices over all versions, pseudo-inverse, the last 6 steps."""
    stream = with_staleness(stream, 4)
    deltas = double(stream)
    steps = len(deltas) // 4
    changes = [np.mean([d for d, *_ in deltas[4 * t : 4 * t + 4]], axis=0) for t in range(steps)]
    shares = np.zeros((steps, steps))
    for t in range(steps):
        for *_, staleness in deltas[4 * t : 4 * t + 4]:
            shares[t, t - staleness] += 1 / 4
    x, expected = np.zeros(SIZE), [np.zeros(SIZE)]
    for t in range(steps):
        kept = range(max(0, t - 5), t + 1)
        seen = shares[kept].sum(0) > 0
        wanted = np.array([0.9 ** (t - s) for s in range(steps)])[seen]
        a = np.linalg.pinv(shares[kept][:, seen].T) @ wanted
        x = x + 0.1 * sum(w * changes[j] for w, j in zip(a, kept, strict=True))
        expected.append(x)
    config = {"kind": "fedbuff", "goal": 4, "staleness": {"kind": "constant"}}
    optimizer = {"kind": "momentum_approximation", "learning_rate": 0.1, "history": 6}
    assert_matches(walk(config, optimizer, stream, np.zeros(SIZE))[0], expected)


@pytest.mark.parametrize("kind", ["adam", "yogi"])
def test_adaptive(stream, kind):
    x, expected = np.zeros(SIZE), [np.zeros(SIZE)]
    m, v = np.zeros(SIZE), np.full(SIZE, 1e-6)
    for delta, *_ in double(stream):
        m = 0.9 * m + 0.1 * delta
        if kind == "adam":
            v = 0.99 * v + 0.01 * delta**2
        else:
            v = v - 0.01 * delta**2 * np.sign(v - delta**2)
        x = x + 0.01 * m / (np.sqrt(v) + 1e-3)
        expected.append(x)
    config = {"kind": "fedbuff", "goal": 1, "staleness": {"kind": "constant"}}
    optimizer = {"kind": kind, "learning_rate": 0.01}
    assert_matches(walk(config, optimizer, stream, np.zeros(SIZE))[0], expected)


@pytest.mark.parametrize("kind", ["ca2fl", "ace"])
@pytest.mark.parametrize(("codec", "error"), [("bfloat16", 2**-8), ("int8", 0.02)])
def test_a_coded_cache_costs_no_more_than_its_codec(stream, kind, codec, error):
    stream = with_staleness(stream, 10)
    exact, _ = walk({"kind": kind}, {}, stream, np.zeros(SIZE))
    coded, _ = walk({"kind": kind, "cache": {"codec": {"kind": codec}}}, {}, stream, exact[0])
    assert np.abs(coded[-1] - exact[-1]).max() < error * np.abs(exact).max()
    assert (coded[-1] != exact[-1]).any()


@pytest.mark.parametrize("kind", ["ca2fl", "ace"])
def test_a_cache_keeps_those_heard_of_last(kind):
    """Room for 2; a, b, c report, so a has left: it is like a vehicle never heard of."""
    aggregator = built(AnyAggregator, {"kind": kind, "cache": {"max_vehicles": 2}}, 1)
    aggregator.released(np.zeros(1, np.float32))
    for name, value in (("a", 8), ("b", 2), ("c", 4)) * 10:
        aggregator.add(np.float32([value]), vehicle=name, num_examples=1, staleness=0)
    assert list(aggregator.cache.entries) == ["b", "c"]
    np.testing.assert_array_equal(aggregator.cache.mean(), [3.0])


@pytest.mark.parametrize("kind", ["ca2fl", "ace"])
def test_what_a_cache_cannot_hold_is_declined_and_changes_nothing(kind):
    table = {"kind": kind, "cache": {"codec": {"kind": "int8"}}}
    aggregator, untouched = (built(AnyAggregator, table, 3) for _ in range(2))
    bad = np.float32([np.nan, 1, 1])
    with pytest.raises(Declined, match="cannot be kept"):
        aggregator.add(bad, vehicle="a", num_examples=1, staleness=0)
    state, expected = aggregator.snapshot(), untouched.snapshot()
    np.testing.assert_array_equal(state["cache"].pop("total"), expected["cache"].pop("total"))
    assert str(state) == str(expected)


def test_fedasync_declines_what_is_older_than_its_history():
    aggregator = built(AnyAggregator, {"kind": "fedasync", "history": 3}, 1)
    for n in range(5):
        aggregator.released(np.float32([n]))
    aggregator.add(np.float32([1]), vehicle="a", num_examples=1, staleness=2)
    with pytest.raises(Declined, match="base is 3 versions old, 3 versions are kept"):
        aggregator.add(np.float32([1]), vehicle="a", num_examples=1, staleness=3)
