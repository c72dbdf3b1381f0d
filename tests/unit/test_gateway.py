"""The gateway on the memory broker: judged, answered, acknowledged, and never more than it can take."""

import asyncio

import numpy as np
import pytest
from msgspec.structs import replace

from fleetfl.codecs.float32 import Config as Float32
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.coordination.coordinator import Outcome, Refusal
from fleetfl.protocol import topics, wire
from fleetfl.protocol.chunks import Assembler, split
from fleetfl.protocol.messages import Receipt, Rollback, Status
from fleetfl.protocol.signing import Keyring, OneKey
from fleetfl.releases.versions import Published
from fleetfl.storage.journal import JournalDamaged, JournalError
from fleetfl.vectors import Layout
from tests.gateway_at_work import FLEET, Scene, accept, signer, update_topic

pytestmark = pytest.mark.unit


def test_outcomes_become_receipts(tmp_path, make_update):
    async def submit(update, size):
        assert size == len(wire.encode(update))
        if update.sequence == 1:
            return Outcome("refused", 5, 9, Refusal.STALE, "9 versions late")
        return Outcome("accepted", 5, 2)

    scene = Scene(tmp_path, submit)
    packets = [(update_topic(), wire.encode(make_update(sequence=n))) for n in range(2)]
    receipts = asyncio.run(scene.play(packets))
    assert receipts == [
        Receipt("v1", "b", 0, "accepted", "", 2, 5),
        Receipt("v1", "b", 1, "refused", "stale", 9, 5, "9 versions late"),
    ]
    assert scene.broker.num_unacknowledged("gateway") == 0
    assert scene.events("announced")[0]["version"] == 0


def test_noise_is_counted_acknowledged_and_not_judged(tmp_path, make_update):
    async def submit(update, size):
        raise AssertionError("noise was judged")

    stranger = wire.encode(make_update(vehicle="v2"))
    status = wire.encode(Status("v1", "b", "online", 0, 0, 0, 0, ""))
    rollback = wire.encode(
        Rollback("x", "one", 0, bytes(8), bytes(32), "float32", make_update().body)
    )
    scene = Scene(tmp_path, submit)
    frames = [b"junk", b"", stranger, status, rollback]
    assert asyncio.run(scene.play([(update_topic(), f) for f in frames])) == []
    details = [e["detail"] for e in scene.events("malformed")]
    assert len(details) == 5
    assert "a Rollback that names 'server' on the topic of 'v1'" in details[4]
    assert "'v2' on the topic of 'v1'" in details[2]
    assert "a Status on a topic for update" in details[3]
    assert scene.broker.num_unacknowledged("gateway") == 0


def test_statuses_become_events(tmp_path):
    scene = Scene(tmp_path, None)
    frame = wire.encode(Status("v1", "b", "online", 3, 10, 20, 1, "cold"))
    asyncio.run(scene.play([(topics.status(FLEET, "v1", 1), frame)]))
    (event,) = scene.events("online")
    assert (event["version"], event["bytes_down"], event["note"]) == (3, 20, "cold")


def test_reads_no_further_than_it_may_have_in_flight(tmp_path, make_update):
    running, most = 0, 0

    async def slow(update, size):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return Outcome("accepted", 0)

    scene = Scene(tmp_path, slow)
    packets = [(update_topic(), wire.encode(make_update(sequence=n))) for n in range(20)]
    receipts = asyncio.run(scene.play(packets, max_in_flight=3, wait_s=0.5))
    assert len(receipts) == 20
    assert most == 3


def test_what_is_kept_is_acknowledged_and_gets_its_receipt_when_it_is_judged(tmp_path, make_update):
    """A PUBACK says that it is on disk; without a receipt the vehicle sends it again."""

    async def broken(update, size):
        raise ConnectionResetError("the aggregator is gone")

    scene = Scene(tmp_path, broken)
    packets = [(update_topic(), wire.encode(make_update()))]
    assert asyncio.run(scene.play(packets)) == []
    assert scene.broker.num_unacknowledged("gateway") == 0
    assert [kept.frame for kept in scene.journal.rows(0, 9)] == [packets[0][1]]
    scene.submit = accept
    (receipt,) = asyncio.run(scene.play(packets))
    assert receipt.verdict == "duplicate"
    assert len(scene.journal.rows(0, 9)) == 1
    assert [e["sequence"] for e in scene.events("duplicate")] == [0]


