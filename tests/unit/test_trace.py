"""`fleetfl trace`: what became of an update, from a server's folder, a vehicle's, or both."""

import asyncio
import contextlib
import json
import os
import shutil
from hashlib import sha256

import pytest
from msgspec.structs import replace

from fleetfl import cli
from fleetfl.events.event_log import EventLog
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import SERVER
from fleetfl.protocol.signing import Signer
from fleetfl.storage.journal import Journal
from fleetfl.storage.sqlite_copy import copied
from fleetfl.trace import Note
from fleetfl.trace.life import lives, row
from fleetfl.transport import memory
from tests.agent_at_work import until
from tests.unit.test_recovery import config_in, told
from tests.unit.test_restored_fleet import serving, vehicle
from vehicle_agent.outbox import Outbox

pytestmark = pytest.mark.unit


def content(folder):
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Folders of a server at version 2 or later and of v1, and what was read while both ran."""
    folder = tmp_path_factory.mktemp("fleet")
    state = folder / "server"
    state.mkdir()
    config = config_in(state, aggregator={"kind": "fedbuff", "goal": 2})
    Signer.from_file("f", state / "key.pem").write_public(SERVER, state)

    async def scene():
        broker = memory.Broker()
        outbox = folder / "v1" / "outbox.db"
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(serving(config, broker))
            v1 = vehicle("v1", folder, broker, state / "server.pub", outbox=outbox)
            agent = await stack.enter_async_context(v1)
            await until(lambda: server.coordinator.version >= 2, 60)
            await until(lambda: agent.outbox.outcomes.get("accepted", 0) >= 4, 60)
            meanwhile = await asyncio.to_thread(traced, "v1", state, outbox.parent)
            (first,) = server.journal.rows(0, 1)
            strange = replace(wire.decode(first.frame), sequence=900, layout=b"another1", parts=b"")
            link = await stack.enter_async_context(broker.connect("v1-again"))
            signer = Signer.from_file("f", folder / "v1.pem")
            await link.publish(topics.update("f", "v1", 1), first.frame)
            await link.publish(topics.update("f", "v1", 1), wire.encode(strange, signer))
            await until(lambda: told(config, "refused") and told(config, "duplicate"), 60)
        return meanwhile

    return folder, asyncio.run(scene())


class Failed(Exception):
    pass


def run(*arguments):
    """What the command prints; Failed with the error's line."""
    from typer.testing import CliRunner

    from fleetfl import FleetflError

    done = CliRunner().invoke(cli.app, ["trace", *map(str, arguments)], catch_exceptions=True)
    if done.exit_code:
        assert isinstance(done.exception, FleetflError), done.output + repr(done.exception)
        assert "\n" not in str(done.exception)
        raise Failed(str(done.exception))
    return done.stdout


def states(folders):
    return [word for folder in folders for word in ("--state", folder)]


def traced(vehicle, *folders):
    return json.loads(run(vehicle, *states(folders), "--last", 10_000, "--json"))


def one(vehicle, update, *folders):
    return json.loads(run(vehicle, update, *states(folders), "--json"))


def test_a_running_fleet_is_read_from_both_sides(fleet):
    _, meanwhile = fleet
    counted = [line for line in meanwhile if line["outcome"] == "accepted"]
    assert len(counted) >= 4
    assert counted[0]["update"] == "boot/0"


def test_one_update_is_followed_through_every_source(fleet):
    folder, _ = fleet
    life = one("v1", "boot/0", folder / "server", folder / "v1")
    assert life["outcome"] == "accepted"
    assert life["release"].endswith("/1")
    whats = [(note["source"], note["what"]) for note in life["notes"]]
    assert whats[0] == ("journal", "kept")
    assert set(whats) == {
        ("journal", "kept"),
        ("events", "accepted"),
        ("events", "duplicate"),
        ("events", "part of"),
        ("registry", "part of"),
        ("outbox", "accepted"),
    }
    text = run("v1", "boot/0", *states([folder / "server", folder / "v1"]))
    assert text.startswith(f"update boot/0 of v1: accepted, in release {life['release']}\n")
    assert len(text.splitlines()) == 1 + len(life["notes"])


@pytest.mark.parametrize("side", ["server", "v1"])
def test_either_side_alone_tells_what_it_came_to(fleet, side):
    folder, _ = fleet
    assert one("v1", "boot/1", folder / side)["outcome"] == "accepted"


def test_a_refused_update_says_why(fleet):
    folder, _ = fleet
    life = one("v1", "boot/900", folder / "server", folder / "v1")
    assert (life["outcome"], life["reason"], life["release"]) == ("refused", "layout", None)


def test_the_table_has_the_newest_last_and_as_many_as_asked_for(fleet):
    folder, _ = fleet
    lines = run("v1", *states([folder / "v1"]), "--last", 2)
    assert "boot/0 " not in lines
    assert lines.count("boot/") == 2
    numbers = [int(line["update"].split("/")[1]) for line in traced("v1", folder / "v1")]
    assert numbers == sorted(numbers)


