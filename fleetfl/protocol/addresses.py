"""Hosts and ports as people and URLs write them, IPv6 included, and the hosts to reach without a proxy."""

import ipaddress
import socket
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field


def _bare(host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if any(c.isspace() or c in "/@[]" for c in host) or "://" in host:
        raise ValueError(f"got {host!r:.80}, expected the name or address of a host alone")
    if not is_ipv6(host) and ":" in host:
        raise ValueError(
            f"got {host!r:.80}, expected a host alone; the port is a setting of its own"
        )
    return host


Host = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_bare)]
"""Name or address of a host; IPv6 with or without brackets."""


def is_ipv6(host: str) -> bool:
    """Whether `host` is an IPv6 address, such as `::1`."""
    try:
        return ipaddress.ip_address(host.split("%", maxsplit=1)[0]).version == 6
    except ValueError:
        return False


def family(host: str) -> socket.AddressFamily:
    """Address family of a socket that listens at `host`."""
    return socket.AF_INET6 if is_ipv6(host) else socket.AF_INET


def authority(host: str, port: int) -> str:
    """Host and port as a URL has them, `host:port`, with brackets about IPv6."""
    return f"[{host}]:{port}" if is_ipv6(host) else f"{host}:{port}"


def url_of(host: str, port: int) -> str:
    """URL by which a client on this machine reaches an HTTP server that listens at `host`."""
    # "All addresses" is none that can be asked.
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://{authority(reachable, port)}"


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine itself, by whatever name."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.split("%", maxsplit=1)[0]).is_loopback
    except ValueError:
        return False


def opener(url: str) -> urllib.request.OpenerDirector:
    """An opener for the URL: without a proxy if it is of this machine, else as the environment says."""
    if is_loopback(urlsplit(url).hostname or ""):
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener()


def unproxied(environment: Mapping[str, str], hosts: Iterable[str] = ()) -> dict[str, str]:
    """Environment variables that exempt this machine and `hosts` from proxies, besides those exempt
    already.
    """
    ours = ["localhost", "127.0.0.1", "::1", *own_addresses()]
    ours += [_host_of(address) for address in hosts if address]
    before = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = dict.fromkeys([*filter(None, (n.strip() for n in before.split(","))), *ours])
    return dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(names))


def _host_of(address: str) -> str:
    """Host of an address as exceptions from proxies name it: without scheme, port and brackets."""
    host = address.rpartition("://")[2]
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if is_ipv6(host) else host.rsplit(":", 1)[0]


def own_addresses() -> list[str]:
    """Host name and addresses by which processes on this machine may reach each other."""
    found = [socket.gethostname()]
    for kind, far in ((socket.AF_INET, "8.8.8.8"), (socket.AF_INET6, "2001:4860:4860::8888")):
        # No packet is sent: the kernel says from where one would be. Ray asks in this way.
        try:
            with socket.socket(kind, socket.SOCK_DGRAM) as probe:
                probe.connect((far, 53))
                found.append(str(probe.getsockname()[0]))
        except OSError:
            continue
    return found
