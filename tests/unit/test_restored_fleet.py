"""A server put back to what it was before: its fleet follows, and learns on, whatever was not restored."""

import asyncio
import contextlib
import shutil

import pytest

from actors.aggregator import AggregatorActor
from actors.call_coalescer import CallCoalescer
from actors.gateway import Gateway
from fleetfl.codecs.float32 import Config as Float32
from fleetfl.events.event_log import EventLog
from fleetfl.protocol.messages import SERVER
from fleetfl.protocol.signing import OneKey, Signer
from fleetfl.releases.generations import number_of
from fleetfl.storage.journal import Journal
from fleetfl.transport import memory
from tests.agent_at_work import Camera, HalfWayTo3, now, until
from tests.unit.test_recovery import LAYOUT, config_in, told
from vehicle_agent.agent import Agent, Config, Identity
from vehicle_agent.outbox import Outbox
from vehicle_agent.ports import SensorAside, TrainerAside

pytestmark = pytest.mark.unit


@contextlib.asynccontextmanager
async def serving(config, broker):
    aggregator = AggregatorActor(config)
    async with broker.connect("gateway", clean_session=False) as link:
        gateway = Gateway(
            "f",
            0,
            transport=link,
            journal=Journal(config.journal_path),
            outcome=CallCoalescer(aggregator.outcomes_of).answer,
            announcement=aggregator.announcement,
            events=EventLog(config.state / "events.jsonl"),
            keys=config.keys.build("f", config.state),
            signer=Signer.from_file("f", config.state / "key.pem"),
        )
        async with tasks(gateway.run(), aggregator.run()):
            yield aggregator
    await aggregator.saving.ended()


@contextlib.asynccontextmanager
async def tasks(*running):
    started = [asyncio.create_task(each) for each in running]
    try:
        yield
        assert not any(task.done() for task in started)
    finally:
        for task in started:
            task.cancel()
        await asyncio.gather(*started, return_exceptions=True)


@contextlib.asynccontextmanager
async def vehicle(name, folder, broker, key, *, outbox=None):
    box = Outbox(outbox or folder / f"{name}.db")
    async with broker.connect(name, clean_session=False) as link:
        agent = Agent(
            Config(resend_s=0.1, status_s=1, fetch_s=1, pause_s=0.005),
            Identity("f", name, "boot", signer=Signer.from_file("f", folder / f"{name}.pem")),
            transport=link,
            sensor=SensorAside(Camera(), now),
            trainer=TrainerAside(HalfWayTo3(), work=now),
            layout=LAYOUT,
            codec=Float32(),
            frames_per_update=4,
            outbox=box,
            server_key=OneKey("f", key),
            work=now,
        )
        async with tasks(agent.run()):
            yield agent
    box.close()


@pytest.mark.parametrize("witness", ["mark", "broker", "vehicles"])
def test_a_fleet_that_is_ahead_of_its_server_goes_on_by_itself(tmp_path, monkeypatch, witness):
    """Backup at version 2 or so, host lost at 6 or more. The mark of a restore does it, or, for a folder that
    was copied by hand, the release that the broker has with the server's own signature.
    """
    monkeypatch.setattr("actors.announcer.FIRST_LOOK_S", 0.05)
    state = tmp_path / "server"
    state.mkdir()
    config = config_in(state, aggregator={"kind": "fedbuff", "goal": 2})
    Signer.from_file("f", state / "key.pem").write_public(SERVER, state)
    shutil.copy(state / "server.pub", tmp_path / "server.pub")

    async def scene():
        broker = memory.Broker()
        async with contextlib.AsyncExitStack() as stack:
            async with serving(config, broker) as server:
                agents = [
                    await stack.enter_async_context(
                        vehicle(name, tmp_path, broker, tmp_path / "server.pub")
                    )
                    for name in ("v1", "v2")
                ]
                await until(lambda: server.coordinator.version >= 2, 60)
            shutil.copytree(state, tmp_path / "copy")
            async with serving(config, broker) as server:
                await until(lambda: all(a.adoption.held.version >= 6 for a in agents), 60)
            shutil.rmtree(state)
            shutil.copytree(tmp_path / "copy", state)
            if witness != "broker":
                for topic in list(broker.retained):
                    broker.retained.clear_topic(topic)
            if witness == "mark":
                config.restored_path.write_text("{}")
            async with serving(config, broker) as server:
                before = server.coordinator.version
                assert before < 6
                await until(lambda: server.coordinator.version >= before + 3, 60)
                generation = server.snapshot.generation
                assert number_of(generation) == 2
                await until(
                    lambda: all(a.adoption.held.generation == generation for a in agents), 60
                )
                await until(lambda: all(a.note == "" for a in agents), 60)
        (began,) = told(config, "generation_began")
        assert ("restored" if witness == "mark" else "is out already") in began["why"]

    asyncio.run(scene())
