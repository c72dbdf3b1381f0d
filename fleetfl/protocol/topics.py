"""Names of topics. At most seven slashes, the limit of AWS IoT Core."""

from zlib import crc32

ROOT = "fleetfl/1"
PROOF = "proof"
RING = 32
"""Number of releases that stay on the broker, each in the slot of its version."""


def partition(vehicle: str, num_partitions: int) -> int:
    """Partition of a vehicle: its updates always go to one gateway, so that they stay in order."""
    return crc32(vehicle.encode()) % num_partitions


def update(fleet: str, vehicle: str, num_partitions: int) -> str:
    """Topic of a vehicle's updates."""
    return f"{ROOT}/{fleet}/up/{partition(vehicle, num_partitions)}/{vehicle}/update"


def status(fleet: str, vehicle: str, num_partitions: int) -> str:
    """Topic of a vehicle's retained status."""
    return f"{ROOT}/{fleet}/up/{partition(vehicle, num_partitions)}/{vehicle}/status"


def proof(fleet: str, vehicle: str, num_partitions: int) -> str:
    """Topic on which a vehicle shows a release, signed by the server, later than any that the server
    offers.
    """
    return f"{ROOT}/{fleet}/up/{partition(vehicle, num_partitions)}/{vehicle}/{PROOF}"


def uplink(fleet: str, number: int) -> str:
    """Filter for all topics on which the vehicles of one partition publish."""
    return f"{ROOT}/{fleet}/up/{number}/+/+"


def receipt(fleet: str, vehicle: str) -> str:
    """Topic of the receipts for a vehicle's updates."""
    return f"{ROOT}/{fleet}/down/{vehicle}/receipt"


def release(fleet: str) -> str:
    """Topic of the newest release, retained."""
    return f"{ROOT}/{fleet}/down/release"


def release_slot(fleet: str, version: int, index: int) -> str:
    """Topic of chunk `index` of a release, retained until the one RING versions later; 0 if it is whole."""
    return f"{ROOT}/{fleet}/down/release/{version % RING}/{index}"


def release_slot_chunks(fleet: str, version: int) -> str:
    """Filter for all chunks of one release."""
    return f"{ROOT}/{fleet}/down/release/{version % RING}/+"


def snapshot(fleet: str, index: int) -> str:
    """Topic of chunk `index` of the newest snapshot, retained; 0 if it is whole."""
    return f"{ROOT}/{fleet}/down/snapshot/{index}"


def snapshot_chunks(fleet: str) -> str:
    """Filter for all chunks of the newest snapshot."""
    return f"{ROOT}/{fleet}/down/snapshot/+"


def sender(topic: str) -> tuple[str, str]:
    """Vehicle and leaf of an uplink topic; the leaf is "update", "status" or PROOF."""
    *_, vehicle, leaf = topic.split("/")
    return vehicle, leaf
