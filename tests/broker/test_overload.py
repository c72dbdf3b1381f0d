"""More updates than the aggregator can count: they wait in the broker, and none is lost."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from actors.call_coalescer import CallCoalescer
from actors.gateway import Gateway
from fleetfl.coordination.coordinator import Outcome
from fleetfl.events.event_log import EventLog
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import Receipt, Update
from fleetfl.releases.generations import Order
from fleetfl.storage.journal import Journal
from fleetfl.transport.mqtt import Config as Mqtt
from sim.processes.brokers import Broker

pytestmark = pytest.mark.broker
FLEET = "f"
NUM_UPDATES, NUM_VEHICLES = 400, 4
IN_FLIGHT = 8
PATIENCE_S = 60.0


class SlowAggregator:
    """Counts nothing before it is `open`, then a row in 2 ms."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.most_asked = 0

    async def outcomes(self, rows: list[int]) -> list[Outcome | Exception]:
        self.most_asked = max(self.most_asked, len(rows))
        await self.open.wait()
        await asyncio.sleep(0.002 * len(rows))
        return [Outcome("accepted", 0) for _ in rows]

    async def announcement(self, _than: Order) -> None:
        await asyncio.Event().wait()


def update(number: int) -> Update:
    return Update(
        vehicle=f"v{number % NUM_VEHICLES}",
        boot="b",
        sequence=number // NUM_VEHICLES,
        base_version=0,
        layout=bytes(8),
        num_examples=1,
        local_steps=1,
        captured_from=0,
        captured_to=1,
        loss=1.0,
        codec="int8",
        body=bytes(1_000),
    )


def test_a_stalled_aggregator_holds_the_rest_in_the_broker_and_nothing_is_lost(
    broker: Broker, tmp_path: Path
) -> None:
    """8 may be under judgement: so many are in the journal while it stalls, and 400 in the end.

    It stalls for longer than NATS waits (1 s) before it sends again what is not acknowledged.
    """
    mqtt, journal = Mqtt(port=broker.port), Journal(tmp_path / "journal.sqlite")
    updates = [update(number) for number in range(NUM_UPDATES)]

    async def scenario() -> None:
        slow = SlowAggregator()
        async with (
            mqtt.connect("gateway", clean_session=False) as link,
            mqtt.connect("fleet") as fleet,
            fleet.subscribe(topics.receipt(FLEET, "+")) as receipts,
        ):
            async with link.subscribe(topics.uplink(FLEET, 0)):
                pass  # the session has it from here on
            gateway = Gateway(
                FLEET,
                0,
                transport=link,
                journal=journal,
                outcome=CallCoalescer(slow.outcomes).answer,
                announcement=slow.announcement,  # type: ignore[arg-type]
                events=EventLog(tmp_path / "events.jsonl"),
                max_in_flight=IN_FLIGHT,
            )
            running = asyncio.create_task(gateway.run())
            await asyncio.gather(
                *(
                    fleet.publish(topics.update(FLEET, u.vehicle, 1), wire.encode(u))
                    for u in updates
                )
            )
            await asyncio.sleep(2.5)
            assert len(journal.rows(0, NUM_UPDATES)) == IN_FLIGHT
            slow.open.set()
            answered = set()
            while len(answered) < NUM_UPDATES:
                packet = await anext(receipts)
                packet.ack()
                receipt = wire.decode(packet.payload)
                assert isinstance(receipt, Receipt)
                answered.add((receipt.vehicle, receipt.boot, receipt.sequence))
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            assert answered == {(u.vehicle, u.boot, u.sequence) for u in updates}
            assert slow.most_asked <= IN_FLIGHT

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))
    kept = [wire.decode(row.frame) for row in journal.rows(0, 2 * NUM_UPDATES)]
    assert sorted(kept, key=str) == sorted(updates, key=str)
