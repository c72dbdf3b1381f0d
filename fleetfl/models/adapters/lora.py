"""LoRA: y = W x + (alpha / rank) B A x, with A random and B zero at the start (arXiv:2106.09685).

Our own few lines, not `peft`: one vector of named tensors is all that we need of it, and a vehicle
then installs neither peft nor accelerate.
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from fleetfl.models.adapters import AdapterConfig

if TYPE_CHECKING:
    import torch


class Config(AdapterConfig):
    """Settings of LoRA."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1)
    """Rank of the two factors of each adapted matrix. A higher rank learns more and makes updates larger."""
    alpha: float = Field(default=16.0, gt=0)
    """Numerator of the factor alpha / rank on the low-rank product; larger values learn in larger steps."""
    targets: tuple[str, ...] = Field(default=("qkv",), min_length=1)
    """Last names of the linear layers to adapt; timm's ViTs have qkv, proj, fc1 and fc2. More layers learn
    more and make updates larger."""

    def meaning(self) -> dict[str, Any]:
        return {**super().meaning(), "targets": sorted(set(self.targets))}

    def attach(self, backbone: "torch.nn.Module", generator: "torch.Generator") -> None:
        from torch import nn  # heavy: only where a model is made

        from fleetfl.models import ModelError
        from fleetfl.models.low_rank import LowRankLinear

        linear = {n: m for n, m in backbone.named_modules() if isinstance(m, nn.Linear)}
        chosen = [name for name in linear if name.split(".")[-1] in self.targets]
        missing = set(self.targets) - {name.split(".")[-1] for name in chosen}
        if missing:
            known = sorted({name.split(".")[-1] for name in linear})
            raise ModelError(f"no linear layer is called {sorted(missing)}; there are {known}")
        for name in chosen:
            parent, _, leaf = name.rpartition(".")
            adapted = LowRankLinear(linear[name], self.rank, self.alpha / self.rank, generator)
            setattr(backbone.get_submodule(parent), leaf, adapted)
