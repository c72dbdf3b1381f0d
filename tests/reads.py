"""Which settings code reads: noted while it runs, and told for a whole tree of settings afterwards."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from fleetfl.config import Section

Read = tuple[type[Section], str]
"""The table's class and the name of the field."""


@contextlib.contextmanager
def noted_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Read]]:
    """Every field of a table of settings that is read meanwhile; dumps and comparisons are none."""
    found: set[Read] = set()

    def noting(self: Section, name: str) -> Any:
        kind = type(self)
        if name in kind.model_fields:
            found.add((kind, name))
        return object.__getattribute__(self, name)

    with monkeypatch.context() as patched:
        patched.setattr(Section, "__getattribute__", noting, raising=False)
        yield found


def settings_of(value: Any, path: str) -> Iterator[tuple[str, Read]]:
    """Every setting below `path`, a list's or table's elements at the path of the whole."""
    if isinstance(value, Section):
        for name in type(value).model_fields:
            below = vars(value)[name]
            inner = list(settings_of(below, f"{path}.{name}"))
            if name != "kind" and not inner:
                yield f"{path}.{name}", (type(value), name)
            yield from inner
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from settings_of(each, path)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from settings_of(each, path)
