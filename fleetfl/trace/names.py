"""Error messages for names that were not found, with the nearest known names."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from fleetfl.trace import Name, TraceError

SHOWN = 3


def unknown_vehicle(vehicle: str, known: Sequence[str], folders: Sequence[Path]) -> str:
    """Message about a vehicle without an update; `known` are the names of the vehicles in the folders."""
    where = ", ".join(map(str, folders))
    if vehicle in known:
        return f"{vehicle} is known in {where}, but no update of it"
    if not known:
        return f"no update of {vehicle!r:.80} in {where}, nor of any other vehicle"
    near = get_close_matches(vehicle, known, SHOWN, cutoff=0.5)
    if near:
        return f"no vehicle {vehicle!r:.80} in {where}: did you mean {' or '.join(near)}?"
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return f"no vehicle {vehicle!r:.80} in {where}: there are {', '.join(known[:SHOWN])}{more}"


def parsed(name: str) -> Name:
    """Boot and sequence of BOOT/SEQUENCE. Raises TraceError for anything else."""
    boot, _, sequence = name.rpartition("/")
    if not boot or not (sequence.isascii() and sequence.isdecimal()):
        raise TraceError(f"{name!r:.80} names no update: expected BOOT/SEQUENCE, such as 8fKx3w/17")
    return boot, int(sequence)


def shown(name: Name) -> str:
    """Name of an update as text, BOOT/SEQUENCE."""
    return f"{name[0]}/{name[1]}"


def unknown_update(name: Name, vehicle: str, known: Sequence[Name]) -> str:
    """Message about an update that is not there; `known` are the vehicle's updates, newest last."""
    near = get_close_matches(shown(name), [shown(each) for each in known], SHOWN, cutoff=0.6)
    if near:
        return f"no update {shown(name)} of {vehicle}: did you mean {' or '.join(near)}?"
    newest = ", ".join(shown(each) for each in known[-SHOWN:])
    return f"no update {shown(name)} of {vehicle}: its newest are {newest}"
