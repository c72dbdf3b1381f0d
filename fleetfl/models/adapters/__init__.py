"""Adapters: small trainable modules put into a frozen backbone."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import SerializeAsAny

from fleetfl.plugins import PluginConfig, chosen_from

if TYPE_CHECKING:
    import torch


class AdapterConfig(PluginConfig):
    """Settings of one adapter."""

    def attach(self, backbone: "torch.nn.Module", generator: "torch.Generator") -> None:
        """Put trainable parameters into a backbone whose own are frozen, without changing its output.

        Raises ModelError if the backbone has no place for them.
        """
        raise NotImplementedError

    def meaning(self) -> dict[str, Any]:
        """Settings that the trained values depend on, as plain values; all of them, unless overridden.

        Vehicles and a server whose settings here differ refuse each other's values.
        """
        return self.model_dump(mode="json")


AnyAdapter = Annotated[SerializeAsAny[AdapterConfig], chosen_from("fleetfl.models.adapters")]
