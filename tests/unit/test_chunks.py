"""Chunks of a frame: however they come, the frame or nothing comes out, and little is held meanwhile."""

import contextlib
import random
import tracemalloc
from collections import OrderedDict
from hashlib import sha256
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetfl.protocol import wire
from fleetfl.protocol.chunks import CHUNK_COST, HEADER, MAGIC, TRANSFER_COST, Assembler, split
from fleetfl.protocol.wire import WireError

pytestmark = pytest.mark.unit
FRAME = random.Random(0).randbytes(1000)


def chunk(data, index, count, total, *, transfer=b"transfer", checksum=None):
    checksum = crc32(data) if checksum is None else checksum
    return HEADER.pack(MAGIC, transfer, index, count, total, checksum) + data


def fed(assembler, payloads, sender="v1", now_s=0.0):
    return [frame for p in payloads if (frame := assembler.add(sender, p, now_s)) is not None]


def test_a_frame_that_fits_goes_as_it_is():
    assert split(FRAME, 1000) == [FRAME]
    assert fed(Assembler(), [FRAME]) == [FRAME]


def test_chunks_are_of_one_size_and_within_the_limit():
    """1000 bytes in payloads of 324: 300 of data each, so 4 chunks of 250."""
    chunks = split(FRAME, 324)
    assert [len(c) - HEADER.size for c in chunks] == [250] * 4
    assert HEADER.size == 24
    assert fed(Assembler(), chunks) == [FRAME]


def test_a_frame_sent_again_is_cut_into_the_same_chunks():
    assert split(FRAME, 100) == split(bytes(FRAME), 100)


@given(frame=st.binary(min_size=1, max_size=2000), room=st.integers(1, 700), seed=st.integers())
def test_any_order_and_any_repeats_give_the_frame_once(frame, room, seed):
    frame = wire.MAGIC + frame
    chunks, dice = split(frame, HEADER.size + room), random.Random(seed)
    assert all(len(c) <= HEADER.size + room for c in chunks)
    last = dice.choice(chunks)
    before = [c for c in chunks if c is not last]
    before += dice.choices(before, k=5) if before else []
    dice.shuffle(before)
    assembler = Assembler()
    assert fed(assembler, before) == []
    assert fed(assembler, [last]) == [frame]
    assert (assembler.held_bytes, assembler.cost, len(assembler.open)) == (0, {}, 0)


def test_frames_of_several_senders_and_two_of_one_come_interleaved():
    assembler, frames = Assembler(), [bytes([n]) * 100 for n in range(2)]
    lanes = [(who, c) for parts in zip(*(split(f, 40) for f in frames), strict=True) for c in parts
             for who in ("a", "b")]  # fmt: skip
    got = [(who, frame) for who, c in lanes if (frame := assembler.add(who, c, 0.0))]
    assert sorted(got) == sorted((who, f) for who in "ab" for f in frames)


def test_chunks_of_one_sender_do_not_complete_those_of_another():
    assembler, (first, second) = Assembler(), split(FRAME, 600)
    assert assembler.add("a", first, 0) is None
    assert assembler.add("b", second, 0) is None


def test_what_a_cut_link_brought_counts_when_the_frame_is_sent_again():
    assembler, chunks = Assembler(), split(FRAME, 324)
    assert fed(assembler, chunks[:3]) == []
    assert fed(assembler, chunks[3:]) == [FRAME]


def test_a_third_frame_of_one_sender_drops_its_oldest():
    assembler = Assembler(max_open_per_sender=2)
    frames = [bytes([n]) * 100 for n in range(3)]
    for frame in frames:
        assert assembler.add("v1", split(frame, 80)[0], 0.0) is None
    assert assembler.drops == {"superseded": 1}
    assert fed(assembler, [split(f, 80)[1] for f in frames[1:]]) == frames[1:]


def test_what_nothing_came_for_is_dropped():
    """Begun at 0 and continued at 50: still open at 110 (60 later), dropped at 110.1 for a limit of 60."""
    assembler, chunks = Assembler(ttl_s=60), split(FRAME, 324)
    assembler.add("v1", chunks[0], 0.0)
    assembler.add("v1", chunks[1], 50.0)
    assembler.add("v2", chunks[0], 110.0)
    assert len(assembler.open) == 2
    assembler.add("v2", chunks[1], 110.1)
    assert assembler.drops == {"late": 1}
    assert assembler.add("v1", chunks[2], 110.2) is None
    assert assembler.add("v1", chunks[3], 110.3) is None


def test_who_holds_most_gives_way_when_memory_is_full():
    """Room for three transfers of one chunk of 250, not for four: one of the two of `g` goes."""
    one = TRANSFER_COST + 8 + CHUNK_COST + 250
    assembler = Assembler(max_bytes=4 * one - 1, max_open_per_sender=9)
    for n in range(2):
        assembler.add("g", split(bytes([n]) * 500, 274)[0], 0.0)
    for name in "ab":
        assembler.add(name, split(FRAME, 324)[0], 1.0)
    assert assembler.drops == {"memory": 1}
    assert [key[0] for key in assembler.open] == ["g", "a", "b"]
    assert assembler.held_bytes == 3 * one == assembler.cost.total()


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (MAGIC, "chunk of 4 bytes"),
        (chunk(b"abc", 0, 1, 3), "0 of 1 of 3 bytes, expected 2 or more"),
        (chunk(b"abc", 2, 2, 6), "2 of 2 of 6 bytes"),
        (chunk(b"", 0, 4, 3), "0 of 4 of 3 bytes"),
        (chunk(b"ab", 0, 7, 10), "0 of 7 of 10 bytes, which 5 hold"),
        (chunk(b"abc", 0, 2, 2**32 - 1), "of at most 67108864 bytes"),
        (chunk(b"ab", 0, 2, 6), "0 of 2 of 6 bytes has 2 bytes of data, expected 3"),
        (chunk(b"abcd", 0, 2, 6), "has 4 bytes of data, expected 3"),
        (chunk(b"abc", 1, 2, 5), "1 of 2 of 5 bytes has 3 bytes of data, expected 2"),
        (chunk(b"abc", 0, 2, 6, checksum=7), "has CRC-32 352441c2, expected 00000007"),
    ],
)
def test_chunks_that_contradict_themselves_are_refused_and_counted(payload, says):
    assembler = Assembler()
    with pytest.raises(WireError, match=says):
        assembler.add("v1", payload, 0.0)
    assert assembler.drops == {"damaged": 1}
    assert assembler.held_bytes == 0


