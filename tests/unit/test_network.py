"""The proxy between a client and a server: every byte in its order, but for the fault asked for."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest

from sim.chaos.tcp_proxy import proxy

pytestmark = pytest.mark.unit
PATIENCE_S = 20.0


@pytest.fixture
def echo():
    """A server that sends back what it gets, and closes when its client does; gives its address."""

    def answer(connection):
        with connection, contextlib.suppress(OSError):
            while received := connection.recv(65_536):
                connection.sendall(received)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


@pytest.fixture
def link(echo):
    with proxy(*echo) as made:
        yield made


def connected(link):
    return socket.create_connection((link.host, link.port), timeout=PATIENCE_S)


def received(client, num_bytes):
    parts = []
    while num_bytes > 0 and (part := client.recv(min(num_bytes, 65_536))):
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)


def exchanged(client, payload):
    """What comes back when the payload is sent while that is being read."""
    sending = threading.Thread(target=client.sendall, args=(payload,))
    sending.start()
    answer = received(client, len(payload))
    sending.join()
    return answer


def is_silent(client, seconds=0.3):
    """Nothing comes, and no end either."""
    client.settimeout(seconds)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(PATIENCE_S)
    return False


def payload(num_bytes):
    return np.random.default_rng(num_bytes).bytes(num_bytes)


@pytest.mark.parametrize(
    "conditions",
    [{}, {"delay_s": 0.05}, {"up_bytes_per_s": 2e6}, {"down_bytes_per_s": 2e6, "delay_s": 0.01}],
)
def test_every_byte_arrives_in_its_order(link, conditions):
    link.set(**conditions)
    sent = payload(1_000_000)
    with connected(link) as client:
        assert exchanged(client, sent) == sent


def test_an_ended_sender_still_gets_its_answer(link):
    with connected(link) as client:
        client.sendall(payload(100_000))
        client.shutdown(socket.SHUT_WR)
        assert received(client, 100_001) == payload(100_000)


def test_a_receiver_that_takes_its_time_gets_all_of_what_was_sent_before_the_end():
    sent = payload(3_000_000)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        proxy(*server.getsockname()) as link,
        connected(link) as client,
    ):
        client.shutdown(socket.SHUT_WR)
        far, _ = server.accept()
        sending = threading.Thread(target=lambda: (far.sendall(sent), far.close()))
        sending.start()
        time.sleep(0.3)
        assert received(client, len(sent) + 1) == sent
        sending.join()


def test_connections_do_not_mix(link):
    clients = [connected(link) for _ in range(8)]
    sent = [payload(50_000 + n) for n in range(8)]
    for client, each in zip(clients, sent, strict=True):
        threading.Thread(target=client.sendall, args=(each,)).start()
    for client, each in zip(clients, sent, strict=True):
        assert received(client, len(each)) == each
        client.close()


def test_a_throttled_way_takes_as_long_as_its_rate_says(link):
    """40,000 bytes at 80,000 a second: half a second, up and down alike."""
    for way in ("up_bytes_per_s", "down_bytes_per_s"):
        link.heal()
        link.set(**{way: 80_000})
        began = time.monotonic()
        with connected(link) as client:
            assert exchanged(client, payload(40_000)) == payload(40_000)
        assert time.monotonic() - began > 0.45


def test_two_connections_share_one_link(link):
    """2 x 20,000 bytes at 80,000 a second: half a second."""
    link.set(up_bytes_per_s=80_000)
    began = time.monotonic()
    with connected(link) as first, connected(link) as second:
        sending = [
            threading.Thread(target=exchanged, args=(c, payload(20_000))) for c in (first, second)
        ]
        for thread in sending:
            thread.start()
        for thread in sending:
            thread.join()
    assert time.monotonic() - began > 0.45


def test_a_delay_is_added_each_way(link):
    """0.2 s there and 0.2 s back."""
    link.set(delay_s=0.2)
    with connected(link) as client:
        began = time.monotonic()
        assert exchanged(client, b"x") == b"x"
        assert time.monotonic() - began > 0.39


def test_a_change_is_felt_by_what_is_already_on_its_way(link):
    link.set(delay_s=600.0, up_bytes_per_s=1.0)
    with connected(link) as client:
        client.sendall(payload(5_000))
        assert is_silent(client)
        link.heal()
        assert received(client, 5_000) == payload(5_000)


def test_a_tunnel_holds_everything_back_and_loses_nothing(link):
    with connected(link) as client:
        link.set(up_bytes_per_s=0.0)
        client.sendall(payload(5_000))
        assert is_silent(client)
        link.heal()
        assert received(client, 5_000) == payload(5_000)


def test_a_cut_ends_all_connections_and_new_ones_work(link):
    clients = [connected(link) for _ in range(3)]
    for client in clients:
        assert exchanged(client, b"x") == b"x"
    link.cut()
    for client in clients:
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        client.close()
    with connected(link) as client:
        assert exchanged(client, b"y") == b"y"


def test_refusing_leaves_those_alone_that_are_there(link):
    with connected(link) as old:
        assert exchanged(old, b"x") == b"x"
        link.set(refuses=True)
        with pytest.raises(ConnectionError), connected(link) as new:
            new.recv(1)
        assert exchanged(old, b"x") == b"x"
        link.heal()
        with connected(link) as new:
            assert exchanged(new, b"x") == b"x"


def test_a_half_open_connection_swallows_everything_for_good(link):
    with connected(link) as old:
        assert exchanged(old, b"x") == b"x"
        link.set(half_open=True)
        old.sendall(payload(5_000))
        with connected(link) as new:
            new.sendall(b"x")
            assert is_silent(old)
            assert is_silent(new)
            link.heal()
            old.sendall(b"x")
            assert is_silent(old)
            assert is_silent(new)
        with connected(link) as later:
            assert exchanged(later, b"x") == b"x"


def test_the_other_side_of_a_half_open_connection_is_told_nothing():
    with socket.create_server(("127.0.0.1", 0)) as server, proxy(*server.getsockname()) as link:
        client = connected(link)
        far, _ = server.accept()
        with far:
            client.sendall(b"x")
            assert far.recv(1) == b"x"
            link.set(half_open=True)
            client.close()
            assert is_silent(far)
            link.cut()
            with pytest.raises(ConnectionResetError):
                far.recv(1)


def test_without_a_server_behind_it_a_connection_is_reset():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        target = gone.getsockname()
    with proxy(*target) as link, pytest.raises(ConnectionResetError), connected(link) as client:
        client.recv(1)
