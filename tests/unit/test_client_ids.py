"""No two connections of any fleets are the same to a broker."""

import asyncio
import itertools
import re

import pytest

from actors.ports import free_ports
from fleetfl.protocol.messages import VEHICLE_PATTERN
from fleetfl.storage import client_ids
from vehicle_agent.config import VehicleConfig
from vehicle_agent.run import run

pytestmark = pytest.mark.unit


def test_names_of_fleets_vehicles_and_gateways_never_meet():
    names = ["depot", "depot-7", "7-x", "x", "gateway-0", "s", "v", "t", "0", "a-v-b", "-", "_"]
    ids = [client_ids.vehicle(fleet, name) for fleet, name in itertools.product(names, names)]
    ids += [client_ids.gateway(f, n, s) for f in names for n in range(2) for s in ("0", "v", "x")]
    ids += [client_ids.passing(fleet) for fleet in names]
    assert len(set(ids)) == len(ids)


def test_an_id_is_one_that_clouds_take_for_a_things_name():
    longest = client_ids.vehicle("f" * 60, "v" * 64)
    assert re.fullmatch(r"[a-zA-Z0-9:_-]{1,128}", longest)


@pytest.mark.parametrize("name", ["x:v", "x\n", "", "x" * 65, "é", "٣", "x y", "a/b", "+", "#"])
def test_no_name_holds_what_parts_an_id(name):
    assert re.search(VEHICLE_PATTERN, name) is None


def test_a_server_keeps_its_own_and_another_has_another(tmp_path):
    first = client_ids.server_of(tmp_path / "a")
    assert client_ids.server_of(tmp_path / "a") == first
    assert client_ids.server_of(tmp_path / "b") != first
    (tmp_path / "a" / client_ids.FILE).write_text("of:two\nlines")
    assert client_ids.server_of(tmp_path / "a").isalnum()


def test_a_new_vehicle_that_waits_for_its_broker_is_not_taken_for_one_of_earlier_code(
    tmp_path, model_config
):
    """Else its second start would connect under an id that no rule of the broker allows."""
    config = VehicleConfig(
        fleet="f",
        name="v",
        model=model_config,
        transport={"kind": "mqtt", "port": free_ports(1)[0]},
        state=tmp_path / "state",
        sensor={"kind": "image_folder", "root": tmp_path},
    )
    note = config.state / "session"

    async def scene():
        agent = asyncio.create_task(run(config))
        while not (note.exists() or agent.done()):
            await asyncio.sleep(0.02)
        agent.cancel()
        await agent

    asyncio.run(scene())
    assert note.read_text() == "f:v:v\n"
