"""What an agent says and hears on the wire: signed, and in chunks."""

import asyncio

import numpy as np
import pytest

from fleetfl.codecs.int8 import Config as Int8
from fleetfl.protocol import topics, wire
from fleetfl.protocol.chunks import Assembler, split
from fleetfl.protocol.messages import MAX_NOTE, Receipt, Status, Update
from fleetfl.protocol.signing import Keyring, OneKey
from fleetfl.transport import TransportError, memory
from tests.agent_at_work import (
    BIG,
    LAYOUT,
    ME,
    SIGNED,
    Camera,
    HalfWayTo3,
    Idle,
    announce,
    big_server,
    holds,
    next_update,
    receive,
    running,
    server_at,
    signer,
    until,
)
from vehicle_agent.agent import Agent, Config
from vehicle_agent.ports import SensorAside, TrainerAside

pytestmark = pytest.mark.unit


def test_what_a_vehicle_says_is_signed_and_its_status_comes_first(outbox, tmp_path):
    """So a server that notes keys at their first use believes all of it, also what an earlier boot left."""
    keys = Keyring("f", tmp_path / "keys", first_use=True)

    async def scene():
        broker = memory.Broker()
        outbox.put(EARLIER, wire.encode(EARLIER, signer(1)))
        async with running(broker, outbox, me=SIGNED) as (_, server, uplink):
            await announce(server, server_at(0))
            said = [await asyncio.wait_for(believed(uplink), 10) for _ in range(2)]
            # Without a receipt it may go out again before there is a new one.
            while (update := await asyncio.wait_for(believed(uplink), 10)) == EARLIER:
                pass
        return [*said, update]

    async def believed(uplink):
        return wire.decode((await anext(uplink)).payload, keys)

    status, earlier, update = asyncio.run(scene())
    assert isinstance(status, Status)
    assert status.key == signer(1).public
    assert (earlier, update.sequence) == (EARLIER, 0)
    assert wire.decode(SIGNED.offline(), keys).state == "offline"


EARLIER = Update("v1", "earlier", 3, 0, LAYOUT.fingerprint, 8, 1, 1, 2, 0.5, "int8", b"")


def test_an_update_whose_signature_the_server_does_not_know_is_kept(outbox):
    """The operator may still list the key; until then the vehicle says what it waits for."""

    async def scene():
        broker = memory.Broker()
        async with running(broker, outbox, me=SIGNED, pause_s=60) as (agent, server, uplink):
            await announce(server, server_at(0))
            update = await next_update(uplink)
            receipt = Receipt("v1", update.boot, update.sequence, "refused", "signature", 0, 0)
            await server.publish(topics.receipt("f", "v1"), wire.encode(receipt))
            await until(lambda: "refuses this vehicle's signature" in agent.note)
            again = await next_update(uplink)
            assert again == update
            assert len(outbox) == 1
            await receive(server, update)
            await until(lambda: not len(outbox))

    asyncio.run(scene())


def test_with_a_server_key_only_the_server_is_believed(outbox, tmp_path):
    signer(9).write_public("server", tmp_path)
    server_key = OneKey("f", tmp_path / "server.pub")

    async def scene():
        broker = memory.Broker()
        settings = {"server_key": server_key, "pause_s": 60}
        async with running(broker, outbox, **settings) as (agent, server, uplink):
            await announce(server, server_at(3))
            await until(lambda: "frame of 'server' is not signed" in agent.note)
            await announce(server, server_at(3), by=signer(1))
            await until(lambda: "does not fit the frame and the key" in agent.note)
            assert agent.adoption.held is None
            await announce(server, server_at(3), by=signer(9))
            update = await next_update(uplink)
            assert update.base_version == 3
            receipt = Receipt("v1", update.boot, update.sequence, "accepted", "", 0, 1)
            await server.publish(topics.receipt("f", "v1"), wire.encode(receipt, signer(1)))
            await asyncio.sleep(0.05)
            assert len(outbox) == 1
            await server.publish(topics.receipt("f", "v1"), wire.encode(receipt, signer(9)))
            await until(lambda: not len(outbox))

    asyncio.run(scene())


def test_an_update_above_the_limit_goes_in_chunks(outbox):
    async def scene():
        broker = memory.Broker()
        settings = {"layout": BIG, "max_payload_bytes": 500, "pause_s": 60}
        async with running(broker, outbox, **settings) as (_, server, uplink):
            await announce(server, big_server())
            assembler, frame, num_chunks = Assembler(), None, 0
            while frame is None:
                packet = await asyncio.wait_for(anext(uplink), 2)
                if packet.topic.endswith("/update"):
                    assert len(packet.payload) <= 500
                    num_chunks += 1
                    frame = assembler.add("v1", packet.payload, 0.0)
            assert num_chunks > 1
            assert wire.decode(frame).sequence == 0
            assert frame == outbox.frame("boot", 0)

    asyncio.run(scene())


