"""A vehicle never waits for long without its status saying for what."""

import asyncio

import pytest

from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import Receipt, Status
from fleetfl.transport import memory
from tests.agent_at_work import announce, next_update, running, server_at, until

pytestmark = pytest.mark.unit


def test_one_update_without_an_answer_is_said_though_others_are_accepted(outbox):
    """resend_s is 0.05: said after 0.5 s, also right after a receipt that clears what was in the way."""

    async def scene():
        broker, seen = memory.Broker(), set()
        async with running(broker, outbox, max_waiting=50, pause_s=0.02, status_s=0.1) as (
            agent,
            server,
            uplink,
        ):
            await announce(server, server_at(1))
            oldest = None
            while oldest is None or "waits for more than 0.5 s" not in agent.note:
                update = await next_update(uplink)
                oldest = oldest or (update.boot, update.sequence)
                if (update.boot, update.sequence) != oldest and update.sequence not in seen:
                    seen.add(update.sequence)
                    receipt = Receipt("v1", update.boot, update.sequence, "accepted", "", 0, 1)
                    await server.publish(topics.receipt("f", "v1"), wire.encode(receipt))
            assert f"update {oldest[0]}/{oldest[1]} waits" in agent.note
            assert "the server has not answered" in agent.note
            await until(lambda: "waits for more than" in last_status(broker).note)
            receipt = Receipt("v1", *oldest, "accepted", "", 0, 1)
            await server.publish(topics.receipt("f", "v1"), wire.encode(receipt))
            await until(lambda: f"update {oldest[0]}/{oldest[1]} " not in agent.note)

    asyncio.run(scene())


def last_status(broker):
    frames = [frame for topic, frame in broker.retained.items() if topic.endswith("/status")]
    message = wire.decode(frames[0])
    assert isinstance(message, Status)
    return message


def test_a_vehicle_that_no_release_reaches_says_so(outbox):
    async def scene():
        async with running(memory.Broker(), outbox, resend_s=0.01) as (agent, server, _):
            await until(lambda: "no release came yet" in agent.note)
            await announce(server, server_at(1))
            await until(lambda: agent.note == "")

    asyncio.run(scene())
