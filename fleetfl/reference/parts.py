"""Parts of a file of settings: entry points of the group `fleetfl.settings`, one for each part.

An entry point `server = "actors.config:ServerConfig"` names the schema of the part `server`. A part that has
several, as `sim` has one for each clock, gives the others a name behind a hyphen: `sim-virtual`.
"""

import difflib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fleetfl.config import ConfigError, Section
from fleetfl.fleet_config import FleetConfig

GROUP = "fleetfl.settings"
SHARED = "fleet"
"""Name of the settings at the top level of a file, which all parts share."""


def part_names() -> list[str]:
    """Names for `schema_of`: the shared settings first, then each part that an installed package has."""
    return [SHARED, *sorted(_points())]


def schema_of(part: str) -> dict[str, Any]:
    """JSON schema of one part with the shared settings in it, as the part's process validates them.

    Raises ConfigError if there is no such part, or if what it needs is not installed.
    """
    return FleetConfig.model_json_schema() if part == SHARED else _loaded(part).model_json_schema()


def own_fields(part: str) -> list[str]:
    """Names of the fields that are the part's alone, in the order of its source."""
    fields = FleetConfig.model_fields if part == SHARED else _loaded(part).model_fields
    return [name for name in fields if part == SHARED or name not in FleetConfig.model_fields]


def schema_of_file() -> dict[str, Any]:
    """JSON schema of a whole file of settings, for editors: shared settings at its top, and a table a part.

    Nothing is required in it, since a file may extend another one.
    """
    top = {**schema_of(SHARED)}
    defs: dict[str, Any] = dict(top.pop("$defs", {}))
    tables: dict[str, list[dict[str, Any]]] = {}
    for part in part_names()[1:]:
        schema = _renamed(schema_of(part), part)
        defs.update(schema.pop("$defs", {}))
        schema.pop("required", None)
        tables.setdefault(part.split("-")[0], []).append({**schema, "title": part})
    properties = {
        "extends": {"type": "string", "description": "Lay this file over that one."},
        **top["properties"],
        **{name: each[0] if len(each) == 1 else {"anyOf": each} for name, each in tables.items()},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fleetfl",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": defs,
    }


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _loaded(part: str) -> type[Section]:
    points = _points()
    if part not in points:
        known = part_names()
        near = difflib.get_close_matches(part, known, 3) or known
        raise ConfigError(f"no part {part!r:.80} of settings; nearest: {', '.join(near)}")
    try:
        return points[part].load()
    except ModuleNotFoundError:  # cli.py says what to install
        raise
    except Exception as broken:  # whatever a module of somebody else's raises
        raise ConfigError(f"part {part}: cannot be imported: {broken!r:.200}") from broken


def _renamed(tree: Any, part: str) -> Any:
    """The schema with its definitions named for the part: two parts may have another `StopConfig` each."""
    if isinstance(tree, list):
        return [_renamed(each, part) for each in tree]
    if not isinstance(tree, dict):
        return tree
    found = {key: _renamed(value, part) for key, value in tree.items()}
    if isinstance(found.get("$ref"), str):
        found["$ref"] = found["$ref"].replace("#/$defs/", f"#/$defs/{part}.")
    if isinstance(found.get("$defs"), dict):
        found["$defs"] = {f"{part}.{name}": each for name, each in found["$defs"].items()}
    return found
