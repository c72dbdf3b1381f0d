"""A rollback makes a new version of old bits, counted in the journal's order like an update."""

import asyncio

import numpy as np
import pytest
from msgspec.structs import replace

from actors.aggregator import AggregatorActor
from fleetfl.codecs import decoder
from fleetfl.protocol.messages import SERVER
from fleetfl.protocol.signing import Signer
from fleetfl.registry.registry import RegistryError
from fleetfl.registry.release_file import ReleaseFileError
from fleetfl.registry.rollback import answer, ask
from fleetfl.releases.versions import Follower
from fleetfl.vectors import digest
from tests.unit.test_recovery import LAYOUT, config_in, end, keep, told
from tests.unit.test_recovery import ask as outcomes_of

pytestmark = pytest.mark.unit


@pytest.fixture
def config(tmp_path):
    config = config_in(tmp_path)
    Signer.from_file(config.fleet, config.state / "key.pem").write_public(SERVER, config.state)
    return config


@pytest.fixture
def updates(make_update):
    rng = np.random.default_rng(3)
    codec = decoder("int8", LAYOUT)
    return [
        make_update(
            codec="int8",
            body=codec.encode(rng.normal(size=20).astype(np.float32)),
            layout=LAYOUT.fingerprint,
            sequence=n,
        )
        for n in range(24)
    ]


def counted(aggregator, updates):
    outcomes = outcomes_of(aggregator, *keep(aggregator.journal, updates))
    aggregator.state.keep()
    return outcomes


def go_back(aggregator, name, reason=""):
    row = asyncio.run(ask(aggregator.config.state, name, reason=reason))
    while aggregator.judge.count(64):
        pass
    return row


def test_the_new_version_has_the_old_bits_and_says_where_they_are_from(config, updates):
    """Goal 3: three versions of 9 updates, one update in the buffer, then version 4 = version 1."""
    aggregator = AggregatorActor(config)
    counted(aggregator, updates[:10])
    generation = aggregator.coordinator.published.generation
    row = go_back(aggregator, "1", "too many false alarms")
    event = answer(config.state, row, patience_s=5)
    assert (event["version"], event["restores"]) == (4, f"{generation}/1")
    aggregator.state.keep()
    old, new = config.releases.find("1").record, config.releases.find("4").record
    assert new.sha256 == old.sha256 == event["sha256"] == aggregator.snapshot.sha256.hex()
    assert (new.parent, new.restores) == (f"{generation}/3", f"{generation}/1")
    assert (new.reason, new.updates, new.row) == ("too many false alarms", (), row)
    coordinator = aggregator.coordinator
    assert digest(coordinator.params).hex() == old.sha256
    assert coordinator.aggregator.buffered == 0
    assert not coordinator.optimizer.velocity.any()


def test_updates_from_versions_undone_are_refused_and_from_older_ones_are_not(config, updates):
    """At version 3 back to 1: bases 2 and 3 are refused, 0, 1 and the new 4 count."""
    aggregator = AggregatorActor(config)
    counted(aggregator, updates[:9])
    go_back(aggregator, "1")
    based = [replace(one, base_version=n) for n, one in enumerate(updates[9:14])]
    outcomes = counted(aggregator, based)
    assert [o.reason and o.reason.value for o in outcomes] == [None, None, "undone", "undone", None]
    assert "base version 2 was rolled back" in outcomes[2].detail
    assert outcomes[4].released  # the third that counts
    assert outcomes_of(AggregatorActor(config), 13)[0].version == 5


