"""A server whose disk is full or read-only: no acknowledgement, no receipt, no damage, and on by itself."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.aggregator import AggregatorActor
from actors.call_coalescer import CallCoalescer
from actors.config import ServerConfig
from actors.gateway import Gateway
from fleetfl.codecs import decoder
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.events.event_log import EventReader
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import Receipt
from fleetfl.registry.adapter_file import write_adapter
from fleetfl.storage.journal import Journal, JournalError
from fleetfl.transport import memory
from fleetfl.vectors import Layout
from tests.small_disk import breaking_disk, fill, read_only, small_disk

pytestmark = pytest.mark.slow
LAYOUT = Layout((("w", (64, 32)),))
PATIENCE_S = 60.0
NUM = 12


def config_of(state: Path) -> ServerConfig:
    initial = state.with_name("zero.safetensors")
    write_adapter(initial, LAYOUT, np.zeros(LAYOUT.size, np.float32))
    return ServerConfig.model_validate(
        {
            "fleet": "f",
            "model": {"classes": ["a", "b"]},
            "transport": {"kind": "memory"},
            "state": state,
            "initial": initial,
            "aggregator": {"kind": "fedbuff", "goal": 3},
            "release": {"kind": "int8"},
            "checkpoint_s": 0,
        }
    )


@pytest.fixture
def config(tmp_path: Path) -> Iterator[ServerConfig]:
    """Of a server whose state is on a disk of two megabytes."""
    with small_disk(tmp_path / "state", 2) as state:
        yield config_of(state)


@pytest.fixture
def updates(make_update: Any) -> list[Any]:
    rng, codec = np.random.default_rng(3), decoder("int8", LAYOUT)
    return [
        make_update(
            codec="int8",
            body=codec.encode(rng.normal(size=LAYOUT.size).astype(np.float32)),
            layout=LAYOUT.fingerprint,
            sequence=n,
        )
        for n in range(NUM)
    ]


class Fleet:
    """A vehicle's link, and the receipts that came on it."""

    def __init__(self, broker: memory.Broker, link: Any) -> None:
        self.broker, self.link = broker, link
        self.receipts: dict[int, str] = {}

    async def send(self, updates: list[Any]) -> None:
        for update in updates:
            await self.link.publish(topics.update("f", "v1", 1), wire.encode(update))

    async def listen(self, receipts: Any) -> None:
        async for packet in receipts:
            packet.ack()
            receipt = wire.decode(packet.payload)
            assert isinstance(receipt, Receipt)
            self.receipts[receipt.sequence] = receipt.verdict


