"""Reading settings. What the settings are is said where they are used.

One YAML file describes a deployment. Its top holds what all share (fleet, model, transport), and each of
`server`, `vehicle`, `sim`, `bench`, `compare` and `chaos` what is theirs. A process validates the shared
settings and its own part, with a schema from its own package, and does not look at the others:

    extends: base.yaml          # this file is laid over that one
    model: {backbone: {kind: fleet_vit}}
    server:
      aggregator: {kind: fedbuff, goal: 10}
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from fleetfl import FleetflError

PARTS = ("server", "vehicle", "sim", "bench", "compare", "chaos")


class ConfigError(FleetflError, ValueError):
    """Settings that cannot be used; the message names the field and what was expected."""


class Section(BaseModel):
    """A table of settings: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=BaseModel)


def load(path: Path, part: str, schema: type[S], overrides: Sequence[str] = ()) -> S:
    """The shared settings and `part` of the file as `schema`.

    An override is a path in the file and YAML: `server.aggregator.goal=4`.
    Raises ConfigError naming the field and what was expected.
    """
    return validate(read_with(path, overrides), part, schema, str(path))


def validate(tree: Mapping[str, Any], part: str, schema: type[S], source: str) -> S:
    """`tree`, as read from `source`, as `schema`. Raises ConfigError."""
    own = tree.get(part, {})
    if not isinstance(own, dict):
        raise ConfigError(f"{source}: {part}: got {own!r}, expected a table of settings")
    shared = {key: value for key, value in tree.items() if key not in PARTS}
    try:
        return schema.model_validate({**shared, **own})
    except ValidationError as invalid:
        lines = []
        for error in invalid.errors():
            where = [str(step) for step in error["loc"]]
            if where and where[0] not in shared:
                where.insert(0, part)
            # Our own validators say what they got; pydantic's do not.
            silent = error["type"] not in ("missing", "value_error")
            got = f" (got {error['input']!r:.80})" if silent else ""
            lines.append(f"{'.'.join(where)}: {error['msg'].removeprefix('Value error, ')}{got}")
        raise ConfigError(f"{source}: " + f"\n{source}: ".join(lines)) from invalid


def read_with(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The file's settings with the overrides laid over them. Raises ConfigError."""
    tree = read(path)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {override!r}: expected NAME.NAME=VALUE")
        value: Any = parsed(text, f"--set {override!r}")
        for name in reversed(key.split(".")):
            value = {name: value}
        tree = merge(tree, value)
    return tree


def read(path: Path) -> dict[str, Any]:
    """The file laid over the one its `extends` names, and so on down. Raises ConfigError."""
    try:
        text = path.read_text()
    except OSError as missing:
        raise ConfigError(f"{path}: cannot be read: {missing.strerror}") from missing
    tree = parsed(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds {type(tree).__name__}, expected a table of settings")
    base = tree.pop("extends", None)
    return merge(read(path.parent / str(base)), tree) if base else tree


def parsed(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as broken:
        raise ConfigError(f"{source}: not YAML: {broken}") from broken


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge, other values replace."""
    # A new `kind` replaces its whole table: the old component's settings mean nothing to it.
    if "kind" in above and above["kind"] != below.get("kind"):
        return dict(above)
    merged = dict(below)
    for key, value in above.items():
        old = below.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        merged[key] = merge(old, value) if both else value  # pyright: ignore[reportArgumentType]
    return merged