class Damaged:
    """A journal whose file is broken until somebody has mended it."""

    def __init__(self, journal):
        self.journal, self.rows = journal, journal.rows
        self.num_mends = 0

    async def append(self, update, frame):
        if self.num_mends < 2:
            raise JournalDamaged("database disk image is malformed")
        return await self.journal.append(update, frame)

    async def repair(self):
        self.num_mends += 1
        if self.num_mends < 2:
            raise JournalError("no space for the new one")


def test_a_damaged_journal_is_mended_however_often_it_takes(tmp_path, make_update):
    scene = Scene(tmp_path, accept)
    scene.journal = Damaged(scene.journal)
    scene.identity["repair"] = scene.journal.repair
    packets = [(update_topic(), wire.encode(make_update()))]
    (receipt,) = asyncio.run(scene.play(packets, wait_s=0.3))
    assert receipt.verdict == "accepted"
    assert len(scene.events("journal_resumed")) == 1


class FullDisk:
    """A journal that takes nothing until it has been asked so many times."""

    def __init__(self, journal, times):
        self.journal, self.left = journal, times

    async def append(self, update, frame):
        self.left -= 1
        if self.left >= 0:
            raise JournalError("database or disk is full")
        return await self.journal.append(update, frame)

    def rows(self, after, limit):
        return self.journal.rows(after, limit)


def test_what_is_not_kept_is_not_acknowledged(tmp_path, make_update, caplog):
    scene = Scene(tmp_path, accept)
    scene.journal = FullDisk(scene.journal, times=1_000_000)
    assert asyncio.run(scene.play([(update_topic(), wire.encode(make_update()))])) == []
    assert scene.broker.num_unacknowledged("gateway") == 1
    assert caplog.text.count("disk is full") == 1
    assert len(scene.events("journal_failed")) == 1


def test_goes_on_by_itself_when_there_is_space_again(tmp_path, make_update):
    scene = Scene(tmp_path, accept)
    scene.journal = FullDisk(scene.journal, times=3)
    packets = [(update_topic(), wire.encode(make_update(sequence=n))) for n in range(5)]
    receipts = asyncio.run(scene.play(packets, wait_s=0.3))
    assert sorted(r.sequence for r in receipts) == [0, 1, 2, 3, 4]
    assert scene.broker.num_unacknowledged("gateway") == 0
    assert len(scene.events("journal_resumed")) == 1


def retained(scene):
    """Topic below `down/` -> message, in the order of their first publishing."""
    at = f"fleetfl/1/{FLEET}/down/"
    return {topic.removeprefix(at): wire.decode(f) for topic, f in scene.broker.retained.items()}


def test_version_0_is_a_snapshot_and_news_without_a_difference(tmp_path):
    scene = Scene(tmp_path, None)
    asyncio.run(scene.play([]))
    kept = retained(scene)
    assert list(kept) == ["snapshot/0", "release"]
    assert kept["snapshot/0"] == scene.published.whole()
    assert (kept["release"].version, kept["release"].base_version) == (0, -1)
    (event,) = scene.events("announced")
    assert event["snapshot_bytes"] == len(wire.encode(kept["snapshot/0"]))


def test_versions_made_while_it_was_busy_are_all_in_the_ring(tmp_path):
    """34 versions: slots hold 3 to 34, so slot 2 holds 34 and slot 3 holds 3."""
    scene = Scene(tmp_path, None)
    for number in range(34):
        scene.published.advance(np.full(5, number, np.float32))
    asyncio.run(scene.play([]))
    kept = retained(scene)
    assert next(iter(kept)) == "snapshot/0"
    assert list(kept)[-1] == "release"
    assert kept["release"].version == kept["snapshot/0"].version == 34
    assert {kept[f"release/{slot}/0"].version for slot in range(32)} == set(range(3, 35))
    assert (kept["release/2/0"].version, kept["release/3/0"].version) == (34, 3)
    assert [e["version"] for e in scene.events("announced")] == [34]


def test_a_whole_version_has_its_slot_in_the_ring(tmp_path):
    """So a vehicle that missed a rollback does not wait for a difference that does not exist."""
    scene = Scene(tmp_path, None)
    scene.published.advance(np.full(5, 1, np.float32))
    scene.published.replace(np.full(5, 0.5, np.float32))
    scene.published.advance(np.full(5, 2, np.float32))
    asyncio.run(scene.play([]))
    kept = retained(scene)
    assert [kept[f"release/{version}/0"].base_version for version in (1, 2, 3)] == [0, -1, 2]
    assert "release/0/0" not in kept