@contextlib.asynccontextmanager
async def serving(config: ServerConfig, aggregator: AggregatorActor) -> AsyncIterator[Fleet]:
    broker = memory.Broker()
    async with (
        broker.connect("gateway", clean_session=False) as link,
        broker.connect("v1") as vehicle,
        vehicle.subscribe(topics.receipt("f", "v1")) as receipts,
    ):
        async with link.subscribe(topics.uplink("f", 0)):
            pass  # the session has it from here on
        journal = Journal(config.journal_path)
        gateway = Gateway(
            "f",
            0,
            transport=link,
            journal=journal,
            outcome=CallCoalescer(aggregator.outcomes_of).answer,
            announcement=aggregator.announcement,
            events=aggregator.events,
            repair=aggregator.repair_journal,
            retry_s=0.05,
        )
        fleet = Fleet(broker, vehicle)
        tasks = [asyncio.create_task(w) for w in (gateway.run(), fleet.listen(receipts))]
        try:
            yield fleet
            assert not any(task.done() for task in tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            journal.close()


async def until(condition: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "never came true"
        await asyncio.sleep(0.02)


def without_faults(config: ServerConfig, updates: list[Any]) -> Coordinator:
    coordinator = Coordinator.from_settings(config, np.zeros(LAYOUT.size, np.float32), LAYOUT)
    for update in updates:
        coordinator.submit(update)
    return coordinator


def test_nothing_is_promised_on_a_full_disk_and_all_goes_on_when_there_is_room(
    config: ServerConfig, updates: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    aggregator = AggregatorActor(config)

    async def scene() -> None:
        async with serving(config, aggregator) as fleet:
            await fleet.send(updates[:4])
            await until(lambda: len(fleet.receipts) == 4)
            ballast = fill(config.state)
            await fleet.send(updates[4:])
            await until(lambda: "updates are not kept nor acknowledged" in caplog.text)
            await asyncio.sleep(0.5)
            kept = len(aggregator.journal.rows(0, 99))  # a little may have fitted in
            assert len(fleet.receipts) <= kept < NUM
            assert fleet.broker.num_unacknowledged("gateway") >= 1
            ballast.unlink()
            await until(lambda: len(fleet.receipts) == NUM)
            assert set(fleet.receipts.values()) == {"accepted"}
            await aggregator.saving.ended()

    asyncio.run(scene())
    assert str(config.journal_path) in caplog.text
    again = AggregatorActor(config)
    in_order = [wire.decode(kept.frame) for kept in again.journal.rows(0, 99)]
    assert sorted(in_order, key=str) == sorted(updates, key=str)
    expected = without_faults(config, in_order).published.sha256
    assert again.coordinator.published.sha256 == expected
    events = EventReader(config.state / "events.jsonl").read()
    counted = [e["sequence"] for e in events if e["event"] == "accepted"]
    assert len(counted) == len(set(counted))
    assert not list(config.state.rglob("*.damaged*"))


def test_an_aggregator_cannot_be_built_on_a_full_disk_and_has_the_same_bits_once_it_can(
    config: ServerConfig, updates: list[Any]
) -> None:
    """`cluster.lasting` builds it again and again."""
    first = AggregatorActor(config)

    async def keep() -> None:
        await asyncio.gather(*(first.journal.append(u, wire.encode(u)) for u in updates))

    asyncio.run(keep())
    first.journal.close()  # its shared memory is gone: whoever comes has to make it anew
    ballast = fill(config.state)
    with pytest.raises(JournalError, match=re.escape(str(config.journal_path))):
        AggregatorActor(config)
    ballast.unlink()
    published = AggregatorActor(config).coordinator.published
    assert published.sha256 == without_faults(config, updates).published.sha256


def test_a_read_only_disk_is_an_error_that_says_so_and_then_all_goes_on(
    config: ServerConfig, updates: list[Any]
) -> None:
    first = AggregatorActor(config)
    first.journal.close()
    first.events.close()
    with read_only(config.state):
        with pytest.raises(JournalError, match=re.escape(str(config.journal_path))):
            AggregatorActor(config)
        gateway = Journal(config.journal_path)
        with pytest.raises(JournalError, match=re.escape(str(config.journal_path))):
            asyncio.run(gateway.append(updates[0], wire.encode(updates[0])))
    assert asyncio.run(gateway.append(updates[0], wire.encode(updates[0]))).row == 1
    assert AggregatorActor(config).counted == 1


def test_a_disk_that_turns_read_only_under_a_server_costs_nothing_that_was_promised(
    tmp_path: Path, updates: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Until it is repaired there is no acknowledgement and no receipt; the next server goes on."""
    with breaking_disk(tmp_path / "state") as disk:
        config = config_of(disk.folder)
        first = AggregatorActor(config)

        async def breaks() -> dict[int, str]:
            async with serving(config, first) as fleet:
                await fleet.send(updates[:4])
                await until(lambda: len(fleet.receipts) == 4)
                disk.breaks()
                await fleet.send(updates[4:])
                await until(lambda: "updates are not kept nor acknowledged" in caplog.text)
                await asyncio.sleep(0.5)
                assert len(fleet.receipts) == 4
                assert fleet.broker.num_unacknowledged("gateway") >= 1
                return dict(fleet.receipts)

        promised = asyncio.run(breaks())
        first.journal.close()
        first.events.close()
        first.last_told.close()
        disk.is_repaired()
        second = AggregatorActor(config)
        kept = {wire.decode(row.frame).sequence for row in second.journal.rows(0, 99)}  # pyright: ignore
        assert set(promised) <= kept

        async def goes_on() -> dict[int, str]:
            async with serving(config, second) as fleet:
                await fleet.send(updates)
                await until(lambda: len(fleet.receipts) == NUM)
                return fleet.receipts

        receipts = asyncio.run(goes_on())
        assert {n for n, verdict in receipts.items() if verdict == "duplicate"} == kept
        assert {n for n, verdict in receipts.items() if verdict == "accepted"} == (
            set(range(NUM)) - kept
        )
        in_order = [wire.decode(row.frame) for row in second.journal.rows(0, 99)]
        expected = without_faults(config, in_order).published.sha256
        assert second.coordinator.published.sha256 == expected
        second.journal.close()
        second.events.close()