def test_nothing_is_written_in_the_folders(fleet):
    folder, _ = fleet
    before = content(folder)
    one("v1", "boot/0", folder / "server", folder / "v1")
    traced("v1", folder / "server", folder / "v1")
    assert content(folder) == before


def test_a_waiting_update_is_told_with_its_age(tmp_path, make_update):
    now = iter([0.0, 10.0, 10.0, 70.0, 70.0, 70.0, 70.0])
    outbox = Outbox(tmp_path / "outbox.db", now=lambda: next(now))
    for sequence in range(2):
        update = make_update(vehicle="v7", sequence=sequence, base_version=3)
        outbox.put(update, wire.encode(update))
    first, last = traced("v7", tmp_path)
    assert (first["outcome"], first["base"]) == ("waiting", 3)
    assert last["update"] == "b/1"
    assert one("v7", "b/0", tmp_path)["notes"][0]["age_s"] == 60
    with pytest.raises(Failed, match="did you mean v7"):
        run("v77", *states([tmp_path]))
    outbox.close()


def test_a_release_that_is_no_longer_kept_is_known_by_the_events(fleet, tmp_path):
    folder, _ = fleet
    shutil.copytree(folder / "server", tmp_path / "server")
    shutil.rmtree(tmp_path / "server" / "registry")
    assert one("v1", "boot/0", tmp_path / "server")["release"] == "1"


def test_a_run_of_the_simulator_is_read_from_its_events_alone(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    about = {"vehicle": "v1", "boot": "b", "sequence": 4, "base": 2, "staleness": 0, "bytes": 9}
    log.write("accepted", **about, row=1)
    log.write("released", version=3, sha256="ab")
    log.close()
    (line,) = traced("v1", tmp_path)
    assert (line["outcome"], line["release"], line["base"]) == ("accepted", "3", 2)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["v11"], "no vehicle 'v11' in .*: did you mean v1"),
        (["v1", "17"], "'17' names no update: expected BOOT/SEQUENCE"),
        (["v1", "boot/x"], "names no update"),
        (["v1", "boot/99999"], "no update boot/99999 of v1: did you mean boot/"),
        (["v1", "qqqqq/1"], "no update qqqqq/1 of v1: its newest are boot/"),
    ],
)
def test_what_is_not_there_is_one_line_with_the_nearest_names(fleet, words, named):
    folder, _ = fleet
    with pytest.raises(Failed, match=named):
        run(*words, *states([folder / "server"]))


def test_a_folder_of_another_kind_is_one_line(tmp_path):
    with pytest.raises(Failed, match=r"neither of a server .* nor of a vehicle"):
        run("v1", *states([tmp_path]))
    with pytest.raises(Failed, match="nowhere does not exist"):
        run("v1", *states([tmp_path / "nowhere"]))
    (tmp_path / "outbox.db").write_bytes(b"junk" * 1000)
    with pytest.raises(Failed, match=r"outbox .*outbox\.db cannot be read"):
        run("v1", *states([tmp_path]))
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "updates.sqlite").write_bytes(b"junk" * 1000)
    with pytest.raises(Failed, match=r"updates\.sqlite cannot be read"):
        run("v1", *states([tmp_path]))


def test_a_copy_has_what_is_committed_while_its_writer_goes_on(tmp_path, make_update):
    """The rows are in the write-ahead log, of which the file alone knows nothing."""

    async def scene():
        journal = Journal(tmp_path / "journal" / "updates.sqlite")
        for sequence in range(3):
            update = make_update(sequence=sequence)
            await journal.append(update, wire.encode(update))
        names = sorted(os.listdir(tmp_path / "journal"))
        with copied(journal.path) as copy, contextlib.closing(Journal(copy)) as reader:
            assert len(reader.rows(0, 9)) == 3
        assert sorted(os.listdir(tmp_path / "journal")) == names
        journal.close()

    asyncio.run(scene())


def notes(*told):
    return [Note(("b", 1), source, what, "f", at) for source, what, at in told]


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        ([("outbox", "waiting", None)], "waiting"),
        ([("outbox", "waiting", None), ("journal", "kept", 1.0)], "kept"),
        ([("outbox", "expired", None)], "expired"),
        ([("outbox", "expired", None), ("events", "accepted", 1.0)], "accepted"),
        ([("outbox", "duplicate", None)], "accepted"),
        ([("events", "refused", 1.0), ("events", "accepted", 2.0)], "accepted"),
        ([("events", "refused", 1.0), ("outbox", "waiting", None)], "refused"),
        ([("registry", "part of", 1.0)], "accepted"),
    ],
)
def test_what_an_update_came_to_follows_from_all_notes(told, outcome):
    (life,) = lives(
        [Note(n.name, n.source, n.what, n.folder, n.at_s, {"release": "x/1"}) for n in notes(*told)]
    )
    assert row(life)["outcome"] == outcome
