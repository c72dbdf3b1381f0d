"""Choose a component by name: `kind` is a module, and that module defines `Config`.

    aggregator: {kind: fedbuff}             -> fleetfl.aggregators.fedbuff.Config
    aggregator: {kind: acme_fl.trimmed}     a dotted kind is imported as it stands

Dropping a file into the package is the whole registration. A package's `FORMER_KINDS` says which kinds were
renamed.
"""

import importlib
import logging
import pkgutil
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function

from fleetfl.config import Section

log = logging.getLogger(__name__)


class PluginConfig(Section):
    """Settings of one component; subclasses are named `Config`, fix `kind`, and make the thing."""

    @property
    def kind_name(self) -> str:
        """Value of `kind`: the name of the module that defines this class."""
        return type(self).model_fields["kind"].default


OF_ANOTHER_PACKAGE = {
    "title": "of another package",
    "description": "The module's full name, such as `acme_fl.trimmed`; its `Config` says the rest.",
    "type": "object",
    "properties": {"kind": {"type": "string", "pattern": "[.]"}},
    "required": ["kind"],
}


@dataclass(frozen=True)
class Chosen:
    """Annotation of a field whose table is validated by the `Config` of the module that its `kind` names."""

    package: str
    default: str | None = None

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_before_validator_function(self._chosen, handler(source))

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """JSON schema with the kinds that the package ships and that work here, or one of another package."""
        from fleetfl.config.docstrings import module_summary

        shipped = []
        for kind in available(self.package):
            config = config_of(kind, self.package)
            if config is not None:
                core = config.__pydantic_core_schema__
                schema = config.__get_pydantic_json_schema__(core, handler)
                schema = handler.resolve_ref_schema(schema)
                about = {"title": kind, "description": module_summary(config)}
                is_said = [] if kind == self.default else ["kind"]
                needed = sorted({*schema.get("required", []), *is_said})
                shipped.append({**schema, **about, "required": needed})
        return {"oneOf": [*shipped, OF_ANOTHER_PACKAGE]}

    def _chosen(self, raw: Any) -> Any:
        if isinstance(raw, PluginConfig):
            return raw
        if not isinstance(raw, dict):
            raise ValueError(f"expected a table with `kind`, one of {available(self.package)}")
        kind = raw.get("kind", self.default)
        former = getattr(importlib.import_module(self.package), "FORMER_KINDS", {})
        if isinstance(kind, str) and kind in former:
            log.warning(
                "kind `%s` is called `%s` now; the old name goes with the next version",
                kind,
                former[kind],
            )
            kind = former[kind]
        if not isinstance(kind, str) or not kind:
            # Of the table no more is said: there may be a password in it.
            raise ValueError(f"needs `kind`, one of {available(self.package)}, got {kind!r:.80}")
        config = _config_of(kind, self.package)
        # A module spells its own kind; a dotted one may leave it at the short name.
        return config.model_validate({**raw, "kind": config.model_fields["kind"].default})


def chosen_from(package: str, *, default: str | None = None) -> Chosen:
    """Validate a table with the `Config` of the module that its `kind` names; without one, of `default`."""
    return Chosen(package, default)


def config_of(kind: str, package: str) -> type[PluginConfig] | None:
    """The settings of one kind, or None where a library that it needs is not installed."""
    try:
        return _config_of(kind, package)
    except ModuleNotFoundError:
        return None


def _config_of(kind: str, package: str) -> type[PluginConfig]:
    """The `Config` of the module. Raises ValueError, and ModuleNotFoundError if it needs what is not here."""
    name = kind if "." in kind else f"{package}.{kind}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
            raise  # the plugin exists; something it needs does not
        raise ValueError(f"no kind {kind!r:.80}; there are {available(package)}") from missing
    except Exception as broken:  # whatever a module of somebody else's raises
        raise ValueError(f"kind {kind!r:.80} cannot be imported: {broken!r:.200}") from broken
    found = getattr(module, "Config", None)
    fields = found.model_fields if isinstance(found, type) and issubclass(found, Section) else {}
    if "kind" not in fields:
        raise ValueError(
            f"kind {kind!r:.80}: {name} defines no `Config` of a component; there are {available(package)}"
        )
    return found  # pyright: ignore[reportReturnType]


def available(package: str) -> list[str]:
    """Names of the components that `package` ships."""
    path = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))