@pytest.mark.parametrize("checkpoint_s", [0, 3600])
@pytest.mark.parametrize("more", [0, 1, 7])
def test_a_replay_reaches_the_same_bits(tmp_path, config, updates, checkpoint_s, more):
    """Killed right after the rollback, or some updates later; and the registry is lost meanwhile."""
    config = config.model_copy(update={"checkpoint_s": checkpoint_s})
    first = AggregatorActor(config)
    outcomes_of(first, *keep(first.journal, updates[:10]))
    first.state.keep()
    if checkpoint_s:  # all of it is in the replay
        for path in sorted(config.checkpoint_folder.iterdir())[1:]:
            path.unlink()
    go_back(first, "2")
    later = [replace(one, base_version=4) for one in updates[10 : 10 + more]]
    outcomes_of(first, *keep(first.journal, later))
    config.releases.folder.rename(tmp_path / "lost")
    second = AggregatorActor(config)
    assert end(second.coordinator) == end(first.coordinator)
    assert second.coordinator.version == 4 + more // 3
    assert len(told(config, "rolled_back")) == 1
    assert [e["version"] for e in told(config, "released")] == list(range(5 + more // 3))


def test_vehicles_get_there_from_any_version_and_from_none(config, updates):
    aggregator = AggregatorActor(config)
    published = aggregator.coordinator.published
    followers = [Follower(LAYOUT) for _ in range(4)]
    for number, follower in enumerate(followers[:3]):
        follower.adopt(published.whole())
        counted(aggregator, updates[3 * number : 3 * number + 3])
    go_back(aggregator, "1")
    counted(aggregator, [replace(one, base_version=4) for one in updates[9:12]])
    news = published.since(0)
    assert [release.version for release in news] == [1, 2, 3, 4, 5]
    for follower in followers:
        if follower.held is None:
            assert follower.missing(news[-1]) is None  # a snapshot
            follower.apply(news[3])
        for release in news:
            if not follower.has(release):
                follower.apply(release)
        assert follower.held.sha256 == published.sha256


def test_a_release_of_a_whole_version_misses_nothing(config, updates):
    aggregator = AggregatorActor(config)
    follower = Follower(LAYOUT)
    counted(aggregator, updates[:6])
    go_back(aggregator, "0")
    whole = aggregator.coordinator.published.since(2)[0]
    assert (whole.base_version, whole.codec) == (-1, "float32")
    assert follower.missing(whole) == range(0)
    follower.apply(whole)
    assert follower.held.version == 3
    with pytest.raises(ValueError, match="has SHA-256"):
        follower.apply(replace(whole, sha256=bytes(32)))


def test_a_rollback_that_the_server_has_not_signed_is_refused(config, updates, tmp_path):
    aggregator = AggregatorActor(config)
    counted(aggregator, updates[:6])
    key = config.state / "key.pem"
    key.rename(tmp_path / "true.pem")
    Signer.from_file(config.fleet, key)
    row = go_back(aggregator, "1")
    with pytest.raises(RegistryError, match="refused: server: the signature does not fit"):
        answer(config.state, row, patience_s=5)
    assert aggregator.coordinator.version == 2
    assert AggregatorActor(config).counted == row


def test_what_cannot_be_rolled_back_to_is_named(config, updates):
    aggregator = AggregatorActor(config)
    with pytest.raises(RegistryError, match=r"0 is what is released already"):
        go_back(aggregator, "0")
    counted(aggregator, updates[:6])
    with pytest.raises(RegistryError, match=r"7 is not in .*registry: there are"):
        go_back(aggregator, "7")
    path = config.releases.path(aggregator.snapshot.generation, 1)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ReleaseFileError, match=r"00000001\.safetensors .* cannot be read"):
        go_back(aggregator, "1")
    (config.state / "key.pem").unlink()
    with pytest.raises(RegistryError, match=r"key\.pem is missing"):
        go_back(aggregator, "0")


def test_a_running_server_notices_what_no_gateway_asks_about(config, updates, monkeypatch):
    monkeypatch.setattr("actors.aggregator.TICK_S", 0.01)
    aggregator = AggregatorActor(config)
    counted(aggregator, updates[:6])

    async def scenario():
        running = asyncio.create_task(aggregator.run())
        waiting = asyncio.create_task(aggregator.announcement((1, 2)))
        await ask(config.state, "1")
        snapshot, (release,) = await asyncio.wait_for(waiting, 30)
        running.cancel()
        return snapshot, release

    snapshot, release = asyncio.run(scenario())
    assert (snapshot.version, release.version, release.base_version) == (3, 3, -1)


def test_a_stopped_server_does_it_when_it_is_started(config, updates):
    first = AggregatorActor(config)
    counted(first, updates[:6])
    row = asyncio.run(ask(config.state, "1"))
    assert answer(config.state, row, patience_s=0) is None
    second = AggregatorActor(config)
    assert answer(config.state, row, patience_s=0)["version"] == 3
    assert second.snapshot.version == 3


def test_two_rollbacks_undo_what_each_of_them_undid(config, updates):
    """3 back to 1 as 4, one release more is 5, back to 0 as 6: of 0 to 6, only 0 and 6 are left."""
    aggregator = AggregatorActor(config)
    counted(aggregator, updates[:9])
    go_back(aggregator, "1")
    counted(aggregator, [replace(one, base_version=4) for one in updates[9:12]])
    go_back(aggregator, "0")
    for who in (aggregator, AggregatorActor(config)):
        rolled_back = who.coordinator.rolled_back
        assert [
            n for n in range(7) if not any(first <= n <= last for first, last in rolled_back)
        ] == [
            0,
            6,
        ]
