"""Declarations of events: a name, and fields with their types and units. Knows no single event."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class UndeclaredEvent(ValueError):
    """An event is written that `EVENTS` does not describe like that; names it and what differs."""


class Kind(Enum):
    """Type of a field's value, as JSON has it."""

    TEXT = "text"
    COUNT = "whole number"
    NUMBER = "number"
    LIST = "list"
    TABLE = "table"

    def fits(self, value: object) -> bool:
        """Whether the value is of this type, before JSON is made of it."""
        if isinstance(value, bool):
            return False
        return isinstance(value, _PYTHON[self])


_PYTHON: dict[Kind, tuple[type, ...]] = {
    Kind.TEXT: (str,),
    Kind.COUNT: (int,),
    Kind.NUMBER: (int, float),
    Kind.LIST: (list, tuple),
    Kind.TABLE: (dict,),
}


@dataclass(frozen=True)
class Field:
    """One field of an event."""

    name: str
    """Name of the field, a key of the line."""
    kind: Kind
    """Type of its value."""
    about: str
    """Meaning of the field, a sentence or phrase in Markdown."""
    unit: str = ""
    """Unit of the value; empty if it has none."""
    is_optional: bool = False
    """Whether a line may lack the field."""


@dataclass(frozen=True)
class Event:
    """Declaration of one kind of line."""

    name: str
    """Name of the event, the line's `event`."""
    by: str
    """Part of the system that writes it."""
    about: str
    """Meaning of the event, a sentence in Markdown."""
    fields: tuple[Field, ...]

    def objections(self, fields: Mapping[str, Any]) -> list[str]:
        """Differences between a line's `fields` and the declaration; empty if there are none."""
        known = {field.name: field for field in self.fields}
        said = [f"{name} is not declared" for name in fields if name not in known]
        for name, field in known.items():
            if name not in fields:
                said += [] if field.is_optional else [f"{name} is missing"]
            elif not field.kind.fits(fields[name]):
                said.append(f"{name} is {fields[name]!r:.80}, expected a {field.kind.value}")
        return said
