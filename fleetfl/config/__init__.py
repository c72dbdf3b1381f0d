"""Reads and validates settings; the settings themselves are declared where they are used.

One YAML file describes a deployment. Its top level holds the shared settings (fleet, model, transport), and
each of `server`, `vehicle`, `sim`, `bench`, `compare` and `chaos` is a table of its own. A process validates
the shared settings and its own part, with a schema from its own package, and does not look at the others:

    extends: base.yaml          # this file is laid over that one
    model: {backbone: {kind: fleet_vit}}
    server:
      aggregator: {kind: fedbuff, goal: 10}
"""

import difflib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic_core.core_schema import CoreSchema

from fleetfl.config.settings_file import MAX_DEPTH, ConfigError, parsed, text_of
from fleetfl.config.usage import Usage, idle_settings

log = logging.getLogger(__name__)

PARTS = ("server", "vehicle", "sim", "bench", "compare", "chaos")

CHOICES = frozenset({"sim.devices"})
"""Tables of choices, by path: one that is laid over another replaces it, so that no choice is left over."""

SECRETS = ("pass", "secret", "token", "credential", "header", "auth", "username")
"""Parts of setting names by which a secret is recognized: no message repeats its value."""


class Section(BaseModel):
    """A table of settings: frozen, and a misspelt key is an error.

    A setting that was renamed is still read under its former name, with a warning that names the new one.
    """

    former_names: ClassVar[Mapping[str, str]] = {}
    """Present name of each setting of this table that was renamed since the last version, by its former
    name."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        # A traceback must not show passwords, and `validate` says what was got where it may.
        hide_input_in_errors=True,
        # Rust's `$` and Python's differ about a newline at the end; \Z is the end in Python's alone.
        regex_engine="python-re",
    )

    @property
    def idle(self) -> Mapping[str, str]:
        """Settings of this table that have no effect beside the values of the others, and why."""
        return {}

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        former = [name for name in cls.former_names if isinstance(given, dict) and name in given]
        for name in former:
            now = cls.former_names[name]
            if now in given:
                raise ValueError(f"`{name}` is called `{now}` now, and both are given")
            log.warning(
                "setting `%s` is called `%s` now; the old name goes with the next version",
                name,
                now,
            )
            given = {now if key == name else key: value for key, value in given.items()}
        return given

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Pydantic's schema, in which each field has its docstring as description."""
        from fleetfl.config.docstrings import field_docstrings  # reads source: not at each start

        found = handler(core_schema)
        fields = handler.resolve_ref_schema(found).get("properties", {})
        for name, text in field_docstrings(cls).items():
            fields[name].setdefault("description", " ".join(text.split()))
        for field in fields.values():
            field.pop("title", None)  # the name again, with capitals
        return found


S = TypeVar("S", bound=BaseModel)


def load(path: Path, part: str, schema: type[S], overrides: Sequence[str] = ()) -> S:
    """The shared settings and `part` of the file as `schema`.

    An override is a path in the file and YAML: `server.aggregator.goal=4`.
    Raises ConfigError naming the field and what was expected.
    """
    tree = read_with(path, overrides)
    settings = validate(tree, part, schema, str(path))
    reads = (part, *(name for name in tree if name not in PARTS))
    others = {each: f"of another part than {part}" for each in PARTS if each != part}
    usage = Usage(f"fleetfl {part}", reads, others, belongs_to_others=tuple(others))
    usage.require(tree, str(path), overrides)
    return settings


def validate(tree: Mapping[str, Any], part: str, schema: type[S], source: str) -> S:
    """`tree`, as read from `source`, as `schema`. Raises ConfigError."""
    own = table(tree, part, source)
    shared = {key: value for key, value in tree.items() if key not in PARTS}
    try:
        settings = schema.model_validate({**shared, **own})
    except ValidationError as invalid:
        lines = []
        for where, told in problems(invalid, schema):
            first = [] if where and where[0] in shared else [part]
            lines.append(f"{'.'.join([*first, *where])}: {told}")
        # `from None`: the cause holds the values, and passwords are among them.
        raise ConfigError(f"{source}: " + f"\n{source}: ".join(lines)) from None
    except RecursionError:
        raise ConfigError(f"{source}: {part}: nested too deeply") from None
    except ModuleNotFoundError:  # a component is there, what it needs is not: cli.py says which
        raise
    except Exception as odd:  # what a component's own checks, or its import, may raise
        raise ConfigError(f"{source}: {part}: {type(odd).__name__}") from odd
    idle = [
        f"{part + '.' if path.split('.')[0] in own else ''}{path} ({why})"
        for path, why in idle_settings(settings)
    ]
    if idle:
        raise ConfigError(f"{source}: without effect, leave them out: {'; '.join(idle)}")
    return settings


