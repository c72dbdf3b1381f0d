"""The doctor asks a broker for no more than correct access rules allow, and says what is in the way."""

import socket
from pathlib import Path

import pytest

from actors.ports import free_ports
from fleetfl.cli.doctor import of_settings
from sim.processes.brokers import mosquitto

pytestmark = pytest.mark.broker
HASHED = (
    "$7$101$MDEyMzQ1Njc4OWFi$KPgQkZJjtJ1E7x01HCPCB0MU8uqgfdsfqOBz"
    "ZmKdo75WRL+51bHaPx1RJMzkJvhWlDdtjZ28/FE+bWkHrMAWVw=="
)
"""The password x, as mosquitto_passwd writes it."""
RULES = """
user server
topic read fleetfl/1/depot/up/+/+/+
topic readwrite fleetfl/1/depot/down/#
pattern write fleetfl/1/depot/up/+/%u/#
pattern read fleetfl/1/depot/down/%u/receipt
topic read fleetfl/1/depot/down/#
"""


def found(port: int, user: str, password: str = "x", **parts: object) -> tuple[str, str]:
    login = {"username": user, "password": password}
    tree = {"fleet": "depot", "transport": {"kind": "mqtt", "port": port, **login}, **parts}
    last = list(of_settings(tree, "x.yaml"))[-1]
    return last.state, last.found


def test_each_asks_for_its_own_branch_and_a_login_that_is_wrong_is_told(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text(RULES)
    (tmp_path / "users").write_text(
        "".join(f"{user}:{HASHED}\n" for user in ("server", "drone-01"))
    )
    extra = f"acl_file {tmp_path}/rules\npassword_file {tmp_path}/users\n"
    server = {"state": "s", "http": None}
    vehicle = {"name": "drone-01", "state": "s"}
    with mosquitto(tmp_path / "mosquitto", extra_config=extra) as broker:
        assert found(broker.port, "server", server=server)[0] == "ok"
        assert found(broker.port, "drone-01", vehicle=vehicle)[0] == "ok"
        # Mosquitto acknowledges what it then drops, so no more is claimed than that nothing was refused.
        state, told = found(broker.port, "drone-01", vehicle={**vehicle, "name": "drone-02"})
        assert (state, "refuses nothing" in told) == ("ok", True)
        state, told = found(broker.port, "drone-01", password="wr0ng", vehicle=vehicle)
    assert state == "bad"
    assert "the broker refused: Not authorized" in told
    assert "wr0ng" not in told


def test_no_broker_and_settings_that_are_none_are_told() -> None:
    port = free_ports(1)[0]
    state, told = found(port, "server", vehicle={"name": "v"})
    assert (state, "nothing listens at" in told) == ("bad", True)
    for parts in (
        {"server": None},
        {"server": {"http": 3}},
        {"server": {"http": {"port": "x"}}},
        {"server": {"http": None}, "transport": [4711]},
        {"server": {"http": None}, "transport": {"kind": "mqtt", "password": 4711}},
        {"vehicle": {"name": "a/b"}},
        {"sim": 3},
    ):
        last = list(of_settings({"fleet": "depot", **parts}, "x.yaml"))[-1]
        assert (last.state, last.what) == ("bad", "settings")
        assert "x.yaml: " in last.found
        assert "4711" not in last.found


def test_the_port_of_the_monitor_is_looked_at_too() -> None:
    """It is the one after the endpoint's, unless the settings say another."""
    port = free_ports(1)[0]
    with socket.create_server(("127.0.0.1", port)):
        for server in (
            {"http": {"port": port - 1}},
            {"http": {"port": 0}, "monitor": {"port": port}},
        ):
            taken = {f.what: f for f in of_settings({"server": server}, "x.yaml")}
            finding = taken[f"port 127.0.0.1:{port}"]
            assert (finding.state, "server.monitor.port" in finding.repair) == ("bad", True)


def test_a_folder_of_frames_that_is_not_there_is_told(tmp_path: Path) -> None:
    def frames(root: Path) -> list[tuple[str, str]]:
        sensor = {"kind": "image_folder", "root": str(root)}
        tree = {"vehicle": {"name": "v", "sensor": sensor}}
        return [(f.state, f.found) for f in of_settings(tree, "x.yaml") if f.what == "frames"]

    assert frames(tmp_path) == [("ok", str(tmp_path))]
    assert frames(tmp_path / "gone") == [("note", f"{tmp_path / 'gone'} is no folder")]
