"""Finds free TCP ports for servers that are started a moment later. Knows nothing of those servers.

A port that the kernel hands out for 0 lies in the range from which it serves outgoing connections too, so
until the server listens there, any connection on this machine may take it. These lie below that range, and
between those that Ray gives to its workers (10002 to 19999) and Serve to its replicas (from 30000).
"""

import contextlib
import random
import socket

from fleetfl.protocol.addresses import authority, family

FIRST, LAST = 20_000, 29_999
TRIES = 100
"""Random ports that are tried for each port asked for."""


def free_ports(count: int, *, host: str = "127.0.0.1") -> list[int]:
    """`count` different ports on `host` that nothing listens on. Raises OSError if fewer are found."""
    chance = random.SystemRandom()  # runs with a seed on one machine must not meet
    with contextlib.ExitStack() as held:
        found = [held.enter_context(_listening(host, chance)) for _ in range(count)]
        return [probe.getsockname()[1] for probe in found]


def _listening(host: str, chance: random.Random) -> socket.socket:
    for _ in range(TRIES):
        probe = socket.socket(family(host))
        # As servers do, so that connections of one that ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, chance.randint(FIRST, LAST)))
            probe.listen()
            return probe
        except OSError:  # taken, also by one of ours
            probe.close()
    raise OSError(
        f"no free port from {FIRST} to {LAST} on {authority(host, 0)[:-2]} in {TRIES} tries"
    )