def introduction(one, boot="b"):
    """Topic and frame of a status that carries the key of its signer."""
    status = Status("v1", boot, "online", -1, 0, 0, 0, "", one.public)
    return topics.status(FLEET, "v1", 1), wire.encode(status, one)


def test_updates_that_their_vehicle_did_not_sign_are_refused_and_told_so(tmp_path, make_update):
    """Listed is v1 with key 1: unsigned, and by key 2, are refused; by key 1 is accepted."""
    signer(1).write_public("v1", tmp_path / "keys")
    scene = Scene(tmp_path, accept, keys=Keyring(FLEET, tmp_path / "keys"))
    by = [None, signer(2), signer(1)]
    frames = [wire.encode(make_update(sequence=n), one) for n, one in enumerate(by)]
    receipts = asyncio.run(scene.play([(update_topic(), frame) for frame in frames]))
    assert [(r.sequence, r.verdict, r.reason) for r in receipts] == [
        (0, "refused", "signature"),
        (1, "refused", "signature"),
        (2, "accepted", ""),
    ]
    unsigned, forged = scene.events("refused")
    assert (unsigned["reason"], unsigned["bytes"]) == ("signature", len(frames[0]))
    assert "frame of 'v1' is not signed" in unsigned["detail"]
    assert "v1: the signature does not fit" in forged["detail"]
    assert scene.broker.num_unacknowledged("gateway") == 0


def test_a_vehicle_is_known_from_its_first_status_on(tmp_path, make_update):
    keys = Keyring(FLEET, tmp_path / "keys", first_use=True)
    scene = Scene(tmp_path, accept, keys=keys)
    frames = [wire.encode(make_update(sequence=n), signer(1)) for n in range(2)]
    packets = [
        (update_topic(), frames[0]),
        introduction(signer(1)),
        (update_topic(), frames[1]),
        introduction(signer(2)),
    ]
    receipts = asyncio.run(scene.play(packets))
    assert [(r.verdict, r.reason) for r in receipts] == [("refused", "signature"), ("accepted", "")]
    assert len(scene.events("online")) == 1
    (changed,) = scene.events("malformed")
    assert "v1 CHANGED ITS KEY" in changed["detail"]


@pytest.mark.parametrize("how", ["unlisted", "re-keyed", "revoked"])
def test_a_vehicle_that_is_refused_is_known_by_name_and_told_why(tmp_path, make_update, how):
    keys = tmp_path / "keys"
    keys.mkdir()
    if how != "unlisted":
        signer(1).write_public("v1", keys)
    ring = Keyring(FLEET, keys)
    scene = Scene(tmp_path, accept, keys=ring)
    if how == "revoked":
        wire.decode(introduction(signer(1))[1], ring)
        (keys / "v1.pub").unlink()
    one = signer(2 if how == "re-keyed" else 1)
    frame = wire.encode(make_update(), one)
    (receipt,) = asyncio.run(scene.play([(update_topic(), frame), introduction(one)]))
    sighting = scene.gateway.roster.shown()["v1"]
    assert sighting.state == "refused"
    words, told = {
        "unlisted": ("is not listed", "it is not listed"),
        "re-keyed": ("CHANGED ITS KEY", "it does not fit the key that is known for its name"),
        "revoked": ("is revoked", "its key was revoked"),
    }[how]
    assert words in sighting.refused
    assert (receipt.reason, receipt.detail) == ("signature", told)
    assert str(tmp_path) not in receipt.detail
    signer(1).write_public("v1", keys)
    asyncio.run(scene.play([introduction(signer(1), "c")]))
    assert scene.gateway.roster.shown()["v1"].state == "online"


def test_nobody_is_told_of_a_forgery_on_anothers_topic(tmp_path, make_update):
    scene = Scene(tmp_path, accept, keys=Keyring(FLEET, tmp_path / "keys", first_use=True))
    frame = wire.encode(make_update(vehicle="v2"), signer(1))
    assert asyncio.run(scene.play([(update_topic("v1"), frame)])) == []
    (event,) = scene.events("malformed")
    assert "'v2' on the topic of 'v1'" in event["detail"]


def test_the_server_signs_receipts_releases_and_snapshots(tmp_path, make_update, monkeypatch):
    monkeypatch.setattr("actors.announcer.FIRST_LOOK_S", 0.01)
    scene = Scene(tmp_path, accept, signer=signer(9))
    signer(9).write_public("server", tmp_path)
    key = OneKey(FLEET, tmp_path / "server.pub")
    asyncio.run(scene.play([(update_topic(), wire.encode(make_update()))]))
    kept = [frame for topic, frame in scene.broker.retained.items() if "/down/" in topic]
    assert len(kept) == 2
    for frame in kept:
        wire.decode(frame, key)


