"""Explains settings from a JSON schema, each found by its path in a file. Knows no part of a file."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from fleetfl.config import ConfigError

Schema = dict[str, Any]
_RANGES = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "pattern": "matches {}",
}
_TYPES = {
    "number": "number",
    "integer": "integer",
    "boolean": "true or false",
    "string": "text",
    "null": "null",
}
_MAX_DEPTH = 12


@dataclass(frozen=True)
class Setting:
    """Facts about one field of a table of settings, in words."""

    path: str
    """Path of the setting in a file, such as `server.http.port`."""
    type: str
    """Type of its values, in words."""
    default: str | None
    """Default as YAML in one line; None where the field has to be set."""
    range: str
    """Allowed values; empty where the type says it all."""
    meaning: str
    """Meaning of the setting, its docstring in one line."""
    kinds: dict[str, Schema] = field(default_factory=dict)
    """Schemas of the components that may stand here, by kind."""
    default_kind: str | None = None
    """Kind of the default component; None without one."""
    tables: tuple[Schema, ...] = ()
    """Schemas of the tables that may stand here, kinds left out; usually none or one."""


def fields_of(table: Schema, root: Schema, path: str) -> list[Setting]:
    """The fields of a table, in the order of its source; `kind` is left out."""
    needed = table.get("required", [])
    return [
        _setting(schema, root, f"{path}.{name}" if path else name, needed=name in needed)
        for name, schema in table.get("properties", {}).items()
        if not (name == "kind" and "const" in schema)
    ]


def find(root: Schema, names: Sequence[str], part: str) -> Setting | None:
    """The setting with this path in the part's schema; None is the part as a whole.

    A step of the path may be a kind: `aggregator.accord.goal`. Without one, a field of the default kind is
    meant, or else of the first kind that has it. Raises ConfigError naming the nearest paths.
    """
    at: Setting | None = None
    tables, path = [root], part
    for number, name in enumerate(names):
        if at is not None and name in at.kinds:
            path = f"{path}.{name}"
            tables = [at.kinds[name]]
            at = _of_kind(at, name, path)
            continue
        found = next((table for table in tables if name in table.get("properties", {})), None)
        if found is None:
            raise ConfigError(_nearest(root, part, path, name, [*names[number + 1 :]]))
        at = next(each for each in fields_of(found, root, path) if each.path == f"{path}.{name}")
        path, tables = at.path, below(at)
    return at


def below(setting: Setting) -> list[Schema]:
    """Tables whose fields may follow in a path, the default kind's first."""
    first = [setting.kinds[setting.default_kind]] if setting.default_kind in setting.kinds else []
    return [*setting.tables, *first, *(each for each in setting.kinds.values())]


def paths(table: Schema, root: Schema, path: str, depth: int = 0) -> Iterator[str]:
    """The path of every field in a table and in all that may stand below it."""
    for each in fields_of(table, root, path):
        yield each.path
        if depth < _MAX_DEPTH:
            for lower in each.tables:
                yield from paths(lower, root, each.path, depth + 1)
            for kind, lower in each.kinds.items():
                where = each.path if kind == each.default_kind else f"{each.path}.{kind}"
                yield from paths(lower, root, where, depth + 1)


def _of_kind(setting: Setting, kind: str, path: str) -> Setting:
    schema = setting.kinds[kind]
    meaning = schema.get("description", "")
    return Setting(path, "table", f"kind: {kind}", "", meaning, tables=(schema,))


def _nearest(root: Schema, part: str, path: str, name: str, rest: list[str]) -> str:
    known = list(dict.fromkeys(paths(root, root, part)))
    wanted = ".".join([path, name, *rest])
    last = [each for each in known if each.rsplit(".", 1)[1] == (rest[-1] if rest else name)]
    near = list(dict.fromkeys([*last[:3], *difflib.get_close_matches(wanted, known, 3)]))[:3]
    return f"no setting {wanted!r:.120}; nearest: {', '.join(near) or part}"


def _setting(schema: Schema, root: Schema, path: str, *, needed: bool) -> Setting:
    whole = _resolved(schema, root)
    choices = _choices(whole, root)
    found = _tables(choices, root)
    kinds = {each["title"]: each for each in found if _is_kind(each)}
    tables = tuple(each for each in found if not _is_kind(each))
    default = schema.get("default")
    meaning = schema.get("description") or next((each.get("description") for each in tables), "")
    return Setting(
        path,
        _type(whole, root),
        None if needed and "default" not in schema else _default(default, tables),
        ", ".join(dict.fromkeys(filter(None, map(_range, [whole, *choices])))),
        " ".join((meaning or "").split()),
        kinds,
        default.get("kind") if isinstance(default, dict) else None,
        tables,
    )


def _tables(choices: Sequence[Schema], root: Schema) -> list[Schema]:
    """Tables among the choices for a setting, or for an entry of its list; other packages' left out."""
    found = [each for outer in choices for each in _choices(outer.get("items", outer), root)]
    return [each for each in found if each.get("properties") and not _is_of_another(each)]


def _is_kind(table: Schema) -> bool:
    """Whether it holds the settings of one kind of component."""
    return "const" in table["properties"].get("kind", {})


def _is_of_another(table: Schema) -> bool:
    """Whether it stands for the components of other packages."""
    return "pattern" in table["properties"].get("kind", {})


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        schema = {**root["$defs"][name], **{k: v for k, v in schema.items() if k != "$ref"}}
    return schema


def _choices(schema: Schema, root: Schema) -> list[Schema]:
    schema = _resolved(schema, root)
    found = schema.get("anyOf") or schema.get("oneOf")
    return [lower for each in found for lower in _choices(each, root)] if found else [schema]


def _type(schema: Schema, root: Schema) -> str:
    schema = _resolved(schema, root)
    if schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_type(each, root) for each in schema["anyOf"]))
    if schema.get("oneOf"):
        return "table with `kind`"
    if "const" in schema or "enum" in schema:
        values = ", ".join(str(each) for each in schema.get("enum", [schema.get("const")]))
        return f"one of {values}" if "enum" in schema else values
    return _plain_type(schema, root)


def _plain_type(schema: Schema, root: Schema) -> str:
    kind, values = schema.get("type"), schema.get("additionalProperties")
    if kind == "array":
        return f"list of {_plural(_type(schema.get('items', {}), root))}"
    if kind == "object":
        return f"table of name: {_type(values, root)}" if isinstance(values, dict) else "table"
    return "path" if schema.get("format") == "path" else _TYPES.get(str(kind), "any value")


def _plural(word: str) -> str:
    first, *rest = word.split(" ", 1)
    return " ".join(
        [f"{first}s" if first in ("number", "integer", "path", "table") else first, *rest]
    )


def _default(value: Any, tables: Sequence[Schema]) -> str:
    if isinstance(value, dict) and "kind" in value:
        return f"kind: {value['kind']}"
    if isinstance(value, dict) and tables:
        return "a table: each field's own default"
    if (
        isinstance(value, list)
        and value
        and all(isinstance(each, dict) and "kind" in each for each in value)
    ):
        return "[" + ", ".join(f"{{kind: {each['kind']}}}" for each in value) + "]"
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return re.sub(r"\n\.\.\.\n?$", "", text).strip()


def _range(schema: Schema) -> str:
    return ", ".join(
        words.format(f"{schema[key]:,}" if isinstance(schema[key], int) else f"{schema[key]}")
        for key, words in _RANGES.items()
        if key in schema
    )
