"""A digest of built objects: equal for those that behave alike, another once a setting has an effect."""

import enum
import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from pydantic import BaseModel


def digest_of(thing: Any, *, passing_over: frozenset[str] = frozenset()) -> str:
    """SHA-256 over all that can be reached from `thing` by attributes, keys and items.

    Attributes named in `passing_over` are left out, as are locks, sockets and other things without a state of
    their own.
    """
    seen: dict[int, Any] = {}
    words = hashlib.sha256()
    for word in _words(thing, seen, passing_over):
        words.update(word.encode() + b"\0")
    return words.hexdigest()


def _words(thing: Any, seen: dict[int, Any], out: frozenset[str]) -> Iterator[str]:
    if isinstance(thing, (str, bytes, int, float, bool, type(None), enum.Enum, Path, np.dtype)):
        yield repr(thing)
        return
    if id(thing) in seen:
        return
    seen[id(thing)] = thing
    yield type(thing).__qualname__
    if isinstance(thing, np.ndarray):
        yield f"{thing.dtype} {thing.shape} {hashlib.sha256(thing.tobytes()).hexdigest()}"
    elif isinstance(thing, BaseModel):
        yield thing.model_dump_json()
    else:
        for part in _parts(thing, out):
            yield from _words(part, seen, out)


def _parts(thing: Any, out: frozenset[str]) -> Iterable[Any]:
    if isinstance(thing, functools.partial):
        return [thing.func, thing.args, thing.keywords]
    if isinstance(thing, Mapping):
        return itertools.chain.from_iterable(thing.items())
    if isinstance(thing, (set, frozenset)):
        return sorted(thing, key=repr)
    if isinstance(thing, (list, tuple)):
        return thing
    if hasattr(thing, "__self__"):  # a bound method
        return [thing.__self__]
    kept = {name: value for name, value in _attributes(thing).items() if name not in out}
    return itertools.chain.from_iterable(sorted(kept.items()))


def _attributes(thing: Any) -> dict[str, Any]:
    if isinstance(thing, type):
        return {}
    if isinstance(thing, msgspec.Struct):
        return msgspec.structs.asdict(thing)
    names = {name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())}
    slots = {name: getattr(thing, name) for name in names if hasattr(thing, name)}
    return {**slots, **getattr(thing, "__dict__", {})}