class Breaks:
    """A link on which the publish of this number, counted from 0, fails."""

    max_payload_bytes = 100

    def __init__(self, number):
        self.number, self.payloads = number, []

    async def publish(self, topic, payload, **_):
        if self.number == 0:
            self.number = -1
            raise TransportError("no PUBACK")
        self.number -= 1
        self.payloads.append(payload)


def test_after_a_break_chunks_go_on_where_it_was_and_a_repeat_is_whole(outbox):
    """300 bytes in chunks of 75 of data are four: two, a break, the other two; then all four again."""
    frame = bytes(300)
    link = Breaks(2)
    agent = Agent(
        Config(),
        ME,
        transport=link,
        sensor=SensorAside(Camera()),
        trainer=TrainerAside(Idle()),
        layout=LAYOUT,
        codec=Int8(),
        frames_per_update=1,
        outbox=outbox,
    )

    async def scene():
        with pytest.raises(TransportError):
            await agent.delivery._send(("boot", 0), frame)
        await agent.delivery._send(("boot", 0), frame)
        await agent.delivery._send(("boot", 0), frame)

    asyncio.run(scene())
    chunks = split(frame, 100)
    assert len(chunks) == 4
    assert link.payloads == [*chunks, *chunks]
    assert agent.delivery.num_bytes == sum(len(payload) for payload in link.payloads)


def test_snapshot_and_differences_in_chunks_are_followed(outbox):
    """Beside them are chunks that an older, larger snapshot left."""

    async def scene():
        server, broker = big_server(), memory.Broker()
        settings = {"layout": BIG, "trainer": Idle(), "max_waiting": 1}
        async with running(broker, outbox, **settings) as (agent, link, _):
            left = split(wire.encode(big_server("old").whole()), 500)
            for index, chunk in enumerate(left):
                await link.publish(topics.snapshot("f", index + 5), chunk, retain=True)
            await announce(link, server, limit=1000)
            await until(lambda: holds(agent, server))
            for _ in range(3):
                server.advance(server.vector + np.float32(1))
                await announce(link, server, limit=1000, slots_since=server.version - 1)
                await until(lambda: holds(agent, server))
            assert agent.note == ""

    asyncio.run(scene())


def test_a_long_note_is_cut_to_what_a_status_holds(outbox):
    agent = Agent(
        Config(),
        ME,
        transport=Breaks(-1),
        sensor=SensorAside(Camera()),
        trainer=TrainerAside(Idle()),
        layout=LAYOUT,
        codec=Int8(),
        frames_per_update=1,
        outbox=outbox,
    )
    agent.notes["release"] = "x" * 1000
    assert wire.decode(wire.encode(agent.status())).note == "x" * MAX_NOTE


class Wrecked(Camera):
    """A sensor that fails in some new way each time, and then has frames."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.note = ""

    def read(self, count):
        if not self.failures:
            return super().read(count)
        failure = self.failures.pop(0)
        self.note = f"frames passed over: 1 {failure!r}, caf\udce9.jpg"
        raise failure


def test_whatever_a_sensor_or_trainer_raises_is_noted_and_training_goes_on(outbox, caplog):
    """And what the sensor passed over is in the status, also if a name in it is no UTF-8."""
    sensor = Wrecked(RecursionError("deep"), MemoryError(), KeyError("x"), OSError(5, "I/O error"))

    class Trainer(HalfWayTo3):
        failures = [RuntimeError("no memory left")]  # noqa: RUF012

        def train(self, *given, **named):
            if self.failures:
                raise self.failures.pop()
            return super().train(*given, **named)

    async def scene():
        broker = memory.Broker()
        async with running(broker, outbox, sensor=sensor, trainer=Trainer(), resend_s=0.01) as (
            agent,
            server,
            uplink,
        ):
            await announce(server, server_at(0))
            update = await asyncio.wait_for(next_update(uplink), 10)
            return update, agent.status()

    update, status = asyncio.run(asyncio.wait_for(scene(), 30))
    for failure in ("RecursionError: deep", "MemoryError", "KeyError", "OSError"):
        assert f"no update: Wrecked: {failure}" in caplog.text
    assert "no update: RuntimeError: no memory left" in caplog.text
    assert update.sequence == 0
    assert r"caf\udce9.jpg" in status.note
    wire.encode(status)
