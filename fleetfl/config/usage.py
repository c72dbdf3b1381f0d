"""The settings that a command reads: whatever else is set is an error, never passed over in silence.

A command says what it reads as paths of a file, each with everything below it, and for the rest in a few
words why nothing reads it. The nearest path decides. Only what a file or --set sets counts, not defaults.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from fleetfl.config.settings_file import ConfigError

UNKNOWN = "nothing reads it"


@dataclass(frozen=True)
class Usage:
    """Settings that one command reads, by their path in a file, such as `server.aggregator`."""

    command: str
    """Words that the user typed, for the message."""
    reads: tuple[str, ...]
    """Paths that are read, each with everything below it."""
    passes_over: Mapping[str, str] = field(default_factory=dict)
    """Paths that are not read, each with everything below it, and the reason or what to set instead."""
    belongs_to_others: tuple[str, ...] = ()
    """Parts of a file that are other commands' business: there a file may set anything."""

    def objection(self, path: str) -> str | None:
        """Why nothing reads the setting at this path; None if it is read."""
        nearest = max(_above(path, [*self.reads, *self.passes_over]), key=len, default=None)
        if nearest is None:
            return UNKNOWN
        return self.passes_over.get(nearest)

    def require(self, tree: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> None:
        """Raises ConfigError that names every setting in `tree`, read from `source`, that nothing reads.

        What an override sets is never other commands' business.
        """
        given = [each.partition("=")[0] for each in overrides]
        unread: dict[str, list[str]] = {}
        for path in leaves(tree):
            is_anothers = any(True for _ in _above(path, self.belongs_to_others))
            if is_anothers and not any(True for _ in _above(path, given)):
                continue
            why = self.objection(path)
            if why is not None:
                unread.setdefault(why, []).append(path)
        if unread:
            told = "; ".join(f"{', '.join(paths)} ({why})" for why, paths in unread.items())
            raise ConfigError(
                f"{source}: `{self.command}` does not use these settings, leave them out: {told}"
            )


def leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The path of every value in a tree of tables; a list is one value."""
    for name, value in tree.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}.")
        else:
            yield path


def idle_settings(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and reason of every setting below that is set and has no effect beside the values of others.

    Tables say so themselves (`Section.idle`). A setting that has its default value is none of them.
    """
    if isinstance(value, BaseModel):
        values, fields = vars(value), type(value).model_fields
        idle: Mapping[str, str] = getattr(value, "idle", {})
        for name, why in idle.items():
            if name in value.model_fields_set and values[name] != fields[name].get_default():
                yield f"{path}{name}", why
        parts: Iterable[tuple[Any, Any]] = values.items()
    elif isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, (list, tuple)):
        parts = enumerate(value)
    else:
        return
    for name, part in parts:
        yield from idle_settings(part, f"{path}{name}.")


def _above(path: str, candidates: Sequence[str]) -> Iterator[str]:
    """Those of the candidates that are this path or a table around it."""
    return (each for each in candidates if f"{path}.".startswith(f"{each}."))
