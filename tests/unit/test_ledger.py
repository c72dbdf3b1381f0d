"""What was counted is remembered exactly for as long as it could be counted again."""

import random

import msgspec
import numpy as np
import pytest

from fleetfl.aggregators.fedbuff import Config
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.coordination.coordinator import Coordinator, Refusal
from fleetfl.coordination.deduplication import WINDOW, Ledger
from fleetfl.server_optimizers.sgd import Config as OptimizerConfig
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit
LAYOUT = Layout((("w", (5,)),))


def test_it_knows_what_a_set_of_all_numbers_knows():
    """Numbers in no order, within the window of the highest: exact; below it: taken as seen."""
    dice, ledger, seen = random.Random(1), Ledger(), set()
    top = 0
    for _ in range(3000):
        top += dice.choice((0, 0, 0, 1, 2, WINDOW + 9) if dice.random() < 0.01 else (0, 0, 1))
        number = max(0, top - dice.randrange(WINDOW + 40))
        highest = max(seen, default=-1)
        expected = number in seen or (seen and number <= highest - WINDOW)
        assert ledger.knows("v", "b", number) == bool(expected)
        if not expected:
            ledger.add("v", "b", number, 0)
            seen.add(number)
    assert not ledger.knows("v", "c", 0)


def test_a_number_as_large_as_the_wire_takes_costs_no_memory():
    ledger = Ledger()
    ledger.add("v", "b", 0, 0)
    ledger.add("v", "b", 2**53, 0)
    assert ledger.entries["v", "b"].seen == 1
    assert ledger.knows("v", "b", 0)
    assert not ledger.knows("v", "b", 2**53 - 1)


def coordinator(max_staleness=3):
    return Coordinator(
        np.ones(5, np.float32),
        LAYOUT,
        Config(goal=1).build(5),
        OptimizerConfig().build(5),
        release_codec=Int8(),
        max_staleness=max_staleness,
    )


def test_thousands_of_boots_leave_only_those_that_max_staleness_takes(make_update):
    """A vehicle that restarts before each update. At 400, a base of 397 is the oldest that counts."""
    server, sizes = coordinator(), []
    for boot in range(400):
        update = make_update(
            np.full(5, 0.01),
            boot=str(boot),
            base_version=server.version,
            layout=LAYOUT.fingerprint,
        )
        assert server.submit(update).released
        sizes.append(len(msgspec.msgpack.encode(server.ledger.snapshot())))
    assert len(server.ledger.entries) == 3
    assert len(server.ledger.by_base) == 3
    assert sizes[-1] <= sizes[10] + 20


def test_what_is_forgotten_is_refused_also_by_a_server_that_takes_staler_updates_now(make_update):
    """Versions 0 to 9 were counted with a limit of 3; the same journal's next server has a limit of 100."""
    server = coordinator()
    updates = [
        make_update(np.full(5, 0.01), boot=str(n), base_version=n, layout=LAYOUT.fingerprint)
        for n in range(10)
    ]
    for update in updates:
        assert server.submit(update).released
    lenient = coordinator(max_staleness=100)
    lenient.restore(server.snapshot())
    outcomes = [lenient.submit(update) for update in updates]
    assert {(o.verdict, o.reason) for o in outcomes[:7]} == {("refused", Refusal.STALE)}
    assert {o.verdict for o in outcomes[7:]} == {"duplicate"}
    assert lenient.version == 10


def test_a_checkpoint_of_an_older_release_is_remembered_until_nothing_of_it_could_count():
    old = {"seen": [["v1", "b", [3, 5, 300]], ["v2", "c", [0]]]}
    ledger = Ledger()
    ledger.restore(old, version=40)
    known = [n for n in (3, 44, 45, 299, 300, 301) if ledger.knows("v1", "b", n)]
    assert known == [3, 44, 300]
    ledger.forget_before(40)
    assert ledger.knows("v2", "c", 0)
    again = Ledger()
    again.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(ledger.snapshot())), version=40)
    assert again.knows("v2", "c", 0)
    again.forget_before(41)
    assert not again.knows("v2", "c", 0)
