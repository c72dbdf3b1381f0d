"""Names of topics. At most seven slashes, the limit of AWS IoT Core."""

from zlib import crc32

ROOT = "fleetfl/1"


def partition(vehicle: str, num_partitions: int) -> int:
    """Where a vehicle's updates go: always to one gateway, so that they stay in order."""
    return crc32(vehicle.encode()) % num_partitions


def update(fleet: str, vehicle: str, num_partitions: int) -> str:
    return f"{ROOT}/{fleet}/up/{partition(vehicle, num_partitions)}/{vehicle}/update"


def status(fleet: str, vehicle: str, num_partitions: int) -> str:
    return f"{ROOT}/{fleet}/up/{partition(vehicle, num_partitions)}/{vehicle}/status"


def uplink(fleet: str, number: int) -> str:
    """Filter for all that the vehicles of one partition say."""
    return f"{ROOT}/{fleet}/up/{number}/+/+"


def receipt(fleet: str, vehicle: str) -> str:
    return f"{ROOT}/{fleet}/down/{vehicle}/receipt"


def release(fleet: str) -> str:
    return f"{ROOT}/{fleet}/down/release"


def sender(topic: str) -> tuple[str, str]:
    """(vehicle, "update" or "status") of an uplink topic."""
    *_, vehicle, leaf = topic.split("/")
    return vehicle, leaf
