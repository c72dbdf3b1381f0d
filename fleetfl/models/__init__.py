"""A frozen backbone, an adapter and a head. This module is free of torch, so settings read quickly."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator

from fleetfl import FleetflError
from fleetfl.config import Section
from fleetfl.models.adapters import AnyAdapter
from fleetfl.models.adapters.lora import Config as Lora
from fleetfl.models.backbones import AnyBackbone
from fleetfl.models.backbones.fleet_vit import Config as FleetVit
from fleetfl.models.loading import uncollected
from fleetfl.tasks import AnyTask, Task
from fleetfl.tasks.classification import Config as Classification

if TYPE_CHECKING:
    from fleetfl.models.adapted import AdaptedModel


class ModelConfig(Section):
    """Settings of the model that vehicles train and the endpoint serves; a fleet shares them."""

    backbone: AnyBackbone = FleetVit()
    """Backbone that turns pictures into features; it is frozen, and its weights never travel."""
    adapter: AnyAdapter = Lora()
    """Adapter that is trained together with the head; only these values travel."""
    task: AnyTask = Classification()
    """Task of the model; one of `classes` for each picture if not given."""
    classes: tuple[str, ...] = Field(
        default=(),
        validate_default=True,
        json_schema_extra={"anyOf": [{"maxItems": 0}, {"minItems": 2}]},
    )
    """Labels, in the order of the head's outputs, where the task tells classes apart."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the backbone; `auto` takes bfloat16 where the processor has it and float32 elsewhere."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device that computes the model: a GPU (`cuda`, also AMD's), Apple's (`mps`) or the processor (`cpu`);
    `auto` takes the first of them that is there."""

    @field_validator("classes")
    @classmethod
    def _fit_the_task(cls, classes: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "task" in info.data:  # else what is wrong with it is said already
            info.data["task"].build(classes)
        return classes

    @property
    def built_task(self) -> Task:
        """The task of this model."""
        return self.task.build(self.classes)

    def build(self, *, seed: int = 0, threads: int | None = None) -> "AdaptedModel":
        """The initial model: an adapter without effect and a head of zeros.

        From here on torch uses `threads` threads in this process; None leaves their number as it is. Raises
        ModelError for a missing or unfit checkpoint.
        """
        with uncollected():
            import torch  # seconds: only where a model is made

            from fleetfl.models.adapted import AdaptedModel

            if threads is not None:
                torch.set_num_threads(threads)
            try:
                return AdaptedModel(self, seed=seed)
            except ModelError:
                raise
            except Exception as failed:  # whatever libraries make of a model that they cannot make
                kind = self.backbone.kind_name
                text = str(failed).strip() or type(failed).__name__
                raise ModelError(f"{kind} cannot be made: {text.splitlines()[0]:.200}") from failed


class ModelError(FleetflError, ValueError):
    """A backbone, adapter or checkpoint that cannot be used; names it and what was expected."""
