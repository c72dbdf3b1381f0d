"""Sensor that puts another sensor's frames under one condition, such as real photographs in fog."""

from typing import Literal

from pydantic import Field

from sim import world
from vehicle_agent.sensors import AnySensor, Frames, SensorConfig, SensorSource, passed_over


class Config(SensorConfig):
    """Settings of a weathered sensor."""

    kind: Literal["sim.sensors.weathered"] = "sim.sensors.weathered"
    source: AnySensor
    """Sensor that the clear frames come from."""
    condition: Literal["clear", "fog", "rain", "night", "snow", "dust", "motion_blur"]
    """Weather or light that the frames are put under."""
    severity: float = Field(default=0.6, ge=0, le=1)
    """Strength of the condition: 0 leaves a frame clear, 1 is the worst."""
    seed: int = Field(default=0, ge=0)
    """Seed of the weather's random draws."""

    def build(self, classes: tuple[str, ...]) -> "Weathered":
        return Weathered(self, self.source.build(classes))


class Weathered:
    """Sensor that draws new weather at each read: a frame read twice meets different rain."""

    def __init__(self, config: Config, source: SensorSource) -> None:
        self.config, self.source = config, source
        self.reads = 0

    @property
    def num_frames(self) -> int | None:
        return self.source.num_frames

    @property
    def note(self) -> str:
        """Report of the source about files that it could not read; empty if there are none."""
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
