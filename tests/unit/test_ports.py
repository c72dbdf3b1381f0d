"""Ports that stay free until their server listens."""

import socket
from pathlib import Path

import pytest

from actors import ports
from actors.ports import free_ports

pytestmark = pytest.mark.unit


def test_ports_are_different_and_can_be_listened_on():
    found = free_ports(50)
    assert len(set(found)) == 50
    for port in found:
        with socket.socket() as server:
            # As servers do: connections of one that ended may linger at a port, and keep no server from it.
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", port))


def test_a_port_that_is_taken_is_not_given(monkeypatch):
    (taken,) = free_ports(1)
    monkeypatch.setattr(ports, "FIRST", taken)
    monkeypatch.setattr(ports, "LAST", taken)
    with socket.socket() as server:
        server.bind(("127.0.0.1", taken))
        server.listen()
        with pytest.raises(OSError, match=f"no free port from {taken}"):
            free_ports(1)


def test_no_outgoing_connection_takes_one():
    span = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(span.read_text().split()[0]) if span.exists() else 32_768
    assert first > ports.LAST
