"""Names of topics. At most seven slashes, the limit of AWS IoT Core."""

from zlib import crc32

ROOT = "fleetfl/1"
PROOF = "proof"
RING = 32
"""Releases that stay on the broker, each in the slot of its version."""


def partition(vehicle: str, num_partitions: int) -> int:
    """Where a vehicle's updates go: always to one gateway, so that they stay in order."""
    return crc32(vehicle.encode()) % num_partitions


def update(fleet: str, vehicle: str, num_partitions: int) -> str:
    return f"{ROOT}/{fleet}/up/{partition(vehicle, num_partitions)}/{vehicle}/update"


def status(fleet: str, vehicle: str, num_partitions: int) -> str:
    return f"{ROOT}/{fleet}/up/{partition(vehicle, num_partitions)}/{vehicle}/status"


def proof(fleet: str, vehicle: str, num_partitions: int) -> str:
    """For a release with the server's own signature that is later than what the server now offers."""
    return f"{ROOT}/{fleet}/up/{partition(vehicle, num_partitions)}/{vehicle}/{PROOF}"


def uplink(fleet: str, number: int) -> str:
    """Filter for all that the vehicles of one partition say."""
    return f"{ROOT}/{fleet}/up/{number}/+/+"


def receipt(fleet: str, vehicle: str) -> str:
    return f"{ROOT}/{fleet}/down/{vehicle}/receipt"


def release(fleet: str) -> str:
    """Retained: the newest release."""
    return f"{ROOT}/{fleet}/down/release"


def release_slot(fleet: str, version: int, index: int) -> str:
    """Retained: chunk `index` of this release, until the one RING versions later; 0 if it is whole."""
    return f"{ROOT}/{fleet}/down/release/{version % RING}/{index}"


def release_slot_chunks(fleet: str, version: int) -> str:
    """Filter for all chunks of this release."""
    return f"{ROOT}/{fleet}/down/release/{version % RING}/+"


def snapshot(fleet: str, index: int) -> str:
    """Retained: chunk `index` of the newest snapshot; 0 if it is whole."""
    return f"{ROOT}/{fleet}/down/snapshot/{index}"


def snapshot_chunks(fleet: str) -> str:
    """Filter for all chunks of the newest snapshot."""
    return f"{ROOT}/{fleet}/down/snapshot/+"


def sender(topic: str) -> tuple[str, str]:
    """(vehicle, "update", "status" or PROOF) of an uplink topic."""
    *_, vehicle, leaf = topic.split("/")
    return vehicle, leaf
