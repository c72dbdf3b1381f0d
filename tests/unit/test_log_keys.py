"""Every line of a log about an update names it by the same keys, at the vehicle and at the server."""

import asyncio
import logging
import re

import pytest
from msgspec.structs import replace

from fleetfl.protocol import topics, wire
from fleetfl.protocol.log_keys import log_keys
from fleetfl.protocol.messages import SERVER, Receipt, Update
from fleetfl.protocol.signing import Signer
from fleetfl.protocol.wire import Named
from fleetfl.transport import memory
from tests.agent_at_work import announce, next_update, running, until
from tests.agent_at_work import server_at as releases_up_to
from tests.agent_at_work import signer as stranger
from tests.unit.test_recovery import config_in
from tests.unit.test_restored_fleet import serving, vehicle
from vehicle_agent.outbox import Config as OutboxConfig
from vehicle_agent.outbox import Outbox

pytestmark = pytest.mark.unit
KEYS = re.compile(r"vehicle=\S+ boot=\S+ seq=\d+ base=-?\d+")


def lines(caplog, package, word=""):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith(package) and record.getMessage().startswith(word)
    ]


def test_the_server_names_what_it_accepted_met_again_and_refused(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    config = config_in(tmp_path, aggregator={"kind": "fedbuff", "goal": 2})
    Signer.from_file("f", config.state / "key.pem").write_public(SERVER, config.state)

    async def scene():
        broker = memory.Broker()
        async with serving(config, broker) as server:
            async with vehicle("v1", tmp_path, broker, config.state / "server.pub"):
                await until(lambda: server.coordinator.version >= 1, 60)
            (first,) = server.journal.rows(0, 1)
            known = wire.decode(first.frame)
            assert isinstance(known, Update)
            signer = Signer.from_file("f", tmp_path / "v1.pem")
            strange = replace(known, sequence=900, layout=b"another1", parts=b"")
            async with broker.connect("v1-again") as link:
                topic = topics.update("f", "v1", 1)
                await link.publish(topic, first.frame)
                await link.publish(topic, wire.encode(strange, signer))
                await link.publish(topic, wire.encode(replace(strange, sequence=901), stranger(9)))
                await until(lambda: len(lines(caplog, "actors", "refused")) == 2)
                await until(lambda: lines(caplog, "actors", "duplicate"))
        return known

    known = asyncio.run(scene())
    keys = f"vehicle=v1 boot=boot seq={known.sequence} base={known.base_version} "
    assert keys in lines(caplog, "actors", "accepted")[0]
    (again,) = lines(caplog, "actors", "duplicate")
    assert keys in again
    judged, unbelieved = sorted(lines(caplog, "actors", "refused"), reverse=True)
    assert f"vehicle=v1 boot=boot seq=900 base={known.base_version} " in judged
    assert "(layout)" in judged
    assert "(signature) vehicle=v1 boot=boot seq=901 base=-1: " in unbelieved
    assert lines(caplog, "vehicle_agent", "trained")
    assert keys in lines(caplog, "vehicle_agent", "accepted")[0]
    assert_all_are_whole(caplog)


def test_the_vehicle_names_what_was_refused_and_what_expired(tmp_path, caplog):
    """Room for two: the third update in the box lets the oldest go."""
    caplog.set_level(logging.INFO)
    outbox = Outbox(tmp_path / "outbox.db", OutboxConfig(max_updates=2))

    async def scene():
        async with running(memory.Broker(), outbox, max_waiting=4) as (_, server, uplink):
            await announce(server, releases_up_to(2))
            update = await next_update(uplink)
            receipt = Receipt("v1", update.boot, update.sequence, "refused", "body", 0, 2, "odd")
            await server.publish(topics.receipt("f", "v1"), wire.encode(receipt))
            await until(lambda: lines(caplog, "vehicle_agent", "refused"))
            await until(lambda: lines(caplog, "vehicle_agent", "expired"))

    asyncio.run(scene())
    outbox.close()
    assert " vehicle=v1 boot=boot seq=0 base=2 " in lines(caplog, "vehicle_agent", "refused")[0]
    assert " vehicle=v1 boot=boot seq=1 base=2 " in lines(caplog, "vehicle_agent", "expired")[0]
    assert_all_are_whole(caplog)


def assert_all_are_whole(caplog):
    for line in [*lines(caplog, "actors"), *lines(caplog, "vehicle_agent")]:
        assert "seq=" not in line or KEYS.search(line), line


def test_what_a_stranger_chooses_begins_no_line_of_its_own():
    keys = log_keys(Named(1, "v1", "b\nrefused vehicle=v2", 3))
    assert keys == r'vehicle=v1 boot="b\nrefused vehicle=v2" seq=3 base=-1'
    assert len(log_keys(Named(1, "v1", "b" * 10_000, 3))) < 120