def test_a_whole_that_does_not_hash_is_refused_and_forgotten():
    assembler = Assembler()
    assembler.add("v1", chunk(b"abc", 0, 2, 6), 0.0)
    with pytest.raises(WireError, match="2 chunks make 6 bytes that do not hash right"):
        assembler.add("v1", chunk(b"def", 1, 2, 6), 0.0)
    assert (assembler.drops, assembler.held_bytes) == ({"damaged": 1}, 0)


def test_a_repeat_that_differs_replaces_so_the_true_one_mends_a_false_one():
    assembler, transfer = Assembler(), sha256(b"abcdef").digest()[:8]
    assembler.add("v1", chunk(b"xyz", 0, 2, 6, transfer=transfer), 0.0)
    assembler.add("v1", chunk(b"abc", 0, 2, 6, transfer=transfer), 0.0)
    assert assembler.add("v1", chunk(b"def", 1, 2, 6, transfer=transfer), 0.0) == b"abcdef"


def test_a_frame_that_could_never_be_held_is_refused_at_its_first_chunk():
    with pytest.raises(WireError, match=r"take \d+ bytes of memory, expected at most 5000"):
        Assembler(max_bytes=5000).add("v1", chunk(bytes(3000), 0, 2, 6000), 0.0)


def test_a_limit_too_small_for_the_frame_is_an_error():
    with pytest.raises(ValueError, match="70000 bytes do not fit in 65535 chunks of 25"):
        split(bytes(70_000), 25)
    with pytest.raises(ValueError, match="chunks of 24"):
        split(bytes(100), 24)


@pytest.mark.parametrize(("size", "name"), [(1, "v"), (1000, "v"), (1, "\U0001f697" * 10_000)])
def test_memory_stays_within_the_bound_whatever_comes(size, name):
    """Tiny chunks and long names cost more to keep than they carry, so their keeping counts as well."""
    assembler = Assembler(max_bytes=1_000_000, max_open_per_sender=50)
    dice = random.Random(0)
    tracemalloc.start()
    try:
        for n in range(4_000):
            transfer, index = dice.randbytes(8) if n % 3 == 0 else b"a" * 8, n % 400
            payload = chunk(dice.randbytes(size), index, 401, 401 * size, transfer=transfer)
            assembler.add(f"{name}{n % 7}", payload, 0.0)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert assembler.held_bytes <= 1_000_000
    assert held <= peak < 1_000_000


def test_a_frame_larger_than_allowed_is_refused_at_its_first_chunk():
    assembler = Assembler(max_frame_bytes=900)
    with pytest.raises(WireError, match="of at most 900 bytes"):
        assembler.add("v1", split(FRAME, 324)[0], 0.0)
    assert (assembler.held_bytes, assembler.drops["damaged"]) == (0, 1)
    assert fed(assembler, split(FRAME[:900], 324)) == [FRAME[:900]]


def test_whoever_holds_most_gives_way_however_the_costs_went_up_and_down():
    """Compared with a look at all of them, over seeded traffic of forty senders."""
    dice, assembler = random.Random(3), Assembler(max_bytes=60_000, max_open_per_sender=4)
    for step in range(2500):
        size = dice.choice((10, 100, 900))
        name, transfer = f"v{dice.randrange(40)}", bytes([dice.randrange(6)]) * 8
        before, open_before = assembler.cost, list(assembler.open)
        drops = assembler.drops["memory"]
        payload = chunk(dice.randbytes(size), dice.randrange(9), 9, 9 * size, transfer=transfer)
        with contextlib.suppress(WireError):
            assembler.add(name, payload, step)
        gone = [key for key in open_before if key not in assembler.open]
        if assembler.drops["memory"] == drops + 1 and len(gone) == 1 and gone[0][0] != name:
            assert before[gone[0][0]] == max(before.values())
        assert assembler.held_bytes == sum(assembler.cost.values()) <= 60_000
        assert len(assembler.greedy) <= 2 * len(assembler.senders) + 80
    assert assembler.drops["memory"] > 100


def test_a_chunk_costs_the_same_beside_many_senders():
    """Steps are counted, not seconds: no call may look at all that are open."""

    class Counted(OrderedDict):
        looks = 0

        def __iter__(self):
            for each in super().__iter__():
                Counted.looks += 1
                yield each

    assembler = Assembler(max_open_per_sender=2)
    assembler.open = Counted()
    for n in range(500):
        for transfer in (b"a" * 8, b"b" * 8, b"c" * 8):
            assembler.add(f"v{n}", chunk(b"xy", 0, 4, 8, transfer=transfer), 0.0)
    assert Counted.looks <= 1500
