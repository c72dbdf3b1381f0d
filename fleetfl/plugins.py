"""Choose a component by name: `kind` is a module, and that module defines `Config`.

    aggregator: {kind: fedbuff}             -> fleetfl.aggregators.fedbuff.Config
    aggregator: {kind: acme_fl.trimmed}     a dotted kind is imported as it stands

Dropping a file into the package is the whole registration.
"""

import importlib
import pkgutil
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class PluginConfig(BaseModel):
    """Settings of one component; subclasses are named `Config`, fix `kind`, and make the thing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def kind_name(self) -> str:
        """Its `kind`: the name of the module that defines it."""
        return type(self).model_fields["kind"].default


def chosen_from(package: str, *, default: str | None = None) -> BeforeValidator:
    """Validate a table with the `Config` of the module that its `kind` names; without one, of `default`."""

    def choose(raw: Any) -> Any:
        if isinstance(raw, PluginConfig):
            return raw
        kind = raw.get("kind", default) if isinstance(raw, dict) else None
        if not isinstance(kind, str) or not kind:
            raise ValueError(f"needs `kind`, one of {available(package)}, got {raw!r}")
        name = kind if "." in kind else f"{package}.{kind}"
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as missing:
            if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
                raise  # the plugin exists; something it needs does not
            raise ValueError(f"no kind {kind!r}; there are {available(package)}") from missing
        # A module spells its own kind; a dotted one may leave it at the short name.
        own = module.Config.model_fields["kind"].default
        return module.Config.model_validate({**raw, "kind": own})

    return BeforeValidator(choose)


def available(package: str) -> list[str]:
    """Names of the components that `package` ships."""
    path = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))
