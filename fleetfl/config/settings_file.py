"""One file of settings, from bytes to plain values. Knows no schema and no part of a fleet.

Whatever is in the file, reading it ends in values or in one ConfigError of one line: people write these by
hand, on any editor. No error repeats the text of the file, since a password may stand there.
"""

import codecs
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fleetfl import FleetflError

MAX_BYTES = 2**19
MAX_VALUES = 200_000
"""Values in a file, each counted as often as aliases repeat it."""
MAX_DEPTH = 100

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark this one begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class ConfigError(FleetflError, ValueError):
    """Settings that cannot be used; the message names the field and what was expected."""


def text_of(path: Path) -> str:
    """The file as text: UTF-8, or what its byte order mark says. Raises ConfigError."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise ConfigError(f"{path}: cannot be read: is no file of settings")
        if about.st_size > MAX_BYTES:
            raise ConfigError(
                f"{path}: holds {about.st_size:,} bytes, expected settings of at most {MAX_BYTES:,}"
            )
        content = path.read_bytes()
    except ConfigError:
        raise
    except OSError as missing:
        raise ConfigError(f"{path}: cannot be read: {missing.strerror}") from missing
    except Exception as unfit:  # such as a name with a NUL in it
        raise ConfigError(f"{str(path)!r}: cannot be read: {unfit}") from unfit
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as foreign:
        line = content.count(b"\n", 0, foreign.start) + 1
        raise ConfigError(
            f"{path}: line {line}: byte 0x{content[foreign.start]:02x} is not {encoding.upper()}; "
            "save the file as UTF-8"
        ) from None


def parsed(text: str, source: str) -> Any:
    """The values of a YAML text. Raises ConfigError, which does not repeat the text."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None
        _check(node)
        value = _Constructor().construct_document(node)
    except ConfigError as unfit:
        raise ConfigError(f"{source}: {unfit}") from None
    except RecursionError:
        raise ConfigError(f"{source}: not YAML: nested too deeply") from None
    except Exception as broken:  # YAMLError, and what PyYAML lets through, as for a date 2020-02-31
        raise ConfigError(f"{source}: not YAML: {_in_one_line(broken)}") from None
    _check_strings(value, source, ())
    return value


class _Constructor(yaml.constructor.SafeConstructor):
    """SafeConstructor without a reader: a document that is composed already becomes values."""


def _in_one_line(broken: Exception) -> str:
    if not isinstance(broken, yaml.error.MarkedYAMLError):
        if isinstance(broken, yaml.reader.ReaderError):
            return f"character {broken.character!r} at {broken.position}"
        return type(broken).__name__
    mark = broken.problem_mark or broken.context_mark
    where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    problem = " ".join((broken.problem or broken.context or "cannot be read").split())
    # The names of anchors and tags come from the text: `password: *secret` is one of those.
    return where + re.sub(r"(alias|anchor|tag|handle) '.*'", r"\1", problem)


def _check(root: yaml.Node) -> None:
    """Raises ConfigError for keys that are no names or come twice, and for what grows beyond bounds."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        known = sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in open_nodes:
            raise ConfigError(f"line {_line(node)}: contains itself")
        if depth > MAX_DEPTH:
            raise ConfigError(f"line {_line(node)}: nested deeper than {MAX_DEPTH}")
        open_nodes.add(id(node))
        total = 1 + sum(size(child, depth + 1) for child in _children(node))
        open_nodes.discard(id(node))
        if total > MAX_VALUES:
            raise ConfigError(f"line {_line(node)}: holds more than {MAX_VALUES:,} values")
        sizes[id(node)] = total
        return total

    size(root, 0)


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":  # <<: *others
                yield value
                continue
            if key.tag != "tag:yaml.org,2002:str":
                raise ConfigError(
                    f"line {_line(key)}: {_key(key)} is no name of a setting; names that look like numbers "
                    "or like yes and no stand in quotes"
                )
            if key.value in seen:
                raise ConfigError(f"line {_line(key)}: {_key(key)} is set twice")
            seen.add(key.value)
            yield value


def _key(key: yaml.Node) -> str:
    return repr(key.value[:40]) if isinstance(key, yaml.ScalarNode) else "a list or table"


def _check_strings(value: Any, source: str, where: tuple[str, ...]) -> None:
    """Raises ConfigError for text that neither a file name nor a message can hold."""
    if isinstance(value, dict):
        for key, below in value.items():
            _check_strings(key, source, where)
            _check_strings(below, source, (*where, key))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            _check_strings(below, source, (*where, str(number)))
    elif isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
        raise ConfigError(
            f"{source}: {'.'.join(where) or 'text'}: holds characters that are no text"
        )