def table(tree: Mapping[str, Any], name: str, source: str) -> dict[str, Any]:
    """The table of this name in `tree`, empty if it is not there. Raises ConfigError if it is no table."""
    found = tree.get(name, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{source}: {name}: got {_shown(found)}, expected a table of settings")
    return found


def problems(
    invalid: ValidationError, schema: type[BaseModel] | None = None
) -> Iterator[tuple[list[str], str]]:
    """Path and description of each problem, in words that repeat no password.

    With `schema` the description of an unknown setting names the setting that is most like it.
    """
    for error in invalid.errors():
        where = [str(step) for step in error["loc"]]
        if error["type"] == "extra_forbidden":
            yield where, f"there is no such setting{_meant(schema, where)}"
            continue
        # Our own validators say what they got; pydantic's do not. Of a name that does not exist no value is
        # told: it may be a misspelt one, and nobody knows what of.
        silent = error["type"] not in ("missing", "value_error")
        is_secret = any(word in step.lower() for step in where for word in SECRETS)
        got = f" (got {_shown(error['input'])})" if silent and not is_secret else ""
        yield where, " ".join(error["msg"].removeprefix("Value error, ").split()) + got


def _meant(schema: type[BaseModel] | None, where: Sequence[str]) -> str:
    """The existing name that is most like the last one of `where`; empty if none is like it."""
    for step in where[:-1]:
        field = None if schema is None else schema.model_fields.get(step)
        told = () if field is None else (field.annotation, *get_args(field.annotation))
        tables = (kind for kind in told if isinstance(kind, type) and issubclass(kind, BaseModel))
        schema = next(tables, None)
    if schema is None:
        return ""
    # The `Config` of a kind is a subclass of what the field is annotated with.
    names = {name for kind in (schema, *schema.__subclasses__()) for name in kind.model_fields}
    like = difflib.get_close_matches(where[-1], sorted(names), n=1)
    return f"; did you mean `{like[0]}`?" if like else ""


def _shown(value: Any) -> str:
    """A value as a message may show it; of tables and lists only their kind."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    return (
        f"{value!r:.80}" if not isinstance(value, int) or abs(value) < 10**80 else "a huge number"
    )


def read_with(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The file's settings with the overrides laid over them. Raises ConfigError."""
    return with_overrides(read(path), overrides)


def with_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`tree` with each NAME.NAME=VALUE laid over it. Raises ConfigError."""
    for override in overrides:
        key, equals, text = override.partition("=")
        names = key.split(".")
        if not equals or not all(names) or len(names) > MAX_DEPTH:
            raise ConfigError(f"--set {key[:80]!r}: expected NAME.NAME=VALUE")
        value: Any = parsed(text, f"--set {key}")
        for name in reversed(names):
            value = {name: value}
        # A path that leads into a table of choices changes one of them, and the others stay.
        whole = {each for each in CHOICES if each.count(".") >= len(names) - 1}
        tree = merge(tree, value, whole=whole)
    return tree


def read(path: Path) -> dict[str, Any]:
    """The file laid over the one its `extends` names, and so on down. Raises ConfigError."""
    return _read(path, ())


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    by = f"{above[-1]}: extends: " if above else ""
    _require_end(path, above, by)
    try:
        tree = parsed(text_of(path), str(path))
    except ConfigError as unfit:
        raise ConfigError(f"{by}{unfit}") from unfit
    if not isinstance(tree, dict):
        raise ConfigError(f"{by}{path}: holds {_shown(tree)}, expected a table of settings")
    if "extends" not in tree:
        return tree
    base = tree.pop("extends")
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{path}: extends: got {_shown(base)}, expected the name of a file")
    return merge(_read(path.parent / base, (*above, path)), tree)


def _require_end(path: Path, above: tuple[Path, ...], by: str) -> None:
    """Raises ConfigError, begun with `by`, for a file that extends itself or stands below too many."""
    try:
        same = next((file for file in above if file.samefile(path)), None)
    except OSError:  # it is missing, which whoever reads it says
        same = None
    except ValueError as unfit:
        raise ConfigError(f"{by}{str(path)!r}: {unfit}") from unfit
    if len(above) > MAX_DEPTH:
        raise ConfigError(f"{by}more than {MAX_DEPTH} files extend each other")
    if same is not None:
        raise ConfigError(f"{by}{path} extends itself, by way of {len(above)} files")


def merge(
    below: Mapping[str, Any],
    above: Mapping[str, Any],
    *,
    whole: Collection[str] = CHOICES,
    at: str = "",
) -> dict[str, Any]:
    """`above` laid over `below`: tables merge, other values replace, as do tables at the paths in `whole`.

    `at` is the path of these two tables, with a dot behind it.
    """
    # A new `kind` replaces its whole table: the old component's settings mean nothing to it.
    if "kind" in above and above["kind"] != below.get("kind"):
        return dict(above)
    merged = dict(below)
    for key, value in above.items():
        old = below.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and f"{at}{key}" not in whole:
            merged[key] = merge(old, value, whole=whole, at=f"{at}{key}.")
        else:
            merged[key] = value
    return merged
