"""Hosts as people write them, IPv6 among them, and no proxy for what is on this machine."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from pydantic import TypeAdapter, ValidationError

from actors.monitoring.monitor import Monitor, is_ready
from actors.monitoring.status import look
from actors.ports import free_ports
from fleetfl.protocol.addresses import Host, authority, family, is_loopback, unproxied, url_of
from fleetfl.transport.mqtt import Config as Mqtt

pytestmark = pytest.mark.unit


def test_urls_have_brackets_around_ipv6():
    assert authority("::1", 80) == "[::1]:80"
    assert authority("drone.local", 80) == "drone.local:80"
    assert url_of("::1", 8000) == "http://[::1]:8000"
    assert url_of("0.0.0.0", 8000) == "http://127.0.0.1:8000"
    assert url_of("::", 8000) == "http://[::1]:8000"
    assert Mqtt(host="::1").address == "[::1]:1883"


def test_a_host_may_stand_in_brackets_and_is_a_host_alone():
    host = TypeAdapter(Host)
    assert host.validate_python("[fe80::1%eth0]") == "fe80::1%eth0"
    for wrong in ("", "mqtt://x", "x:1883", "x/y", "a b", "x\n", "[::1]:1883"):
        with pytest.raises(ValidationError):
            host.validate_python(wrong)


def test_what_is_this_machine():
    assert all(map(is_loopback, ["localhost", "LocalHost.", "127.0.0.1", "127.9.9.9", "::1"]))
    assert not any(map(is_loopback, ["example.org", "10.0.0.1", "2001:db8::1", ""]))


def test_exceptions_from_the_proxy_are_added_to_those_there_are():
    told = unproxied({"NO_PROXY": "corp, localhost"}, ["10.0.0.7:6379"])
    assert told["no_proxy"] == told["NO_PROXY"]
    names = told["no_proxy"].split(",")
    assert names[:2] == ["corp", "localhost"]
    assert {"127.0.0.1", "::1", "10.0.0.7"} <= set(names)


@pytest.mark.parametrize(
    "address",
    ["fd00::5", "[fd00::5]", "[fd00::5]:6379", "ray://[fd00::5]:10001"],
)
def test_no_proxy_is_asked_for_a_host_however_its_address_is_written(address):
    assert "fd00::5" in unproxied({}, [address])["no_proxy"].split(",")
    named = address.replace("[fd00::5]", "head.fleet").replace("fd00::5", "head.fleet")
    assert "head.fleet" in unproxied({}, [named])["no_proxy"].split(",")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(host, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_ports(1)[0]}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, format, *args):
            pass

    class Listener(HTTPServer):
        address_family = family(host)

    port = free_ports(1, host=host)[0]
    with Listener((host, port), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert is_ready(url_of(host, port))
        server.shutdown()
    monitor = Monitor(None, dict, dict)
    port = free_ports(1, host=host)[0]
    with monitor.answering(host, port):
        assert look(url_of(host, port)).vehicles == []
