"""Another source's frames put under one weather, such as real photographs in fog."""

from typing import Literal

from pydantic import Field

from sim import world
from vehicle_agent.sensors import AnySensor, Frames, SensorConfig, SensorSource, passed_over


class Config(SensorConfig):
    kind: Literal["sim.sensors.weathered"] = "sim.sensors.weathered"
    source: AnySensor
    condition: Literal["clear", "fog", "rain", "night", "snow", "dust", "motion_blur"]
    severity: float = Field(default=0.6, ge=0, le=1)
    seed: int = Field(default=0, ge=0)

    def build(self, classes: tuple[str, ...]) -> "Weathered":
        return Weathered(self, self.source.build(classes))


class Weathered:
    """A frame read twice meets different rain: weather is drawn anew at each read."""

    def __init__(self, config: Config, source: SensorSource) -> None:
        self.config, self.source = config, source
        self.reads = 0

    @property
    def num_frames(self) -> int | None:
        return self.source.num_frames

    @property
    def note(self) -> str:
        """What its source passed over."""
        return passed_over(self.source)

    def skip(self, count: int) -> None:
        self.source.skip(count)
        self.reads += count

    def read(self, count: int) -> Frames:
        frames = self.source.read(count)
        self.reads += 1
        images = world.under(
            frames.images,
            self.config.condition,
            self.config.severity,
            seed=self.config.seed * 1_000_003 + self.reads,
        )
        return Frames(images, frames.labels, frames.captured_from, frames.captured_to)
