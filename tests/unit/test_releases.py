"""Server, follower and latecomer hold the same bits, whatever the codec drops on the way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fleetfl.codecs import CodecError, available
from fleetfl.codecs.float32 import Config as Float32
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.protocol.topics import RING
from fleetfl.releases.generations import order_of
from fleetfl.releases.versions import Follower, OlderRelease, Published, ReleaseError
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit
LAYOUT = Layout((("a", (12, 8)), ("b", (8, 20)), ("c", (44,))))


def codec_config(kind):
    import importlib

    return importlib.import_module(f"fleetfl.codecs.{kind}").Config()


def published(codec=None, generation="one", start=None):
    start = np.zeros(LAYOUT.size, np.float32) if start is None else start
    return Published(start, LAYOUT, codec or Int8(), generation=generation)


def following(server):
    follower = Follower(server.layout)
    follower.adopt(server.whole())
    return follower


def same_bits(server, follower):
    held = follower.held
    return held.version == server.version and held.vector.tobytes() == server.vector.tobytes()


@pytest.mark.parametrize(
    ("kind", "num_releases"),
    [("float32", 500), ("int8", 500), *((kind, 20) for kind in available("fleetfl.codecs"))],
)
def test_server_follower_and_latecomer_hold_the_same_bits(kind, num_releases):
    dice = np.random.default_rng(1)
    params = dice.normal(size=LAYOUT.size).astype(np.float32)
    server = published(codec_config(kind), start=params)
    follower = following(server)
    for _ in range(num_releases):
        params = params + dice.normal(size=LAYOUT.size).astype(np.float32) * np.float32(0.01)
        release = server.advance(params)
        follower.apply(release)
        assert same_bits(server, follower)
    assert same_bits(server, following(server))
    # What the codec drops is sent later: it does not pile up over steps of norm 0.01 * sqrt(300).
    assert np.linalg.norm(params - server.vector) < 0.1 * np.linalg.norm(params)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.floats(1e-20, 1e20), st.booleans()), max_size=8
    )
)
def test_any_steps_leave_everyone_with_the_same_bits(steps):
    """Sizes from 1e-20 to 1e20; the flag says whether the sleeper hears of the version."""
    server = published(start=np.full(LAYOUT.size, -0.0, np.float32))
    follower, sleeper = following(server), following(server)
    for seed, size, is_awake in steps:
        step = np.random.default_rng(seed).normal(size=LAYOUT.size).astype(np.float32)
        release = server.advance(server.vector + step * np.float32(size))
        follower.apply(release)
        if is_awake:
            for missed in server.since(sleeper.held.version):
                sleeper.apply(missed)
    sleeper.adopt(server.whole())
    assert same_bits(server, follower)
    assert same_bits(server, sleeper)


def test_what_the_codec_drops_goes_out_later():
    """Beside a value of 127 a step is 1 wide: 0.3 rounds to 0. Once 127 is out, 0.3 is exact."""
    server = published(Int8(block=256))
    params = np.zeros(LAYOUT.size, np.float32)
    params[0], params[1] = 127, 0.3
    server.advance(params)
    assert (server.vector[0], server.vector[1]) == (127, 0)
    server.advance(params)
    assert server.vector[1] == pytest.approx(0.3)


def test_float32_releases_follow_params_closely():
    server = published(Float32())
    params = np.random.default_rng(2).normal(size=LAYOUT.size).astype(np.float32)
    for scale in (1.0, 1.1, -3.0):
        server.advance(params * np.float32(scale))
        np.testing.assert_allclose(server.vector, params * np.float32(scale), rtol=1e-5)


def test_release_names_what_it_is_against():
    server = published()
    assert [r.base_version for r in server.since(-1)] == [-1]
    release = server.advance(np.ones(LAYOUT.size, np.float32))
    assert (release.version, release.base_version, release.generation) == (1, 0, "one")
    assert (release.codec, release.layout) == ("int8", LAYOUT.fingerprint)
    assert release.sha256 == server.whole().sha256


@pytest.mark.parametrize(
    ("params", "says"),
    [(np.nan, "version 1: value 0 of 300 is nan"), (np.inf, "version 1: value 0 of 300 is inf")],
)
def test_what_is_not_finite_is_not_released(params, says):
    server = published()
    before = server.snapshot()
    with pytest.raises(ReleaseError, match=says):
        server.advance(np.full(LAYOUT.size, params, np.float32))
    assert (server.version, server.sha256) == (0, following(server).held.sha256)
    np.testing.assert_array_equal(server.vector, before["vector"])


def test_difference_that_overflows_is_not_released():
    largest = np.finfo(np.float32).max
    server = published(Float32(), start=np.full(LAYOUT.size, largest, np.float32))
    with pytest.raises(ReleaseError, match=r"value 0 of 300 is -inf"):
        server.advance(np.full(LAYOUT.size, -largest, np.float32))


def test_codec_that_no_vehicle_knows_cannot_release():
    class Private(Int8):
        @property
        def kind_name(self):
            return "private"

    with pytest.raises(CodecError, match="'private'"):
        published(Private())


def released(server, num):
    dice = np.random.default_rng(server.version)
    for _ in range(num):
        server.advance(dice.normal(size=LAYOUT.size).astype(np.float32))
    return server.since(-1)[-1]


def test_latecomer_needs_a_snapshot():
    assert Follower(LAYOUT).missing(released(published(), 1)) is None


def test_next_release_misses_nothing():
    server = published()
    follower = following(server)
    assert follower.missing(released(server, 1)) == range(0)


def test_small_gap_is_closed_by_differences():
    """300 values are 1200 bytes; three int8 differences of some 310 bytes are fewer, four are not."""
    server = published()
    follower = following(server)
    assert follower.missing(released(server, 3)) == range(1, 3)
    assert follower.missing(released(server, 1)) is None
    for release in server.since(0):
        follower.apply(release)
    assert same_bits(server, follower)


def test_gap_above_the_ring_needs_a_snapshot_however_small_the_differences():
    server = published()
    follower = following(server)
    params = np.zeros(LAYOUT.size, np.float32)
    for _ in range(RING):
        newest = server.advance(params)
    assert follower.missing(newest) == range(1, RING)
    assert [r.version for r in server.since(0)] == list(range(1, RING + 1))
    assert follower.missing(server.advance(params)) is None


def test_old_and_repeated_news_are_had_already():
    server = published()
    old = server.whole()
    first, second = released(server, 1), released(server, 1)
    follower = following(server)
    for news in (first, second, old, server.whole()):
        assert follower.has(news)
    follower.adopt(old)
    assert same_bits(server, follower)


@pytest.mark.parametrize(("before", "after"), [("one", "1-b"), ("1-a", "2-b"), ("9-a", "10-b")])
def test_a_lower_version_of_a_later_generation_is_adopted(before, after):
    server = published(generation=before)
    released(server, 40)
    follower = following(server)
    restarted = published(generation=after, start=np.ones(LAYOUT.size, np.float32))
    (news,) = restarted.since(-1)
    assert not follower.has(news)
    assert follower.missing(news) is None
    follower.adopt(restarted.whole())
    assert same_bits(restarted, follower)
    follower.apply(released(restarted, 1))
    assert same_bits(restarted, follower)


@pytest.mark.parametrize(
    ("before", "after", "version"),
    [
        ("2-a", "1-b", 41),
        ("1-a", "zz", 41),
        ("1-a", "1-b", 39),
        ("1-a", "1-a", 39),
        ("two", "one", 3),
    ],
)
def test_nothing_that_stands_before_what_was_held_is_taken(before, after, version):
    """A lower generation, or a lower version in one of the same number; names without a number are 0."""
    server, other = published(generation=before), published(generation=after)
    newest = released(server, 40)
    difference = released(other, version)
    follower, restarted = following(server), Follower(LAYOUT, floor=order_of(newest))
    for who in (follower, restarted):
        held = who.held
        assert who.is_past(difference)
        with pytest.raises(OlderRelease, match="an older release was offered"):
            who.apply(difference)
        with pytest.raises(OlderRelease, match="an older release was offered"):
            who.apply(other.replace(other.vector) if other.version < 39 else difference)
        if who is restarted or after != before:
            with pytest.raises(OlderRelease, match="an older release was offered"):
                who.adopt(other.whole())
        assert who.held is held


def test_same_version_of_other_bits_is_taken_from_the_snapshot():
    server, other = published(), published(start=np.ones(LAYOUT.size, np.float32))
    news = released(other, 2)
    released(server, 2)
    follower = following(server)
    assert not follower.has(news)
    assert not follower.is_past(news)
    assert follower.missing(news) is None
    follower.adopt(other.whole())
    assert same_bits(other, follower)


def test_the_server_knows_its_newest_versions_by_their_first_bytes():
    """Two versions back and the newest: 4, 5, 6 of 6. Of older ones it says nothing."""
    server = Published(
        np.zeros(LAYOUT.size, np.float32), LAYOUT, Int8(), generation="1-a", max_staleness=2
    )
    digests = [released(server, 1).sha256[:8] for _ in range(6)]
    restored = published(generation="x")
    restored.restore(server.snapshot())
    for who in (server, restored):
        assert sorted(who.digests) == [4, 5, 6]
        assert not who.has_other_bits(5, digests[4])
        assert who.has_other_bits(5, digests[5])
        assert not who.has_other_bits(5, b"")
        assert not who.has_other_bits(1, b"whatever")


def test_same_version_of_other_bits_is_not_had():
    server = published()
    released(server, 2)
    follower = following(server)
    other = replace(released(server, 1), version=2, base_version=1)
    assert not follower.has(other)
    assert follower.missing(other) is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sha256": bytes(32)}, r"version 1 has SHA-256 .*, expected 0000000000000000"),
        ({"body": b"junk"}, "expected"),
        ({"codec": "os"}, "codec 'os'"),
        ({"version": 2}, "version 2 of one is a difference against 0, held is version 0 of one"),
        ({"generation": "x"}, "version 1 of x is a difference against 0, held is version 0 of one"),
        ({"layout": b"another1"}, f"layout {b'another1'.hex()}, expected .* .this vehicle's"),
    ],
)
def test_unfit_release_is_refused_and_what_is_held_stays(fields, says):
    server = published()
    follower = following(server)
    before = follower.held
    with pytest.raises(ReleaseError, match=says):
        follower.apply(replace(released(server, 1), **fields))
    assert follower.held is before


def test_unfit_snapshot_is_refused():
    follower = Follower(LAYOUT)
    with pytest.raises(ReleaseError, match=f"expected {b'another one'.hex()}"):
        follower.adopt(replace(published().whole(), sha256=b"another one"))
    assert follower.held is None


def test_restored_server_goes_on_with_the_same_bits():
    server, restored = published(), published(generation="fresh")
    released(server, 5)
    follower = following(server)
    restored.restore(server.snapshot())
    params = np.ones(LAYOUT.size, np.float32)
    assert restored.advance(params) == server.advance(params)
    follower.apply(restored.since(5)[0])
    assert same_bits(restored, follower)


def test_held_vector_is_never_written_to():
    """Training reads it in a thread of its own while the next version is made."""
    server = published()
    follower = following(server)
    before, copy = follower.held, follower.held.vector.copy()
    follower.apply(released(server, 1))
    np.testing.assert_array_equal(before.vector, copy)