def test_a_proof_that_the_server_has_not_signed_or_that_is_older_changes_nothing(
    tmp_path, make_update, monkeypatch
):
    """Were it believed, the gateway would ask for a version past it, which never comes."""
    monkeypatch.setattr("actors.announcer.FIRST_LOOK_S", 0.01)
    scene = Scene(tmp_path, accept, signer=signer(9))
    far = replace(scene.published.since(-1)[0], generation="7-far", version=40)
    own = scene.published.since(-1)[0]
    frames = [wire.encode(far, signer(8)), wire.encode(far), b"junk", wire.encode(own, signer(9))]
    topic = topics.proof(FLEET, "v1", 1)
    packets = [*((topic, frame) for frame in frames), (update_topic(), wire.encode(make_update()))]
    receipts = asyncio.run(scene.play(packets))
    assert [r.verdict for r in receipts] == ["accepted"]
    assert len(scene.events("malformed")) == 3
    assert {e["leaf"] for e in scene.events("malformed")} == {"proof"}


def test_an_update_in_chunks_is_judged_once_when_it_is_whole(tmp_path, make_update):
    judged = []

    async def submit(update, size):
        judged.append((update.sequence, size))
        return Outcome("accepted", 5)

    scene = Scene(tmp_path, submit)
    frames = [wire.encode(make_update(np.arange(500), sequence=n)) for n in range(3)]
    first, second, third = (split(frame, 300) for frame in frames)
    sent = [*first[::-1], *second[:-1], *third, third[0]]
    receipts = asyncio.run(scene.play([(update_topic(), chunk) for chunk in sent]))
    assert [r.sequence for r in receipts] == [0, 2]
    assert judged == [(0, len(frames[0])), (2, len(frames[2]))]
    assert scene.broker.num_unacknowledged("gateway") == 0


def test_a_damaged_chunk_is_noise(tmp_path, make_update):
    chunk = bytearray(split(wire.encode(make_update(np.arange(500))), 300)[0])
    chunk[-1] ^= 1
    scene = Scene(tmp_path, accept)
    assert asyncio.run(scene.play([(update_topic(), bytes(chunk))])) == []
    assert "CRC-32" in scene.events("malformed")[0]["detail"]


def assembled(scene, below):
    """The message whose chunks are retained below this topic."""
    assembler = Assembler()
    at = f"fleetfl/1/{FLEET}/down/{below}/"
    frames = [
        assembler.add("server", payload, 0.0)
        for topic, payload in scene.broker.retained.items()
        if topic.startswith(at)
    ]
    (frame,) = filter(None, frames)
    return wire.decode(frame)


def test_what_is_too_large_for_a_packet_is_retained_in_chunks(tmp_path):
    """News then come without their difference, which is in the slot."""
    scene = Scene(tmp_path, None, max_payload_bytes=400)
    layout = Layout.flat(1000)
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    scene.published = Published(values, layout, Int8(), generation="one")
    scene.published.advance(2 * values)
    asyncio.run(scene.play([]))
    assert all(len(payload) <= 400 for payload in scene.broker.retained.values())
    assert assembled(scene, "snapshot") == scene.published.whole()
    release = scene.published.since(0)[0]
    assert assembled(scene, "release/1") == release
    news = wire.decode(scene.broker.retained[topics.release(FLEET)])
    assert news == replace(release, body=b"")
    (event,) = scene.events("announced")
    assert event["bytes"] == len(wire.encode(release)) + len(wire.encode(news))


def test_chunks_that_a_smaller_snapshot_does_not_need_are_taken_away(tmp_path):
    """Normal values take 4,000 bytes of float32, zeros a few."""
    scene = Scene(tmp_path, None, max_payload_bytes=400)
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    layout = Layout.flat(1000)
    scene.published = Published(values, layout, Float32(), generation="one")

    async def scenario():
        playing = asyncio.create_task(scene.play([], wait_s=0.2))
        await asyncio.sleep(0.1)
        many = len(scene.broker.retained)
        scene.published.advance(np.zeros(1000, np.float32))
        await playing
        return many

    assert asyncio.run(scenario()) > 10
    below = [topic for topic in scene.broker.retained if "/snapshot/" in topic]
    assert below == [topics.snapshot(FLEET, 0)]
