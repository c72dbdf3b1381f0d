"""A ban is a row of the journal: from it on nothing of that vehicle counts, after any restart."""

import asyncio
import contextlib
import threading

import numpy as np
import pytest
from typer.testing import CliRunner

from actors.aggregator import AggregatorActor
from actors.startup import set_aside
from fleetfl.cli import app
from fleetfl.codecs import decoder
from fleetfl.protocol import wire
from fleetfl.protocol.messages import SERVER, Ban
from fleetfl.protocol.signing import Signer
from fleetfl.registry import ban
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
    """Of two vehicles in turn."""
    rng = np.random.default_rng(3)
    codec = decoder("int8", LAYOUT)
    return [
        make_update(
            codec="int8",
            body=codec.encode((0.001 * rng.normal(size=20)).astype(np.float32)),
            layout=LAYOUT.fingerprint,
            vehicle=("good", "bad")[n % 2],
            sequence=n,
        )
        for n in range(24)
    ]


def counted(aggregator, updates):
    return outcomes_of(aggregator, *keep(aggregator.journal, updates))


def ask(aggregator, name, **fields):
    row = asyncio.run(ban.ask(aggregator.config.state, name, **fields))
    while aggregator.judge.count(64):
        pass
    return row


def test_from_its_row_on_nothing_of_a_banned_vehicle_counts(config, updates):
    aggregator = AggregatorActor(config)
    assert {o.verdict for o in counted(aggregator, updates[:4])} == {"accepted"}
    row = ask(aggregator, "bad", reason="sends noise")
    outcomes = counted(aggregator, updates[4:10])
    assert [o.verdict for o in outcomes] == ["accepted", "refused"] * 3
    assert {(o.reason.value, o.detail) for o in outcomes[1::2]} == {("banned", "sends noise")}
    (event,) = told(config, "vehicle_banned")
    assert (event["row"], event["vehicle"], event["why"]) == (row, "bad", "sends noise")
    (metric,) = [
        m for m in asyncio.run(aggregator.measured()) if m.name == "fleetfl_banned_vehicle"
    ]
    assert [sample.labels for sample in metric.samples] == [{"vehicle": "bad"}]


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_ban_outlives_the_server_and_is_lifted_by_another_row(config, updates, checkpoint):
    first = AggregatorActor(config)
    counted(first, updates[:4])
    ask(first, "bad")
    if checkpoint:
        first.state.keep()
    second = AggregatorActor(config)
    outcomes = counted(second, updates[4:8])
    assert [o.verdict for o in outcomes] == ["accepted", "refused"] * 2
    assert len(told(config, "vehicle_banned")) == 1
    assert ban.in_force(config.state) == {"bad": ""}
    ask(second, "bad", is_banned=False)
    assert {o.verdict for o in counted(second, updates[8:12])} == {"accepted"}
    assert ban.in_force(config.state) == {}
    third = AggregatorActor(config)
    assert end(third.coordinator) == end(second.coordinator)


def test_a_server_that_begins_anew_knows_no_bans_and_lists_none(config, updates):
    """They are rows of the journal, which was set aside."""
    first = AggregatorActor(config)
    ask(first, "bad", reason="stolen")
    assert ban.in_force(config.state) == {"bad": "stolen"}
    aside = set_aside(config)
    assert aside is not None
    assert {o.verdict for o in counted(AggregatorActor(config), updates[:4])} == {"accepted"}
    assert ban.in_force(config.state) == {}
    assert ban.in_force(aside) == {"bad": "stolen"}


def test_a_row_that_the_servers_key_has_not_signed_bans_nobody(config, updates):
    aggregator = AggregatorActor(config)
    forged = Ban("x", "good", True, "")
    stranger = Signer.from_file(config.fleet, config.state / "other.pem")

    async def append():
        await aggregator.journal.append(forged, wire.encode(forged, stranger))

    asyncio.run(append())
    assert {o.verdict for o in counted(aggregator, updates[:4])} == {"accepted"}
    (event,) = told(config, "ban_refused")
    assert event["vehicle"] == "good"


def test_bans_by_the_command_line(config, updates):
    """No server runs: the row waits, and counts when one is started."""
    counted(AggregatorActor(config), updates[:1])
    state = str(config.state)
    asked = CliRunner().invoke(
        app, ["vehicle", "ban", "bad", "--reason", "fog", "--state", state, "--wait", "0"]
    )
    assert (asked.exit_code, "when one is started" in asked.output) == (0, True)
    AggregatorActor(config)
    again = CliRunner().invoke(app, ["vehicle", "bans", "--state", state])
    assert again.output == "bad: fog\n"
    CliRunner().invoke(app, ["vehicle", "unban", "bad", "--state", state, "--wait", "0"])
    AggregatorActor(config)
    assert CliRunner().invoke(app, ["vehicle", "bans", "--json", "--state", state]).output == "{}\n"


def command(config, *words):
    """What a person reads."""
    argv = ["vehicle", *words, "--state", str(config.state)]
    return CliRunner().invoke(app, argv).output


def test_a_folder_that_is_no_servers_does_not_say_that_nobody_is_banned(config):
    AggregatorActor(config)
    assert command(config, "bans") == "no vehicle is banned\n"
    words = ["vehicle", "bans", "--state", str(config.state / "misspelt")]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1
    assert "misspelt" in str(refused.exception)


def test_a_ban_that_may_be_for_a_misspelt_name_says_so(config):
    """A name whose key is there needs no remark; one that has none may be another's, misspelt."""
    (config.state / "keys").mkdir()
    (config.state / "keys" / "drone-07.pub").touch()
    with running(config):
        assert "note:" not in command(config, "ban", "drone-07")
        assert "no key of drone-70; is the name right?" in command(config, "ban", "drone-70")
        assert "drone-07 is no longer banned" in command(config, "unban", "drone-07")
        assert "drone-07 was not banned" in command(config, "unban", "drone-07")


@contextlib.contextmanager
def running(config):
    """A server that counts what is asked of it, in a thread of its own."""
    aggregator, stop = AggregatorActor(config), threading.Event()

    def count():
        while not stop.wait(0.02):
            while aggregator.judge.count(64):
                pass

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_name_that_no_vehicle_has_is_refused_before_it_is_a_row(config):
    AggregatorActor(config)
    with pytest.raises(wire.UnsendableError):
        asyncio.run(ban.ask(config.state, "no/vehicle"))
